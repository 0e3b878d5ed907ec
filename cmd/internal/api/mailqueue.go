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

// MailQueue shows and changes what waits for delivery. Who is the operator's account.
type MailQueue interface {
	Queued(ctx context.Context, q QueueQuery) (*QueuePage, error)
	QueueLanes(ctx context.Context) ([]QueueLane, error)
	ChangeQueue(ctx context.Context, who string, c QueueChange) (*QueueChanged, error)
	Submit(ctx context.Context, who string, s Submission) (*Submitted, error)
}

// QueueFilter selects deliveries; what is left out selects all.
type QueueFilter struct {
	ID       string `json:"id,omitempty" doc:"of one delivery"`
	Message  string `json:"message,omitempty" doc:"id of a message in the log"`
	User     string `json:"user,omitempty"`
	Identity string `json:"identity,omitempty" doc:"login, where there was one"`
	Sender   string `json:"sender,omitempty" doc:"address or domain"`
	Domain   string `json:"domain,omitempty" doc:"of the recipients"`
	Campaign string `json:"campaign,omitempty" doc:"id of the campaign that it is a copy of"`
}

// Empty tells whether it selects everything.
func (f *QueueFilter) Empty() bool { return *f == QueueFilter{} }

// QueueQuery asks for a page of the queue.
type QueueQuery struct {
	QueueFilter
	Held  bool
	From  uint32 // QueuePage.Next of the page before
	Limit int
}

// QueuePage is a part of the queue.
type QueuePage struct {
	Deliveries []QueuedMail `json:"deliveries"`
	Next       uint32       `json:"next,omitempty" doc:"parameter from of the next page; 0: that was all"`
	Total      int          `json:"total" doc:"deliveries in the whole queue"`
	Held       int          `json:"held" doc:"of these, on hold"`
	Bytes      int64        `json:"bytes" doc:"size of the spool's files"`
}

// QueuedMail is one delivery: a message to the recipients of one domain.
type QueuedMail struct {
	ID         string            `json:"id"`
	Message    string            `json:"message,omitempty" doc:"id in the log"`
	User       string            `json:"user,omitempty"`
	Identity   string            `json:"identity,omitempty"`
	Client     netip.Addr        `json:"client,omitzero"`
	Sender     string            `json:"sender" doc:"empty: a notice"`
	Domain     string            `json:"domain"`
	Campaign   string            `json:"campaign,omitempty" doc:"that it is a copy of, as far as anybody can tell; sluice campaign shows those that were sent often"`
	Recipients []QueuedRecipient `json:"recipients" doc:"those that are open"`
	Size       int64             `json:"size"`
	Received   time.Time         `json:"received"`
	Tries      int               `json:"tries"`
	Last       *time.Time        `json:"last,omitempty" doc:"of the last try"`
	Next       *time.Time        `json:"next,omitempty" doc:"not tried before; a destination that is not reached may wait longer"`
	Trying     bool              `json:"trying" doc:"right now"`
	Hold       string            `json:"hold,omitempty" doc:"why it is on hold"`
	Note       string            `json:"note,omitempty" doc:"what hindered the last try as a whole"`
	Error      string            `json:"error,omitempty" doc:"why no more can be told"`
}

// QueuedRecipient is a recipient with the last answer about him.
type QueuedRecipient struct {
	Address string `json:"address"`
	Reply   string `json:"reply,omitempty"`
	Host    string `json:"host,omitempty" doc:"who said so; empty: this gateway"`
}

// QueueLane is what waits for one domain.
type QueueLane struct {
	Domain  string     `json:"domain"`
	Site    string     `json:"site,omitempty" doc:"the best of the hosts that take its mail, as far as it was looked for"`
	Waiting int        `json:"waiting"`
	Active  int        `json:"active" doc:"being tried now"`
	Next    *time.Time `json:"next,omitempty"`
	Misses  int        `json:"misses" doc:"tries in a row that did not reach it"`
	Why     string     `json:"why,omitempty"`
}

// QueueChange does something to deliveries.
type QueueChange struct {
	Do     string      `json:"do" doc:"hold, release, retry or delete"`
	Filter QueueFilter `json:"filter"`
	All    bool        `json:"all,omitempty" doc:"needed where the filter is empty"`
	Reason string      `json:"reason,omitempty" doc:"needed to hold and to delete"`
}

// QueueChanged tells what was done.
type QueueChanged struct {
	Do    string `json:"do"`
	Count int    `json:"count"`
}

