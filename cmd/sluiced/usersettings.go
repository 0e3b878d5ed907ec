package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/notify"
	"sluice/cmd/internal/store"
	"sluice/filter/policy"
)

const (
	mostChanges = 10_000 // that a plan shows
	domainsKey  = "from_domains"
)

// loadSettings puts what the store says of users' settings in force.
func (d *daemon) loadSettings() error {
	all, members, err := d.store.Groups()
	if err != nil {
		return err
	}
	d.setGroups(&groupsNow{all, members})
	overrides, err := d.store.Overrides()
	if err != nil {
		return err
	}
	d.policy.OverrideAll(overrides)
	lifts, err := d.store.Lifts()
	for _, l := range lifts {
		d.lift(l)
	}
	return errors.Join(err, d.loadAddresses())
}

// lift puts in force what holds for a time, and takes it back at its end. d.change is held, but at the start.
func (d *daemon) lift(l store.Lift) {
	d.policy.Lift(l.User, l.Settings)
	if l.Settings.Empty() {
		d.lifts.Delete(l.User)
		return
	}
	this := &l
	d.lifts.Store(l.User, this)
	time.AfterFunc(time.Until(l.Until), func() {
		d.change.Lock()
		defer d.change.Unlock()
		if d.lifts.CompareAndDelete(l.User, this) { // else another one has taken its place
			d.policy.Lift(l.User, policy.Overrides{})
			d.log.Info("what held for a user for a time is over", "user id", l.User, "reason", l.Reason)
		}
	})
}

// SettingKeys lists all settings.
func (b backend) SettingKeys(context.Context) ([]api.SettingKey, error) {
	def := b.d.policy.Explain(0)[0]
	flat := def.Says.Flat()
	var all []api.SettingKey
	for _, k := range policy.Keys() {
		all = append(all, api.SettingKey{Key: k, Default: flat[k]})
	}
	return all, nil
}

// Explained tells a user's settings and who says them.
func (b backend) Explained(_ context.Context, user string) (*api.Explained, error) {
	m, err := b.find(user)
	if err != nil {
		return nil, err
	}
	return b.explain(m), nil
}

func (b backend) explain(m *member) *api.Explained {
	x := &api.Explained{User: m.Name}
	said := map[string]api.Setting{}
	lifted := false
	for _, l := range b.d.policy.Explain(m.ID) {
		if name, ok := strings.CutPrefix(l.Name, "account "); ok {
			x.Account = name
		}
		lifted = l.Name == "for a time"
		for k, v := range l.Says.Flat() {
			s := api.Setting{Key: k, Value: v, From: l.Name}
			if lifted {
				s.Would = said[k].Value
			}
			said[k] = s
		}
	}
	for _, k := range policy.Keys() {
		if s, ok := said[k]; ok {
			x.Settings = append(x.Settings, s)
		}
	}
	if set := b.d.policy.Settings(m.ID); set.Budgets != nil {
		for _, bud := range *set.Budgets {
			x.Budgets = append(x.Budgets, strings.TrimSpace(bud.Scope.String()+" "+bud.Name))
		}
	}
	if l, ok := b.d.lifts.Load(m.ID); ok && lifted {
		x.Until = l.(*store.Lift).Until
	}
	return x
}

