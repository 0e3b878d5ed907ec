package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/config"
	"sluice/cmd/internal/store"
	"sluice/filter"
	"sluice/filter/campaign"
	"sluice/filter/lock"
	"sluice/intercept/flow"
	"sluice/proxy/delivery"
	"sluice/proxy/spool"
)

// campaignsFile keeps campaigns, and what was decided about them, over a restart.
type campaignsFile struct {
	keptFile
	*campaign.Tracker
}

// openCampaigns opens what is known of campaigns, and the listed digests. told hears of rules that were met.
func openCampaigns(dir string, settings func() campaign.Settings, st *store.Store, told func(campaign.Event)) (*campaignsFile, error) {
	t := campaign.New(campaign.Options{Settings: settings, Events: told})
	listed, err := st.Digests()
	if err != nil {
		return nil, err
	}
	t.SetDigests(listed)
	c := &campaignsFile{keptFile{what: t}, t}
	return c, c.open(dir, "campaigns")
}

// campaignSettings are those of the configuration in force.
func (d *daemon) campaignSettings() campaign.Settings {
	return campaignSettings(&d.cfg.Load().Campaign)
}

func campaignSettings(c *config.Campaign) campaign.Settings {
	return campaign.Settings{Window: c.Window.D(), Remember: c.Remember, Rules: c.Act != "say", Copies: c.Copies, Share: c.Share, Users: c.Users, Among: c.UsersShare, Strangers: c.Strangers,
		Action: map[string]filter.Action{"reject": filter.Reject, "quarantine": filter.Quarantine}[c.Act]}.WithDefaults()
}

// campaignEvent tells of a rule that was met. It is called in the way of mail.
func (d *daemon) campaignEvent(e campaign.Event) {
	c := &e.Campaign
	what := "campaign held"
	if e.Shadow {
		what = "campaign would have been held"
	}
	d.log.Warn(what, "campaign", c.ID, "rule", c.Rule, "why", c.Why, "copies", c.Copies, "users", len(c.Users), "subject", c.Subject)
	d.audits.Go(func() {
		act := store.Act{At: time.Now(), Who: "sluiced", What: what, Subject: c.ID, Detail: c.Rule + ": " + c.Why}
		if err := d.store.Audit(act); err != nil {
			d.log.Error("could not write the audit log", "act", act.What, "campaign", c.ID, "err", err)
		}
	})
}

// Campaigns lists campaigns.
func (b backend) Campaigns(_ context.Context, q api.CampaignQuery) ([]api.Campaign, error) {
	cq := campaign.Query{Least: q.Copies, User: q.User, Most: q.Limit}
	if q.State != "" {
		cq.State = new(campaign.State)
		_ = cq.State.UnmarshalText([]byte(q.State)) // the API has looked at the name
	}
	all := b.d.campaigns.List(cq)
	out := make([]api.Campaign, len(all))
	for i := range all {
		out[i] = b.campaign(&all[i])
	}
	return out, nil
}

func (b backend) campaign(c *campaign.Campaign) api.Campaign {
	out := api.Campaign{
		ID: c.ID, State: c.State.String(), Rule: c.Rule, By: c.By, Why: c.Why, First: c.First, Last: c.Last, Copies: c.Copies, Recipients: c.Recipients,
		Good: c.Good, Unsure: c.Unsure, Bad: c.Bad, Stopped: c.Stopped, Subject: c.Subject, Hosts: c.Hosts, Files: c.Files, Users: []api.CampaignUser{},
		MoreUsers: c.MoreUsers, Sources: c.Sources, MoreFrom: c.MoreFrom, Samples: c.Samples,
	}
	out.Decided = moment(c.Decided)
	for _, u := range c.Users {
		ticket, _ := b.d.locks.Locked(u.ID)
		out.Users = append(out.Users, api.CampaignUser{Name: b.sender(&u), Copies: u.Copies, Last: u.Last, Ticket: ticket})
	}
	return out
}

// sender names a user, also one of whom only the number is known.
func (b backend) sender(u *campaign.Sender) string {
	if u.Name != "" {
		return u.Name
	}
	return b.nameOf(u.ID)
}

// Campaign shows one.
func (b backend) Campaign(_ context.Context, id string) (*api.Campaign, error) {
	c, err := b.d.campaigns.Find(id)
	if err != nil {
		return nil, noCampaign(id, err)
	}
	out := b.campaign(&c)
	return &out, nil
}

func noCampaign(id string, err error) error {
	if errors.Is(err, campaign.ErrUnknown) {
		return &api.Problem{Status: http.StatusNotFound, Code: "no-such-campaign", What: fmt.Sprintf("there is no campaign %q, or it is forgotten", id), Remedy: "`sluice campaign list` shows what there is"}
	}
	return err
}

var campaignStates = map[string]campaign.State{"hold": campaign.Held, "refuse": campaign.Refused, "release": campaign.Released, "watch": campaign.Watched, "lock": campaign.Refused}

