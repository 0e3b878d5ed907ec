package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/store"
	"sluice/filter/campaign"
	"sluice/proxy/delivery"
	"sluice/proxy/smtp"
	"sluice/proxy/spool"
)

// handedOverQueue is answered by a process that has given its queue away.
var handedOverQueue = &api.Problem{Status: http.StatusServiceUnavailable, Code: "handed-over", What: "another process of sluiced has the queue", Remedy: "ask again"}

// comingQueue is answered by a process that has not got the queue yet.
var comingQueue = &api.Problem{Status: http.StatusServiceUnavailable, Code: "coming", What: "an older process of sluiced ends its tries before it hands the queue over", Remedy: "ask again in a moment"}

// reach waits for the queue and keeps it here until done is called.
func (m *mailQueue) reach(ctx context.Context) (done func(), err error) {
	if err := m.await(ctx); err != nil {
		return nil, err
	}
	m.mu.RLock()
	if m.gave {
		m.mu.RUnlock()
		return nil, handedOverQueue
	}
	return m.mu.RUnlock, nil
}

func filterOf(f *api.QueueFilter) (delivery.Filter, error) {
	out := delivery.Filter{Message: f.Message, User: f.User, Identity: f.Identity, Sender: f.Sender, Domain: f.Domain}
	if f.Campaign != "" {
		g, err := campaign.ParseID(f.Campaign)
		if err != nil || g == 0 {
			return out, &api.Problem{Status: http.StatusBadRequest, Code: "invalid", What: fmt.Sprintf("%q is not the id of a campaign", f.Campaign), Remedy: "`sluice campaign list` shows them"}
		}
		out.Campaign = campaign.ID(g)
	}
	if f.ID == "" {
		return out, nil
	}
	id, err := spool.ParseID(f.ID)
	if err != nil {
		return out, &api.Problem{Status: http.StatusBadRequest, Code: "invalid", What: err.Error()}
	}
	out.ID = id
	return out, nil
}