// ChangeSettings changes what a user has of his own, from the next transaction on.
func (b backend) ChangeSettings(_ context.Context, who string, c api.SettingsChange) (*api.Explained, error) {
	d := b.d
	d.change.Lock()
	defer d.change.Unlock()
	if d.retired() {
		return nil, errRetired
	}
	m, err := b.find(c.User)
	if err != nil {
		return nil, err
	}
	for k, v := range c.Set {
		if err := d.permits(k, v); err != nil {
			return nil, err
		}
	}
	what := "settings changed"
	var o policy.Overrides
	if c.Until != nil {
		what = "settings changed until " + c.Until.UTC().Format(time.RFC3339)
		if l, ok := d.lifts.Load(m.ID); ok {
			o = l.(*store.Lift).Settings
		}
	} else if o, err = d.store.OverridesOf(m.ID); err != nil {
		return nil, err
	}
	if err := changed(&o, c.Set, c.Unset); err != nil {
		return nil, err
	}
	act := store.Act{Who: who, What: what, Subject: m.Name, Detail: because(detailOf(c.Set, c.Unset), c.Reason)}
	if c.Until != nil {
		l := store.Lift{User: m.ID, Settings: o, Until: c.Until.UTC(), Reason: c.Reason, By: who}
		if err := d.store.PutLift(l, act); err != nil {
			return nil, err
		}
		d.lift(l)
	} else {
		if err := d.store.ChangeOverrides(map[uint32]policy.Overrides{m.ID: o}, act); err != nil {
			return nil, err
		}
		d.policy.Override(m.ID, o)
	}
	if _, set := c.Set[domainsKey]; set || slices.Contains(c.Unset, domainsKey) {
		d.domainLogins() // it goes through all users
	}
	d.log.Info(what, "user", m.Name, "settings", act.Detail, "by", who)
	return b.explain(m), nil
}

// changed applies a change by names.
func changed(o *policy.Overrides, set map[string]string, unset []string) error {
	for _, k := range unset {
		if err := o.Unset(k); err != nil {
			return badSetting(err)
		}
	}
	// What belongs together is checked together: identity needs its headers.
	for _, k := range slices.Sorted(maps.Keys(set)) {
		if err := o.Put(k, set[k]); err != nil {
			return badSetting(err)
		}
	}
	if err := o.Validate(); err != nil {
		return badSetting(err)
	}
	return nil
}

// permits refuses settings for which something else has to be there.
func (d *daemon) permits(key, value string) error {
	if key == "language" {
		return d.speaks(value)
	}
	if key != "content_on_spam" && key != "content_on_unsure" {
		return nil
	}
	cfg := d.cfg.Load()
	switch {
	case value == policy.DiscardMail.String() && !cfg.Content.Discard:
		return &api.Problem{Status: http.StatusConflict, Code: "refused", What: "nothing was changed: the configuration does not allow to discard mail", Remedy: "use quarantine, or set content.discard = true there: senders then believe that such mail went out, and nobody has a copy"}
	case value == policy.RiskMail.String() && !cfg.Delivery.HasRiskPool():
		return &api.Problem{Status: http.StatusConflict, Code: "refused", What: "nothing was changed: there is no delivery pool of class risk", Remedy: `add [[delivery.pool]] with class = "risk" and addresses of its own to the configuration`}
	}
	return nil
}

// speaks refuses a language in which no notice of a lock can be written.
func (d *daemon) speaks(language string) error {
	known := d.notices.now.Load().texts.Languages(notify.Locked)
	if slices.Contains(known, language) {
		return nil
	}
	return &api.Problem{Status: http.StatusBadRequest, Code: "invalid", What: fmt.Sprintf("nothing was changed: notices cannot be written in %q", language), Remedy: fmt.Sprintf("use one of %s, or add locked.%s.txt in notice.templates", strings.Join(known, ", "), language)}
}

func badSetting(err error) error {
	what, remedy, _ := strings.Cut(err.Error(), "; ")
	if remedy == "" {
		remedy = "`sluice settings keys` lists all settings with their defaults"
	}
	return &api.Problem{Status: http.StatusBadRequest, Code: "invalid", What: what, Remedy: remedy}
}

// because adds a reason, where there is one.
func because(what, reason string) string {
	if what == "" || reason == "" {
		return what + reason
	}
	return what + ": " + reason
}

func detailOf(set map[string]string, unset []string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(set)) {
		parts = append(parts, k+"="+set[k])
	}
	for _, k := range unset {
		parts = append(parts, k+" inherited")
	}
	return strings.Join(parts, ", ")
}