// Submission is a message to be delivered.
type Submission struct {
	From string   `json:"from" doc:"empty: nobody hears of a failure"`
	To   []string `json:"to"`
	Text string   `json:"text" doc:"the message with its header, lines ended by LF or CRLF"`
	User string   `json:"user,omitempty" doc:"who answers for it; left out: the gateway"`
}

// Submitted names what was made of a message.
type Submitted struct {
	Message    string   `json:"message"`
	Deliveries []string `json:"deliveries"`
}

var queueDoes = []string{"hold", "release", "retry", "delete"}

func (s *Server) queueRoutes() []route {
	filter := []param{{"id", "of a delivery"}, {"message", "its id in the log"}, {"user", "name of a user"}, {"identity", "login"},
		{"sender", "address or domain"}, {"domain", "of the recipients"}, {"campaign", "id of the campaign"}}
	return []route{
		{method: "GET", path: "/v1/queue", summary: "what waits for delivery, page by page", out: QueuePage{}, serve: s.queued,
			query: append(filter, param{"held", "1: only what is on hold"}, param{"from", "where the last page ended"}, param{"limit", "100 unless told"})},
		{method: "GET", path: "/v1/queue/lanes", summary: "what waits by domain, most first", out: []QueueLane{},
			serve: func(r *http.Request) (any, error) { return s.back.QueueLanes(r.Context()) }},
		{method: "POST", path: "/v1/queue", summary: "hold, release, retry or delete deliveries", in: QueueChange{}, out: QueueChanged{}, serve: s.changeQueue},
		{method: "POST", path: "/v1/queue/messages", summary: "have a message delivered", in: Submission{}, out: Submitted{}, limit: 64 << 20, serve: s.submit},
	}
}

func (s *Server) queued(r *http.Request) (any, error) {
	v := r.URL.Query()
	q := QueueQuery{QueueFilter: QueueFilter{ID: v.Get("id"), Message: v.Get("message"), User: v.Get("user"), Identity: v.Get("identity"),
		Sender: v.Get("sender"), Domain: v.Get("domain"), Campaign: v.Get("campaign")}, Held: v.Get("held") == "1"}
	var err error
	if q.Limit, err = number(v, "limit", 100); err != nil {
		return nil, err
	}
	if from := v.Get("from"); from != "" {
		n, err := strconv.ParseUint(from, 10, 32)
		if err != nil {
			return nil, invalid("from="+from+" is no place in the queue", "use next of the page before")
		}
		q.From = uint32(n)
	}
	return s.back.Queued(r.Context(), q)
}

func (s *Server) changeQueue(r *http.Request) (any, error) {
	var c QueueChange
	if err := body(r, &c); err != nil {
		return nil, err
	}
	switch {
	case !slices.Contains(queueDoes, c.Do):
		return nil, invalid("cannot \""+c.Do+"\" mail", "do is one of hold, release, retry, delete")
	case c.Filter.Empty() && !c.All:
		return nil, invalid("nothing says which mail is meant", `name some, or send "all": true`)
	case c.Reason == "" && (c.Do == "hold" || c.Do == "delete"):
		return nil, invalid("no reason is given", "say why: it stands in the audit log")
	}
	return s.back.ChangeQueue(r.Context(), who(r.Context()), c)
}

func (s *Server) submit(r *http.Request) (any, error) {
	var m Submission
	if err := body(r, &m); err != nil {
		return nil, err
	}
	if len(m.To) == 0 || m.Text == "" {
		return nil, invalid("a message needs recipients and a text", `send {"from": "a@example.com", "to": ["b@example.net"], "text": "Subject: …"}`)
	}
	return s.back.Submit(r.Context(), who(r.Context()), m)
}

// Values writes q as the parameters of GET /v1/queue.
func (q QueueQuery) Values() url.Values {
	v := parameters(map[string]string{"id": q.ID, "message": q.Message, "user": q.User, "identity": q.Identity, "sender": q.Sender, "domain": q.Domain, "campaign": q.Campaign})
	if q.Held {
		v.Set("held", "1")
	}
	if q.From > 0 {
		v.Set("from", strconv.FormatUint(uint64(q.From), 10))
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	return v
}

// parameters are those that say something.
func parameters(all map[string]string) url.Values {
	v := url.Values{}
	for name, text := range all {
		if text != "" {
			v.Set(name, text)
		}
	}
	return v
}
