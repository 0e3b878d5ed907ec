package api

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"time"
)

// Gate is what the log shows of users before their next step of the roll-out: each line has a figure, and a verdict.
type Gate struct {
	Scope    string     `json:"scope" doc:"all, a prefix, or a user's name"`
	Since    time.Time  `json:"since"`
	Until    time.Time  `json:"until"`
	Whole    bool       `json:"whole" doc:"false: the log has more in this time than is looked at; since is where the newest part begins"`
	First    *time.Time `json:"first,omitempty" doc:"the oldest line that was found"`
	Users    int        `json:"users" doc:"who sent anything"`
	Flows    int        `json:"flows"`
	Enforced int        `json:"enforced" doc:"of the flows, those that went through the proxy and were judged for real"`
	Shadow   int        `json:"shadow" doc:"of the flows, those in shadow"`
	Observed int        `json:"observed" doc:"of the flows, those read in passing"`
	Opaque   int        `json:"opaque" doc:"of the flows, those whose contents nobody saw"`
	Messages int        `json:"messages"`
	Verdict  string     `json:"verdict" doc:"the worst of the lines: ok, look or stop"`
	Lines    []GateLine `json:"lines"`
}

// GateLine is one thing to look at before a step.
type GateLine struct {
	Check   string      `json:"check" doc:"traffic, opaque, refusals, locks, spf, relay, tls or caps"`
	Verdict string      `json:"verdict" doc:"ok; look: somebody is concerned; stop: too many are; unknown: this mode cannot show it"`
	Text    string      `json:"text"`
	Count   int         `json:"count" doc:"messages, flows or users concerned"`
	Of      int         `json:"of"`
	Unknown int         `json:"unknown,omitempty" doc:"messages about which the DNS said nothing in time"`
	Worst   []GateWorst `json:"worst,omitempty" doc:"users most concerned"`
	Remedy  string      `json:"remedy,omitempty"`
}

// GateWorst is a user whom a line concerns.
type GateWorst struct {
	User   string `json:"user"`
	Count  int    `json:"count"`
	Detail string `json:"detail,omitempty" doc:"codes, domains or destinations"`
}

// The verdicts of a gate.
const (
	GateOK      = "ok"
	GateLook    = "look"
	GateStop    = "stop"
	GateUnknown = "unknown"
)

// GateQuery selects whose figures are wanted: all, those of a user, or of sources inside a prefix.
type GateQuery struct {
	User   string
	Prefix netip.Prefix
	Since  time.Time // zero: 24 hours ago
}

// Values are the query's parameters.
func (q GateQuery) Values() url.Values {
	v := url.Values{}
	if q.User != "" {
		v.Set("user", q.User)
	}
	if q.Prefix.IsValid() {
		v.Set("prefix", q.Prefix.String())
	}
	if !q.Since.IsZero() {
		v.Set("since", q.Since.Format(time.RFC3339))
	}
	return v
}

// Gates gives the figures of the roll-out.
type Gates interface {
	Gate(ctx context.Context, q GateQuery) (*Gate, error)
}

var gateParams = []param{
	{"user", "name of a user, or an address whose user is meant"}, {"prefix", "of sources"}, {"since", "RFC 3339 time; 24 hours ago unless told"},
}

func (s *Server) gate(r *http.Request) (any, error) {
	v := r.URL.Query()
	q := GateQuery{User: v.Get("user")}
	var err error
	if p := v.Get("prefix"); p != "" {
		if q.Prefix, err = ParsePrefix(p); err != nil {
			return nil, err
		}
	}
	if t := v.Get("since"); t != "" {
		if q.Since, err = time.Parse(time.RFC3339, t); err != nil {
			return nil, invalid("since="+t+" is not a time", "write it like 2027-01-31T12:00:00Z")
		}
	}
	if q.User != "" && q.Prefix.IsValid() {
		return nil, invalid("user and prefix do not go together", "give one of them")
	}
	return s.back.Gate(r.Context(), q)
}
