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
	"sluice/filter/lock"
	"sluice/filter/lock/ladder"
	"sluice/filter/policy"
	"sluice/filter/reputation/trap"
	"sluice/proxy"
)

// mostReplayed bounds the records of a replay, which are in memory in a short form.
const mostReplayed = 2_000_000

// replayed is what counts of a record.
type replayed struct {
	at       time.Duration
	print    uint64
	user     uint32
	identity uint32 // hash; 0: none
	kind     ladder.Kind
	score    uint8 // of a doubtful one, in percent
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

// add takes a record, newest first.
func (r *replay) add(rec *proxy.Record) bool {
	if rec.Flow.User.ID == 0 || rec.Status == proxy.NoMessage || rec.Status == proxy.Observed {
		return true
	}
	e := replayed{at: time.Duration(rec.Start.UnixNano()), user: rec.Flow.User.ID, kind: ladder.Good}
	r.users[e.user], r.first = rec.Flow.User.Name, rec.Start
	if rec.Identity != "" {
		h := fnv.New32a()
		_, _ = h.Write([]byte(rec.Identity))
		e.identity = max(1, h.Sum32())
		r.names[e.identity] = rec.Identity
	}
	d, doubt := rec.Verdict.Decisive(), rec.Verdict.Doubt()
	switch {
	case d != nil && d.Class.Bad():
		if e.kind, e.print = lock.KindOf(d.Class), likePrint(rec); d.Code == trap.Code {
			e.kind = ladder.Trap
		}
	case doubt != nil && (d == nil || d == doubt): // else something else kept it back
		e.kind, e.print, e.score = ladder.Doubtful, likePrint(rec), uint8(min(100*doubt.Score+0.5, 100))
	}
	r.all = append(r.all, e)
	return len(r.all) < mostReplayed
}

// replayedBy is one whom the replay judges.
type replayedBy struct{ user, identity uint32 }

// run judges everybody by the proposed settings. Who was locked is not judged again until the lock would have ended.
func (r *replay) run(since time.Time, settings func(user uint32) policy.Lock) *api.Replay {
	slices.SortStableFunc(r.all, func(a, b replayed) int { return cmp.Compare(a.at, b.at) })
	senders, until, rules := map[replayedBy]*ladder.Sender{}, map[replayedBy]time.Duration{}, map[uint32]policy.Lock{}
	found := map[replayedBy]*api.ReplayLock{}
	for _, e := range r.all {
		s, ok := rules[e.user]
		if !ok {
			s = settings(e.user)
			rules[e.user] = s
		}
		for _, whom := range []replayedBy{{e.user, e.identity}, {e.user, 0}} {
			if e.at < until[whom] || whom.identity == 0 && e.at < until[replayedBy{e.user, e.identity}] {
				continue
			}
			u := senders[whom]
			if u == nil {
				u = &ladder.Sender{}
				senders[whom] = u
			}
			ev := ladder.Event{Kind: e.kind, Print: e.print, Score: e.score}
			if whom.identity == 0 {
				if ev.Origin = e.identity; e.identity != 0 && e.kind == ladder.Doubtful { // that he alone answers for
					ev = ladder.Event{Kind: ladder.Good}
				}
			}
			u.Tell(e.at, ev, &s)
			if rung, cause := u.Judge(e.at, &s); rung == ladder.Locked {
				until[whom] = e.at + s.Time
				u.Release(until[whom], &s)
				r.note(found, whom, e.at, &cause)
			}
			if e.identity == 0 {
				break
			}
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

func (r *replay) note(found map[replayedBy]*api.ReplayLock, whom replayedBy, at time.Duration, cause *ladder.Cause) {
	l := found[whom]
	if l == nil {
		l = &api.ReplayLock{User: r.users[whom.user], Identity: r.names[whom.identity], First: time.Unix(0, int64(at)).UTC(), Rule: cause.Rule, Reason: cause.String()}
		found[whom] = l
	}
	l.Count++
}