// Queued shows a page of the queue.
func (b backend) Queued(ctx context.Context, q api.QueueQuery) (*api.QueuePage, error) {
	m := b.d.mail
	done, err := m.reach(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	f, err := filterOf(&q.QueueFilter)
	if err != nil {
		return nil, err
	}
	if q.Held {
		f.Held = &q.Held
	}
	list, next, err := m.queue.List(f, q.From, q.Limit)
	if errors.Is(err, spool.ErrUnknown) {
		return nil, noDelivery(q.ID)
	}
	if err != nil && !errors.Is(err, spool.ErrDamaged) {
		return nil, err
	}
	fig := m.spool.Figures()
	p := &api.QueuePage{Deliveries: make([]api.QueuedMail, len(list)), Next: next, Total: fig.Deliveries, Held: fig.Held, Bytes: fig.Bytes}
	for i := range list {
		p.Deliveries[i] = queuedMail(&list[i])
	}
	if err != nil && len(p.Deliveries) > 0 {
		p.Deliveries[0].Error = err.Error()
	}
	return p, nil
}

func noDelivery(id string) *api.Problem {
	return &api.Problem{Status: http.StatusNotFound, Code: "no-such-delivery", What: "there is no delivery " + id + " in the queue, or no more", Remedy: "`sluice queue list` shows what there is, `sluice log` what became of it"}
}

func queuedMail(e *delivery.Entry) api.QueuedMail {
	m := api.QueuedMail{
		ID: e.ID.String(), Message: e.Envelope.Message, User: e.Envelope.UserName, Identity: e.Envelope.Identity, Client: e.Envelope.Client, Sender: e.Envelope.From,
		Domain: e.Domain, Campaign: e.Envelope.Campaign, Size: e.Size, Received: e.Born, Tries: e.Attempts, Trying: e.Leased, Hold: e.State.Hold, Note: e.State.Note, Recipients: []api.QueuedRecipient{},
	}
	m.Last = moment(e.State.Last)
	if !e.Held {
		m.Next = &e.Due
	}
	replies := map[int]spool.Reply{}
	for _, r := range e.State.Replies {
		replies[r.Rcpt] = r
	}
	for i, r := range e.Envelope.Rcpts {
		if e.State.Left&(1<<uint(i)) == 0 {
			continue
		}
		q := api.QueuedRecipient{Address: r.Address}
		if a, ok := replies[i]; ok {
			q.Host, q.Reply = a.Host, strings.Join(strings.Fields(fmt.Sprintf("%d %v %s", a.Code, a.Enh, a.Text)), " ")
		}
		m.Recipients = append(m.Recipients, q)
	}
	return m
}

// QueueLanes shows what waits by domain.
func (b backend) QueueLanes(ctx context.Context) ([]api.QueueLane, error) {
	done, err := b.d.mail.reach(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	all := b.d.mail.queue.Lanes()
	out := make([]api.QueueLane, len(all))
	for i, l := range all {
		out[i] = api.QueueLane{Domain: l.Domain, Site: l.Site, Waiting: l.Waiting, Active: l.Active, Misses: l.Misses, Why: l.Why}
		out[i].Next = moment(l.Next)
	}
	return out, nil
}

// ChangeQueue holds, releases, retries or deletes.
func (b backend) ChangeQueue(ctx context.Context, who string, c api.QueueChange) (*api.QueueChanged, error) {
	m := b.d.mail
	done, err := m.reach(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	f, err := filterOf(&c.Filter)
	if err != nil {
		return nil, err
	}
	out := &api.QueueChanged{Do: c.Do}
	switch c.Do {
	case "hold":
		out.Count, err = m.queue.Hold(f, c.Reason)
	case "release":
		out.Count, err = m.queue.Release(f)
	case "retry":
		out.Count, err = m.queue.Retry(f)
	default:
		out.Count, err = m.queue.Delete(f)
	}
	if errors.Is(err, spool.ErrUnknown) {
		return nil, noDelivery(c.Filter.ID)
	}
	if err != nil {
		return nil, err
	}
	b.d.log.Info("queue changed", "do", c.Do, "count", out.Count, "by", who, "reason", c.Reason)
	return out, b.d.store.Audit(store.Act{At: time.Now(), Who: who, What: "queue " + c.Do, Subject: fmt.Sprintf("%+v", c.Filter), Detail: strconv.Itoa(out.Count) + " deliveries; " + c.Reason})
}

// Submit puts a message of the operator's into the queue.
func (b backend) Submit(_ context.Context, who string, s api.Submission) (*api.Submitted, error) {
	bad := func(format string, args ...any) error {
		return &api.Problem{Status: http.StatusBadRequest, Code: "invalid", What: fmt.Sprintf(format, args...), Remedy: "correct it"}
	}
	now := time.Now()
	env := &spool.Envelope{Message: fmt.Sprintf("op%s", strconv.FormatInt(now.UnixNano(), 36)), Received: now, Verified: true}
	mail, err := smtp.ParseMail("FROM:<" + s.From + "> SMTPUTF8")
	if err != nil {
		return nil, bad("the sender %q is no address", s.From)
	}
	env.From, env.UTF8 = mail.Address, mail.NonASCII
	for _, to := range s.To {
		r, err := smtp.ParseRcpt("TO:<" + to + ">")
		if err != nil || r.Domain == "" {
			return nil, bad("the recipient %q is no address", to)
		}
		env.UTF8 = env.UTF8 || r.NonASCII
		env.Rcpts = append(env.Rcpts, spool.Rcpt{Address: r.Address})
	}
	if s.User != "" {
		u, err := b.find(s.User)
		if err != nil {
			return nil, err
		}
		env.User, env.UserName = u.ID, u.Name
	}
	body, err := smtp.BodyFromBytes([]byte(s.Text))
	if err != nil {
		return nil, bad("the message cannot be sent: %v", err)
	}
	defer body.Release()
	ids, err := b.d.mail.commit(env, nil, body)
	if err != nil {
		return nil, err
	}
	out := &api.Submitted{Message: env.Message}
	for _, id := range ids {
		out.Deliveries = append(out.Deliveries, id.String())
	}
	return out, b.d.store.Audit(store.Act{At: now, Who: who, What: "queue submit", Subject: env.Message, Detail: fmt.Sprintf("from <%s> to %v", s.From, s.To)})
}

// figures are those of status; a spool that takes nothing any more says why.
func (m *mailQueue) figures() api.Spool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	f := m.spool.Figures()
	s := api.Spool{Deliveries: f.Deliveries, Held: f.Held, Bytes: f.Bytes}
	if err := m.spool.Err(); err != nil {
		s.Error = err.Error()
	}
	return s
}
