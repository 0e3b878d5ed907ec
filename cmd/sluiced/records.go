package main

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/msglog"
	"sluice/filter"
	"sluice/filter/campaign"
	"sluice/proxy"
)

// logOf is what the API sees of the message log.
type logOf struct{ d *daemon }

func (l logOf) Find(ctx context.Context, q api.Query) ([]*api.Message, error) {
	mq, err := l.query(q)
	if err != nil {
		return nil, err
	}
	if err := l.d.messages.Flush(); err != nil {
		return nil, err
	}
	rs, err := l.d.messages.Find(ctx, mq)
	ms, held := make([]*api.Message, len(rs)), history{store: l.d.store}
	for i, r := range rs {
		ms[i] = message(r)
		holder, e := held.holder(r)
		if e != nil {
			return nil, e
		}
		if holder != r.Flow.User.Name {
			ms[i].Holder = holder
		}
	}
	return ms, err
}

func (l logOf) Tail(ctx context.Context, q api.Query, take func(*api.Message) error) error {
	mq, err := l.query(q)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	err = l.d.messages.Tail(ctx, mq, func(r *proxy.Record) {
		if err := take(message(r)); err != nil {
			cancel(err) // the reader has left
		}
	})
	if cause := context.Cause(ctx); cause != nil && ctx.Err() != nil {
		return cause
	}
	return err
}

func (l logOf) query(q api.Query) (msglog.Query, error) {
	mq := msglog.Query{From: q.Since, Until: q.Until, ID: q.ID, Ticket: q.Ticket, Identity: q.Identity, Sender: q.From, Recipient: q.To, Client: q.Client, Target: q.Target, Code: q.Code, Limit: q.Limit}
	if q.Campaign != "" {
		var err error
		if mq.Group, err = campaign.ParseID(q.Campaign); err != nil || mq.Group == 0 {
			return mq, &api.Problem{Status: http.StatusBadRequest, Code: "invalid", What: fmt.Sprintf("%q is not the id of a campaign", q.Campaign), Remedy: "`sluice campaign list` shows them"}
		}
	}
	if q.User != "" {
		m, err := backend(l).find(q.User)
		if err != nil {
			return mq, err
		}
		mq.User = m.ID
	}
	var all []api.Where
	for _, text := range q.Where {
		w, err := api.ParseWhere(text)
		if err != nil {
			return mq, err
		}
		all = append(all, w)
	}
	if all != nil {
		mq.Match = func(r *proxy.Record) bool {
			m := message(r)
			return !slices.ContainsFunc(all, func(w api.Where) bool { return !w.Match(m) })
		}
	}
	for s := proxy.Delivered; s < proxy.Statuses; s++ {
		if s.String() == q.Status {
			mq.Status = &s
		}
	}
	return mq, nil
}

// message shows a record as the API does.
func message(r *proxy.Record) *api.Message {
	m := &api.Message{
		ID: r.ID, Time: r.Start, DurationMS: r.Duration.Milliseconds(), User: r.Flow.User.Name, Client: r.Flow.Client, Target: r.Flow.Target,
		Helo: r.Helo, Identity: r.Identity, From: r.From, Size: r.Size, Status: r.Status.String(), Class: r.Verdict.Class.String(), Reply: r.Reply, Remote: r.Remote,
		Source: address(r.Source), Way: r.Way, Signed: r.Signed, TLSIn: r.In.Version, TLSOut: r.Out.Version, TLSTerms: r.Terms, TLSTrust: r.Asks.Trust, TLSPolicy: r.Asks.Policy, TLSResult: r.Asks.Result,
		Campaign: campaignOf(r.Group), Ticket: r.Ticket, Forwarded: r.Forwarded, Shadow: r.Shadow, Would: r.Would, Note: r.Note,
		UnreadOut: r.Unread.Out, UnreadIn: r.Unread.In, WaitedMS: r.Waited.Milliseconds(), Obstacle: string(r.Obstacle),
	}
	if r.Remote != "" && r.Remote[0] > '3' {
		m.Meaning = meaningOf(r.Remote).String()
	}
	for _, t := range r.To {
		m.To = append(m.To, api.Recipient{Address: t.Address, Code: t.Code, Reply: t.Reply})
	}
	for _, h := range r.Verdict.Hits {
		m.Hits = append(m.Hits, api.Hit{Check: h.Check, Code: h.Code, Class: h.Class.String(), Action: h.Action.String(), Points: h.Points, Text: h.Text, Evidence: h.Evidence})
	}
	if r.Status == proxy.Observed && r.Verdict.Class == filter.Clean && r.Size == 0 { // not wholly read: it must not look clean
		m.Class = "unjudged"
	}
	if r.In.Version == proxy.Opaque {
		m.Class = proxy.Opaque
	}
	if h := r.Verdict.Decisive(); h != nil {
		m.Code = h.Code
	}
	return m
}

// campaignOf names copies of one message; "" where nothing is known of any.
func campaignOf(group uint64) string {
	if group == 0 {
		return ""
	}
	return campaign.ID(group)
}

func address(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
