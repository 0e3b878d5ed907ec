package main

import (
	"cmp"
	"context"
	"hash/fnv"
	"net/http"
	"slices"
	"time"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/msglog"
	"sluice/filter"
	"sluice/filter/lock"
	"sluice/filter/lock/ladder"
	"sluice/filter/policy"
	"sluice/proxy"
)

// mostReplayed bounds the records of a replay, which are in memory in a short form.
const mostReplayed = 2_000_000

// replayed is what counts of a record.
type replayed struct {
	at       time.Duration
	user     uint32
	identity uint32 // hash; 0: none
	event    ladder.Event
}

// replay is a log on its way to senders.
type replay struct {
	all   []replayed
	users map[uint32]string
	names map[uint32]string // of identities
	first time.Time
}

// Replay runs proposed settings over the log and tells whom they would have locked (LCK10). Locks that there were do not
// count: what was sent before them is judged anew.
func (b backend) Replay(ctx context.Context, q api.ReplayRequest) (*api.Replay, error) {
	var o policy.Overrides
	for key, text := range q.Settings {
		if err := o.Set(key, text); err != nil {
			return nil, &api.Problem{Status: http.StatusBadRequest, Code: "invalid", What: err.Error(), Remedy: "`sluice settings` lists the names; those of locks begin with lock_"}
		}
	}
	select {
	case b.d.reporting <- struct{}{}:
		defer func() { <-b.d.reporting }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	r := &replay{users: map[uint32]string{}, names: map[uint32]string{}, first: time.Now()}
	if err := b.d.messages.Each(ctx, msglog.Query{From: q.Since}, r.add); err != nil {
		return nil, err
	}
	return r.run(q.Since, func(user uint32) policy.Lock {
		s := o.Apply(*b.d.policy.Settings(user))
		return s.Lock
	}), nil
}

// add takes a record, newest first. What was not judged as a whole message counts for nothing, as in Locks; what locks said of it then
// does not count.
func (r *replay) add(rec *proxy.Record) bool {
	if rec.Flow.User.ID == 0 || rec.Status == proxy.NoMessage || rec.Status == proxy.Observed || rec.Size == 0 {
		return true
	}
	v := filter.Judge(slices.DeleteFunc(slices.Clone(rec.Verdict.Hits), func(h filter.Hit) bool { return h.Check == lock.CheckName }))
	event, said, counts := lock.EventOf(&v, rec.Forwarded, rec.Likely)
	if !counts {
		return true
	}
	if said != nil {
		event.Print = likePrint(rec)
		if event.Firm { // each message counts, and two tries to send one are one
			event.Print ^= toPrint(rec)
		}
	}
	e := replayed{at: time.Duration(rec.Start.UnixNano()), user: rec.Flow.User.ID, event: event}
	r.users[e.user], r.first = rec.Flow.User.Name, rec.Start
	if rec.Identity != "" {
		h := fnv.New32a()
		_, _ = h.Write([]byte(rec.Identity))
		e.identity = max(1, h.Sum32())
		r.names[e.identity] = rec.Identity
	}
	r.all = append(r.all, e)
	return len(r.all) < mostReplayed
}

// toPrint tells envelopes apart.
func toPrint(rec *proxy.Record) uint64 {
	h := fnv.New64a()
	for i := range rec.To {
		_, _ = h.Write([]byte(rec.To[i].Address))
		_, _ = h.Write([]byte{0})
	}
	return h.Sum64()
}

// run judges everybody by the proposed settings, as if locks were automatic for all. Who was locked is not judged again until the lock
// would have ended.
func (r *replay) run(since time.Time, settings func(user uint32) policy.Lock) *api.Replay {
	slices.Reverse(r.all) // what stands at one moment in its order
	slices.SortStableFunc(r.all, func(a, b replayed) int { return cmp.Compare(a.at, b.at) })
	past, rules := lock.NewPast(), map[uint32]*policy.Lock{}
	found := map[lock.Scope]*api.ReplayLock{}
	for _, e := range r.all {
		s, ok := rules[e.user]
		if !ok {
			of := settings(e.user)
			of.Automatic, of.Never = true, false
			s, rules[e.user] = &of, &of
		}
		if whom, why := past.Judged(e.at, lock.Scope{User: e.user, Identity: r.names[e.identity]}, e.event, s); why != nil {
			r.note(found, whom, e.at, why)
		}
	}
	out := &api.Replay{Since: since, Whole: len(r.all) < mostReplayed, Messages: len(r.all), Users: len(r.users), Locks: []api.ReplayLock{}}
	if !out.Whole {
		out.Since = r.first
	}
	for _, l := range found {
		out.Locks = append(out.Locks, *l)
	}
	slices.SortFunc(out.Locks, func(a, b api.ReplayLock) int {
		return cmp.Or(a.First.Compare(b.First), cmp.Compare(a.User, b.User), cmp.Compare(a.Identity, b.Identity))
	})
	return out
}

func (r *replay) note(found map[lock.Scope]*api.ReplayLock, whom lock.Scope, at time.Duration, cause *ladder.Cause) {
	l := found[whom]
	if l == nil {
		l = &api.ReplayLock{User: r.users[whom.User], Identity: whom.Identity, First: time.Unix(0, int64(at)).UTC(), Rule: cause.Rule, Reason: cause.String()}
		found[whom] = l
	}
	l.Count++
}