// DecideCampaign says what is done with the copies of a campaign.
func (b backend) DecideCampaign(ctx context.Context, who, id string, d api.CampaignDecision) (*api.CampaignDecided, error) {
	c, err := b.d.campaigns.Decide(id, campaignStates[d.Do], who, d.Reason)
	if err != nil {
		return nil, noCampaign(id, err)
	}
	out := &api.CampaignDecided{}
	if d.Do == "lock" {
		out.Locked, out.Unlocked = b.lockSenders(who, &c, d)
	}
	if d.Do == "release" {
		if out.Released, err = b.releaseCopies(ctx, who, c.ID, d.Reason); err != nil {
			b.d.log.Error("some held copies of a released campaign are held still", "campaign", c.ID, "err", err)
		}
	}
	if _, err := b.d.campaigns.keep(); err != nil {
		b.d.log.Error("could not save what was decided about a campaign; a killed process forgets it", "campaign", c.ID, "err", err)
	}
	detail := fmt.Sprintf("%d copies of %d users; %s", c.Copies, len(c.Users), d.Reason)
	b.d.log.Info("campaign decided", "campaign", c.ID, "do", d.Do, "by", who, "reason", d.Reason, "locked", len(out.Locked))
	out.Campaign = b.campaign(&c)
	return out, b.d.store.Audit(store.Act{At: time.Now(), Who: who, What: "campaign " + d.Do, Subject: c.ID, Detail: detail})
}

// releaseCopies lets go what was held of a campaign, in the queue and in quarantine. What is held for another reason stays.
func (b backend) releaseCopies(ctx context.Context, who, id, reason string) (n int, err error) {
	all, err := b.heldCopies(id)
	for _, d := range all {
		k, rerr := b.d.mail.queue.Release(delivery.Filter{ID: d})
		n, err = n+k, errors.Join(err, rerr)
	}
	out, qerr := b.ChangeHeld(ctx, who, api.HeldChange{Do: "release", Reason: reason, Filter: api.HeldFilter{Campaign: id, Code: "CAMPAIGN"}})
	if qerr == nil {
		n += len(out.IDs)
		for _, why := range out.Refused {
			qerr = errors.Join(qerr, errors.New(why))
		}
	}
	return n, errors.Join(err, qerr)
}

// heldCopies are the deliveries on hold because of a campaign.
func (b backend) heldCopies(id string) (ids []spool.ID, err error) {
	m, held := b.d.mail, true
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.gave {
		return nil, errRetired
	}
	for from := uint32(0); ; {
		var some []delivery.Entry
		if some, from, err = m.queue.List(delivery.Filter{Campaign: id, Held: &held}, from, 1000); err != nil {
			return ids, err
		}
		for i := range some {
			if strings.HasPrefix(some[i].State.Hold, filter.Hold.String()+": [CAMPAIGN] ") {
				ids = append(ids, some[i].ID)
			}
		}
		if from == 0 {
			return ids, nil
		}
	}
}

// lockSenders locks everybody who sent a copy.
func (b backend) lockSenders(who string, c *campaign.Campaign, d api.CampaignDecision) (locked, not []string) {
	for i := range c.Users {
		name := b.sender(&c.Users[i])
		m, err := b.toLock(name)
		if err == nil {
			u := flow.User{ID: m.ID, Name: m.Name, Made: m.origin == store.Template}
			if len(m.Prefixes) > 0 {
				u.Prefix = m.Prefixes[0]
			}
			_, err = b.d.locks.Lock(u, lock.Request{Who: who, Reason: "campaign " + c.ID + ": " + d.Reason, Time: time.Duration(d.Seconds) * time.Second})
		}
		if err != nil {
			not = append(not, name+": "+err.Error())
			continue
		}
		locked = append(locked, name)
	}
	return locked, not
}

// Digests lists what is refused by its SHA-256.
func (b backend) Digests(context.Context) ([]api.Digest, error) {
	out := []api.Digest{}
	for _, d := range b.d.campaigns.Digests() {
		out = append(out, shownDigest(d))
	}
	return out, nil
}

func shownDigest(d campaign.Digest) api.Digest {
	a := api.Digest{Hash: d.Hash, Why: d.Why, By: d.By, Since: d.Since}
	a.Until = moment(d.Until)
	return a
}

// ListDigest refuses a file or a text from now on.
func (b backend) ListDigest(_ context.Context, who string, n api.NewDigest) (*api.Digest, error) {
	hash, err := campaign.ParseDigest(n.Hash)
	if err != nil {
		what, remedy, _ := strings.Cut(err.Error(), "; ")
		return nil, &api.Problem{Status: http.StatusBadRequest, Code: "invalid", What: what, Remedy: remedy}
	}
	d := campaign.Digest{Hash: hash, Why: n.Reason, By: who, Since: time.Now().UTC().Round(time.Second)}
	if n.Until != nil {
		d.Until = *n.Until
	}
	if err := b.d.store.PutDigest(d, store.Act{Who: who, What: "digest listed", Subject: hash, Detail: n.Reason}); err != nil {
		return nil, err
	}
	a := shownDigest(d)
	return &a, b.digestsAnew()
}

// UnlistDigest lets it pass again.
func (b backend) UnlistDigest(_ context.Context, who, hash, reason string) (*api.Digest, error) {
	hash = strings.ToLower(hash)
	for _, d := range b.d.campaigns.Digests() {
		if d.Hash == hash {
			if err := b.d.store.RemoveDigest(hash, store.Act{Who: who, What: "digest removed", Subject: hash, Detail: reason}); err != nil {
				return nil, err
			}
			a := shownDigest(d)
			return &a, b.digestsAnew()
		}
	}
	return nil, &api.Problem{Status: http.StatusNotFound, Code: "no-such-digest", What: "the SHA-256 " + hash + " is not listed", Remedy: "`sluice campaign digest` shows what is"}
}

func (b backend) digestsAnew() error {
	all, err := b.d.store.Digests()
	if err == nil {
		b.d.campaigns.SetDigests(all)
	}
	return err
}
