package api

import (
	"context"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// Quarantine shows held messages and decides about them. Who is the operator's account.
type Quarantine interface {
	HeldMail(ctx context.Context, q HeldQuery) ([]HeldMail, error)
	HeldMessage(ctx context.Context, id string) (*HeldDetail, error)
	// HeldText writes a held message as it is.
	HeldText(ctx context.Context, who, id string, w io.Writer) error
	ChangeHeld(ctx context.Context, who string, c HeldChange) (*HeldChanged, error)
	RotateHeldKeys(ctx context.Context, who string) (*HeldRotation, error)
}

// HeldFilter selects held messages; what is left out selects all.
type HeldFilter struct {
	ID        string `json:"id,omitempty"`
	User      string `json:"user,omitempty"`
	Sender    string `json:"sender,omitempty" doc:"address or domain"`
	Recipient string `json:"recipient,omitempty" doc:"address or domain"`
	Code      string `json:"code,omitempty" doc:"why it is held, such as SPAM"`
	Campaign  string `json:"campaign,omitempty" doc:"of which it is a copy"`
}

// Empty tells whether it selects everything.
func (f *HeldFilter) Empty() bool { return *f == HeldFilter{} }

// HeldQuery asks for held messages.
type HeldQuery struct {
	HeldFilter
	State string // held, releasing or released; "": held and releasing
	Limit int
}

// HeldMail is one held message, without what is in it.
type HeldMail struct {
	ID         string     `json:"id"`
	Time       time.Time  `json:"time"`
	Message    string     `json:"message" doc:"its id in the log"`
	User       string     `json:"user"`
	Login      string     `json:"login,omitempty"`
	Client     netip.Addr `json:"client,omitzero"`
	Sender     string     `json:"sender"`
	Recipients []string   `json:"recipients"`
	Size       int64      `json:"size"`
	Check      string     `json:"check"`
	Code       string     `json:"code"`
	Class      string     `json:"class"`
	Evidence   string     `json:"evidence,omitempty"`
	Campaign   string     `json:"campaign,omitempty"`
	Tries      int        `json:"tries" doc:"times that its client tried to send it"`
	Last       time.Time  `json:"last" doc:"of the last try"`
	Until      time.Time  `json:"until" doc:"when it is deleted"`
	State      string     `json:"state" doc:"held; releasing: a crash interrupted its release, it may be out; released"`
	By         string     `json:"by,omitempty" doc:"who released it"`
	Why        string     `json:"why,omitempty"`
	Done       *time.Time `json:"done,omitempty"`
}

// HeldDetail is a held message as it may be shown to anybody at the desk: local parts of addresses and figures are
// masked, and of links only the host is told.
type HeldDetail struct {
	HeldMail
	From    string   `json:"from" doc:"header field, masked"`
	Subject string   `json:"subject" doc:"masked"`
	Text    string   `json:"text" doc:"the beginning of what its reader would see, masked"`
	Hosts   []string `json:"hosts,omitempty" doc:"that its links lead to"`
	Files   []string `json:"files,omitempty"`
	Error   string   `json:"error,omitempty" doc:"why it cannot be read"`
}

// HeldChange releases or deletes held messages.
type HeldChange struct {
	Do     string     `json:"do" doc:"release or delete"`
	Filter HeldFilter `json:"filter"`
	All    bool       `json:"all,omitempty" doc:"needed where the filter is empty"`
	Reason string     `json:"reason"`
	Train  bool       `json:"train,omitempty" doc:"teach the content filter, too: what is released as good, what is deleted as spam"`
	Again  bool       `json:"again,omitempty" doc:"release also what a crash may have released already"`
}

// HeldChanged tells what was done.
type HeldChanged struct {
	Do      string   `json:"do"`
	IDs     []string `json:"ids"`
	Learnt  int      `json:"learnt,omitempty"`
	Refused []string `json:"refused,omitempty" doc:"messages about which nothing was done, each with the reason"`
}

// HeldRotation tells how many messages are sealed under a new key now.
type HeldRotation struct {
	Messages int `json:"messages"`
}

var heldStates = []string{"held", "releasing", "released"}

func (s *Server) quarantineRoutes() []route {
	return []route{
		{method: "GET", path: "/v1/quarantine", summary: "held messages, newest first", out: []HeldMail{}, serve: s.heldMail,
			query: []param{{"user", "name of a user"}, {"sender", "address or domain"}, {"recipient", "address or domain"}, {"code", "why it is held"}, {"campaign", "of which it is a copy"},
				{"state", "held, releasing or released; left out: what is not released"}, {"limit", "100 unless told"}}},
		{method: "GET", path: "/v1/quarantine/{id}", summary: "one held message, masked", out: HeldDetail{},
			serve: func(r *http.Request) (any, error) { return s.back.HeldMessage(r.Context(), r.PathValue("id")) }},
		{method: "GET", path: "/v1/quarantine/{id}/message", summary: "a held message as it is; the audit log notes who looked", raw: func(w http.ResponseWriter, r *http.Request) error {
			w.Header().Set("Content-Type", "application/octet-stream")
			return s.back.HeldText(r.Context(), who(r.Context()), r.PathValue("id"), w)
		}},
		{method: "POST", path: "/v1/quarantine", summary: "release or delete held messages", in: HeldChange{}, out: HeldChanged{}, serve: s.changeHeld},
		{method: "POST", path: "/v1/quarantine/key", summary: "make a new key and seal all held messages under it", out: HeldRotation{},
			serve: func(r *http.Request) (any, error) { return s.back.RotateHeldKeys(r.Context(), who(r.Context())) }},
	}
}

func (s *Server) heldMail(r *http.Request) (any, error) {
	v := r.URL.Query()
	q := HeldQuery{HeldFilter: HeldFilter{User: v.Get("user"), Sender: v.Get("sender"), Recipient: v.Get("recipient"), Code: v.Get("code"), Campaign: v.Get("campaign")}, State: v.Get("state")}
	if q.State != "" && !slices.Contains(heldStates, q.State) {
		return nil, invalid("\""+q.State+"\" is not a state of a held message", "use held, releasing or released")
	}
	var err error
	if q.Limit, err = number(v, "limit", 100); err != nil {
		return nil, err
	}
	return s.back.HeldMail(r.Context(), q)
}

// Values writes q as the parameters of GET /v1/quarantine.
func (q HeldQuery) Values() url.Values {
	v := parameters(map[string]string{"user": q.User, "sender": q.Sender, "recipient": q.Recipient, "code": q.Code, "campaign": q.Campaign, "state": q.State})
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	return v
}

func (s *Server) changeHeld(r *http.Request) (any, error) {
	var c HeldChange
	if err := body(r, &c); err != nil {
		return nil, err
	}
	switch {
	case c.Do != "release" && c.Do != "delete":
		return nil, invalid("cannot \""+c.Do+"\" held mail", "do is release or delete")
	case c.Filter.Empty() && !c.All:
		return nil, invalid("nothing says which messages are meant", `name some, or send "all": true`)
	case c.Reason == "":
		return nil, invalid("no reason is given", "say why: it stands in the audit log")
	}
	return s.back.ChangeHeld(r.Context(), who(r.Context()), c)
}
