package api

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// Campaigns shows bursts of copies of one message, and says what is done with them. Who is the operator's account.
type Campaigns interface {
	Campaigns(ctx context.Context, q CampaignQuery) ([]Campaign, error)
	Campaign(ctx context.Context, id string) (*Campaign, error)
	DecideCampaign(ctx context.Context, who, id string, d CampaignDecision) (*CampaignDecided, error)
	Digests(ctx context.Context) ([]Digest, error)
	ListDigest(ctx context.Context, who string, d NewDigest) (*Digest, error)
	UnlistDigest(ctx context.Context, who, hash, reason string) (*Digest, error)
}

// CampaignQuery selects campaigns.
type CampaignQuery struct {
	User   string
	State  string
	Copies int // at least
	Limit  int
}

// Campaign is one burst of copies of a message.
type Campaign struct {
	ID         string         `json:"id"`
	State      string         `json:"state" doc:"watched, held, refused or released"`
	Rule       string         `json:"rule,omitempty" doc:"that was met; empty: none"`
	By         string         `json:"by,omitempty" doc:"who decided; empty: nobody, or the rule"`
	Why        string         `json:"why,omitempty"`
	Decided    *time.Time     `json:"decided,omitempty"`
	First      time.Time      `json:"first"`
	Last       time.Time      `json:"last"`
	Copies     int            `json:"copies" doc:"tries to send one"`
	Recipients int            `json:"recipients" doc:"different lists of recipients, an estimate above a few hundred"`
	Good       int            `json:"good" doc:"copies that the content filter takes for good"`
	Unsure     int            `json:"unsure"`
	Bad        int            `json:"bad"`
	Stopped    int            `json:"stopped" doc:"copies withheld or refused because of the campaign"`
	Subject    string         `json:"subject" doc:"of an early copy"`
	Hosts      []string       `json:"hosts" doc:"that its links lead to"`
	Files      []string       `json:"files,omitempty"`
	Users      []CampaignUser `json:"users" doc:"most copies first"`
	MoreUsers  int            `json:"more_users,omitempty" doc:"copies of users beyond those that are told apart"`
	Sources    []netip.Addr   `json:"sources"`
	MoreFrom   int            `json:"more_sources,omitempty"`
	Samples    []string       `json:"samples" doc:"ids of the latest copies in the message log"`
}

// CampaignUser is a user who sent copies.
type CampaignUser struct {
	Name   string    `json:"name"`
	Copies int       `json:"copies"`
	Last   time.Time `json:"last"`
	Ticket string    `json:"ticket,omitempty" doc:"of his lock"`
}

// CampaignDecision says what is done with the copies of a campaign.
type CampaignDecision struct {
	Do      string `json:"do" doc:"hold, refuse, release, watch (nothing but count) or lock (refuse, and lock everybody who sent a copy)"`
	Reason  string `json:"reason"`
	Seconds int    `json:"seconds,omitempty" doc:"of lock: for how long; 0: until a person unlocks"`
}

// CampaignDecided tells what was done.
type CampaignDecided struct {
	Campaign Campaign `json:"campaign"`
	Locked   []string `json:"locked,omitempty" doc:"users who are locked now"`
	Released int      `json:"released,omitempty" doc:"copies that were on hold in the queue or held in quarantine, and are delivered now"`
	Unlocked []string `json:"not_locked,omitempty" doc:"users who could not be locked, each with the reason"`
}

// Digest is a SHA-256 of a file or of a message's text that is refused.
type Digest struct {
	Hash  string     `json:"hash"`
	Why   string     `json:"why"`
	By    string     `json:"by"`
	Since time.Time  `json:"since"`
	Until *time.Time `json:"until,omitempty"`
}

// NewDigest lists a SHA-256.
type NewDigest struct {
	Hash   string     `json:"hash" doc:"64 hexadecimal digits"`
	Reason string     `json:"reason"`
	Until  *time.Time `json:"until,omitempty" doc:"left out: until it is removed"`
}

