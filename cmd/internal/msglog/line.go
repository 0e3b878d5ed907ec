package msglog

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"sluice/filter"
	"sluice/filter/campaign"
	"sluice/intercept/flow"
	"sluice/proxy"
	"sluice/proxy/tlspolicy"
)

// line is how earlier versions wrote a record: a line of JSON. A field that is absent has its zero value.
type line struct {
	ID     string         `json:"id"`
	Start  time.Time      `json:"start"`
	Micros int64          `json:"us"`
	Status string         `json:"status"`
	Flow   string         `json:"flow"`
	Began  int64          `json:"began"`
	Client netip.AddrPort `json:"client"`
	Target netip.AddrPort `json:"target"`
	User   uint32         `json:"user"`
	Name   string         `json:"name"`
	Prefix netip.Prefix   `json:"prefix"`
	Made   bool           `json:"made"`
	Helo   string         `json:"helo"`
	Ident  string         `json:"identity"`
	From   string         `json:"from"`
	To     []struct {
		A string
		C int
		R string
	} `json:"to"`
	Size   int64         `json:"size"`
	Action filter.Action `json:"action"`
	Class  filter.Class  `json:"class"`
	Cause  int           `json:"cause"` // one more than the index; 0 for none
	Hits   []struct {
		Check, Code, Enhanced, Text, Evidence string
		Class                                 filter.Class
		Action                                filter.Action
		Points                                float64
		Score                                 int // in percent
		SMTP                                  int
		Outside, NoLock                       int // 1 where it is so
	} `json:"hits"`
	Reply     string                `json:"reply"`
	Remote    string                `json:"remote"`
	Source    netip.Addr            `json:"source"`
	Way       string                `json:"way"`
	Signed    string                `json:"signed"`
	Out       struct{ V, C string } `json:"out"`
	In        struct{ V, C string } `json:"in"`
	Terms     string                `json:"terms"`
	Trust     string                `json:"trust"`
	Asks      string                `json:"asks"`
	Met       string                `json:"met"`
	UnreadOut int64                 `json:"unread_out"`
	UnreadIn  int64                 `json:"unread_in"`
	Campaign  string                `json:"campaign"`
	Forwarded int                   `json:"forwarded"` // 1 where it is
	Likely    uint8                 `json:"likely"`    // in percent
	Ticket    string                `json:"ticket"`
	Shadow    int                   `json:"shadow"` // 1 where it is
	Would     string                `json:"would"`
	Waited    int64                 `json:"waited"` // microseconds
	Block     proxy.Obstacle        `json:"obstacle"`
	Note      string                `json:"note"`
}

// statuses by the name in the log.
func statusOf(name string) (proxy.Status, bool) {
	for s := proxy.Delivered; s < proxy.Statuses; s++ {
		if s.String() == name {
			return s, true
		}
	}
	return 0, false
}

// decodeLine makes a record of a line.
func decodeLine(text []byte) (*proxy.Record, error) {
	var l line
	if err := json.Unmarshal(text, &l); err != nil {
		return nil, fmt.Errorf("could not read a line of the message log: %w", err)
	}
	status, ok := statusOf(l.Status)
	if !ok {
		return nil, fmt.Errorf("could not read a line of the message log: status %q is unknown", l.Status)
	}
	id, err := strconv.ParseUint(l.Flow, 36, 64)
	if err != nil {
		return nil, fmt.Errorf("could not read a line of the message log: flow %q: %w", l.Flow, err)
	}
	r := &proxy.Record{
		ID: l.ID, Start: l.Start, Duration: time.Duration(l.Micros) * time.Microsecond, Helo: l.Helo, Identity: l.Ident, From: l.From, Size: l.Size, Status: status,
		Flow: flow.Flow{
			ID: flow.ID(id), Client: l.Client, Target: l.Target,
			User: flow.User{ID: l.User, Name: l.Name, Prefix: l.Prefix, Made: l.Made},
		},
		Verdict: filter.Verdict{Action: l.Action, Class: l.Class, Cause: l.Cause - 1},
		Reply:   l.Reply, Remote: l.Remote, Source: l.Source, Way: l.Way, Signed: l.Signed, Out: proxy.TLS{Version: l.Out.V, Cipher: l.Out.C},
		In: proxy.TLS{Version: l.In.V, Cipher: l.In.C}, Terms: l.Terms, Asks: tlspolicy.Report{Trust: l.Trust, Policy: l.Asks, Result: l.Met}, Forwarded: l.Forwarded != 0, Likely: l.Likely, Ticket: l.Ticket, Shadow: l.Shadow != 0, Would: l.Would, Note: l.Note,
		Unread: proxy.Unread{Out: l.UnreadOut, In: l.UnreadIn},
		Waited: time.Duration(l.Waited) * time.Microsecond, Obstacle: l.Block,
	}
	r.Group, _ = campaign.ParseID(l.Campaign) // 0 where there is none
	if l.Began != 0 {
		r.Flow.Start = time.UnixMicro(l.Began).UTC()
	}
	for _, t := range l.To {
		r.To = append(r.To, proxy.Recipient{Address: t.A, Code: t.C, Reply: t.R})
	}
	for _, h := range l.Hits {
		r.Verdict.Hits = append(r.Verdict.Hits, filter.Hit{
			Check: h.Check, Code: h.Code, Class: h.Class, Action: h.Action, Points: h.Points, SMTP: h.SMTP, Enhanced: h.Enhanced,
			Text: h.Text, Evidence: h.Evidence, Score: float64(h.Score) / 100, Outside: h.Outside != 0, NoLock: h.NoLock != 0,
		})
	}
	return r, nil
}