// ExportSettings lists what users have of their own.
func (b backend) ExportSettings(context.Context) ([]api.SettingRow, error) {
	all, err := b.d.store.Overrides()
	if err != nil {
		return nil, err
	}
	names, err := b.userNames()
	if err != nil {
		return nil, err
	}
	rows := []api.SettingRow{}
	for id, o := range all {
		for k, v := range o.Flat() {
			rows = append(rows, api.SettingRow{User: names[id], Key: k, Value: v})
		}
	}
	slices.SortFunc(rows, func(x, y api.SettingRow) int {
		return strings.Compare(x.User+"\x00"+x.Key, y.User+"\x00"+y.Key)
	})
	return rows, nil
}

func (b backend) userNames() (map[uint32]string, error) {
	users, err := b.d.store.Users()
	names := make(map[uint32]string, len(users))
	for _, u := range users {
		names[u.ID] = u.Name
	}
	return names, err
}

// ImportSettings has users have exactly the settings of a list of their own, or tells what that would change.
func (b backend) ImportSettings(_ context.Context, who string, r api.SettingsImport) (*api.SettingsPlan, error) {
	d := b.d
	d.change.Lock()
	defer d.change.Unlock()
	if d.retired() {
		return nil, errRetired
	}
	want, names, err := b.wanted(r.Rows)
	if err != nil {
		return nil, err
	}
	have, err := d.store.Overrides()
	if err != nil {
		return nil, err
	}
	if r.Replace {
		for id := range have {
			if _, ok := want[id]; !ok {
				want[id] = policy.Overrides{}
			}
		}
	}
	plan := &api.SettingsPlan{Changes: []api.SettingChange{}}
	for _, id := range slices.Sorted(maps.Keys(want)) {
		old, o := have[id], want[id]
		diff := differences(names[id], old.Flat(), o.Flat())
		if len(diff) == 0 {
			delete(want, id)
			continue
		}
		plan.Users++
		plan.Changes = append(plan.Changes, diff[:min(len(diff), mostChanges-len(plan.Changes))]...)
	}
	if r.Plan || len(want) == 0 {
		return plan, nil
	}
	act := store.Act{Who: who, What: "settings imported", Subject: fmt.Sprint(plan.Users, " users"), Detail: r.Reason}
	if err := d.store.ChangeOverrides(want, act); err != nil {
		return nil, err
	}
	for id, o := range want {
		d.policy.Override(id, o)
	}
	plan.Done = true
	d.domainLogins()
	d.log.Info("settings imported", "users", plan.Users, "by", who)
	return plan, nil
}

// wanted reads the rows of an import; every row is checked before anything is done.
func (b backend) wanted(rows []api.SettingRow) (map[uint32]policy.Overrides, map[uint32]string, error) {
	names, err := b.userNames()
	if err != nil {
		return nil, nil, err
	}
	ids := make(map[string]uint32, len(names))
	for id, n := range names {
		ids[n] = id
	}
	want := map[uint32]policy.Overrides{}
	for i, row := range rows {
		id, ok := ids[row.User]
		if !ok {
			return nil, nil, &api.Problem{Status: http.StatusNotFound, Code: "no-such-user", What: fmt.Sprintf("row %d: there is no user %q", i+1, row.User), Remedy: "nothing was changed; `sluice users` lists all"}
		}
		o := want[id]
		if err := b.d.permits(row.Key, row.Value); err != nil {
			return nil, nil, err
		}
		if err := o.Put(row.Key, row.Value); err != nil {
			return nil, nil, badSetting(fmt.Errorf("row %d, user %s: %w", i+1, row.User, err))
		}
		want[id] = o
	}
	for id, o := range want {
		if err := o.Validate(); err != nil {
			return nil, nil, badSetting(fmt.Errorf("user %s: %w", names[id], err))
		}
	}
	return want, names, nil
}

func differences(user string, old, now map[string]string) (all []api.SettingChange) {
	for _, k := range policy.Keys() {
		if was, is := old[k], now[k]; was != is {
			all = append(all, api.SettingChange{User: user, Key: k, Old: was, New: is})
		}
	}
	return all
}

// Acts lists the audit log.
func (b backend) Acts(_ context.Context, limit int) ([]api.Act, error) {
	acts, err := b.d.store.Acts(limit)
	all := make([]api.Act, len(acts))
	for i, a := range acts {
		all[i] = api.Act(a)
	}
	return all, err
}