var campaignStates = []string{"watched", "held", "refused", "released"}

var campaignDoes = []string{"hold", "refuse", "release", "watch", "lock"}

func (s *Server) campaignRoutes() []route {
	return []route{
		{method: "GET", path: "/v1/campaigns", summary: "bursts of copies of one message, those with the latest copies first", out: []Campaign{}, serve: s.campaigns,
			query: []param{{"user", "who sent copies"}, {"state", "watched, held, refused or released"}, {"copies", "at least so many; 3 unless told"}, {"limit", "100 unless told"}}},
		{method: "GET", path: "/v1/campaigns/{id}", summary: "one campaign", out: Campaign{},
			serve: func(r *http.Request) (any, error) { return s.back.Campaign(r.Context(), r.PathValue("id")) }},
		{method: "POST", path: "/v1/campaigns/{id}", summary: "say what is done with the copies of a campaign", in: CampaignDecision{}, out: CampaignDecided{}, serve: s.decideCampaign},
		{method: "GET", path: "/v1/digests", summary: "files and texts that are refused, by their SHA-256", out: []Digest{},
			serve: func(r *http.Request) (any, error) { return s.back.Digests(r.Context()) }},
		{method: "POST", path: "/v1/digests", summary: "refuse a file or a text by its SHA-256", in: NewDigest{}, out: Digest{}, serve: s.listDigest},
		{method: "DELETE", path: "/v1/digests/{hash}", summary: "take a SHA-256 off the list", out: Digest{}, query: []param{{"reason", "why"}},
			serve: func(r *http.Request) (any, error) {
				return s.back.UnlistDigest(r.Context(), who(r.Context()), r.PathValue("hash"), r.URL.Query().Get("reason"))
			}},
	}
}

func (s *Server) campaigns(r *http.Request) (any, error) {
	v := r.URL.Query()
	q := CampaignQuery{User: v.Get("user"), State: v.Get("state")}
	if q.State != "" && !slices.Contains(campaignStates, q.State) {
		return nil, invalid("\""+q.State+"\" is not a state of a campaign", "use watched, held, refused or released")
	}
	var err error
	if q.Copies, err = number(v, "copies", 3); err != nil {
		return nil, err
	}
	if q.Limit, err = number(v, "limit", 100); err != nil {
		return nil, err
	}
	return s.back.Campaigns.Campaigns(r.Context(), q)
}

// Values writes q as the parameters of GET /v1/campaigns.
func (q CampaignQuery) Values() url.Values {
	v := parameters(map[string]string{"user": q.User, "state": q.State})
	for name, n := range map[string]int{"copies": q.Copies, "limit": q.Limit} {
		if n > 0 {
			v.Set(name, strconv.Itoa(n))
		}
	}
	return v
}

func (s *Server) decideCampaign(r *http.Request) (any, error) {
	var d CampaignDecision
	if err := body(r, &d); err != nil {
		return nil, err
	}
	switch {
	case !slices.Contains(campaignDoes, d.Do):
		return nil, invalid("cannot \""+d.Do+"\" a campaign", "do is one of hold, refuse, release, watch, lock")
	case d.Reason == "":
		return nil, invalid("no reason is given", "say why: it stands in the audit log")
	case d.Seconds < 0 || d.Seconds > 7*24*3600:
		return nil, invalid(strconv.Itoa(d.Seconds)+" seconds is no time for a lock", "give at most a week, or 0 for locks until somebody unlocks")
	}
	return s.back.DecideCampaign(r.Context(), who(r.Context()), r.PathValue("id"), d)
}

func (s *Server) listDigest(r *http.Request) (any, error) {
	var d NewDigest
	if err := body(r, &d); err != nil {
		return nil, err
	}
	if d.Hash == "" || d.Reason == "" {
		return nil, invalid("a digest needs its hash and a reason", `send {"hash": "9f86…", "reason": "…"}`)
	}
	return s.back.ListDigest(r.Context(), who(r.Context()), d)
}
