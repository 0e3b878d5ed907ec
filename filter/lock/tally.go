package lock

import (
	"fmt"
	"hash/fnv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sluice/filter/lock/ladder"
	"sluice/filter/policy"
	"sluice/intercept/flow"
)

const (
	shards = 64
	// keepEvidence bounds the messages that a lock shows.
	keepEvidence = 10
	sweepEvery   = 10 * time.Minute
)

// tallies hold what is known of senders: of users, and of the identities inside of them.
type tallies struct {
	start  time.Time
	epoch  time.Duration // from 1970 to start: marks mean the same after a restart
	n      atomic.Int64  // users held
	dirty  atomic.Bool   // something speaks against somebody since the last Append
	shards [shards]tallyShard
}

type tallyShard struct {
	mu    sync.Mutex
	known senders
	swept time.Duration

	suspects suspects
}

// tally is what one user or identity did lately.
type tally struct {
	ladder.Sender
	evidence []Evidence
	quiet    time.Duration // no alarm before this; one a window is enough
}

// finding is a lock rule that was met.
type finding struct {
	whom     Scope
	check    string
	code     string
	cause    ladder.Cause
	reason   string
	evidence []Evidence
	alarm    bool // nobody was alarmed about this sender within the window
	only     bool // it alarms and locks nobody
}

// lock is what the finding asks for.
func (f *finding) lock(u flow.User) Lock {
	return Lock{User: u, Identity: f.whom.Identity, Check: f.check, Rule: f.cause.Rule, Code: f.code, Reason: f.reason, Since: wall(), Evidence: f.evidence}
}

// standing is what follows from an event.
type standing struct {
	finding *finding
	rung    ladder.Rung
	slow    bool
	more    bool // it looks like more of the bad mail that was found lately
}

func newTallies() *tallies {
	t := &tallies{start: time.Now()}
	t.epoch = time.Duration(t.start.UnixNano())
	for i := range t.shards {
		t.shards[i].known = newSenders()
	}
	return t
}

// now is the time since 1970 by the clock of the start.
func (t *tallies) now() time.Duration { return t.epoch + time.Since(t.start) }

func (t *tallies) shard(user uint32) *tallyShard { return &t.shards[user%shards] }

// tell counts an event for an identity, where there is one, and for its user, and returns where they stand. The smaller
// of the two is found first (LCK6).
func (t *tallies) tell(whom Scope, e ladder.Event, ev Evidence, s *policy.Lock) standing {
	return t.tellAt(t.now(), whom, e, ev, s)
}

// tellAt is tell at a moment; those of one sender come in order.
func (t *tallies) tellAt(now time.Duration, whom Scope, e ladder.Event, ev Evidence, s *policy.Lock) standing {
	sh := t.shard(whom.User)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	user := t.sender(sh, Scope{User: whom.User}, now, s)
	own := user
	if whom.Identity != "" {
		own = t.sender(sh, whom, now, s)
	}
	if e.Kind == ladder.Good || e.Kind == ladder.Doubtful {
		st := t.tellGood(own, user, e, now, s)
		if e.Kind == ladder.Doubtful && !st.stops(s) {
			st.finding = t.judge(own, whom, e, ev, now, s)
		}
		return st
	}
	f := t.tellOne(own, whom, e, ev, now, s)
	if own != user {
		e.Origin = originOf(whom.Identity)
		if of := t.tellOne(user, Scope{User: whom.User}, e, ev, now, s); f == nil {
			f = of
		}
	}
	return standing{finding: f}
}

// stops tells whether a good message is not to go on now.
func (st *standing) stops(s *policy.Lock) bool {
	return s.Automatic && !s.Never && (st.slow || st.more || st.rung >= ladder.Held)
}

// tellGood counts a message that goes on, unless its sender is not to send now; what is doubtful about one with an identity
// its identity alone answers for. The shard is locked.
func (t *tallies) tellGood(own, user *tally, e ladder.Event, now time.Duration, s *policy.Lock) (st standing) {
	senders := [...]*tally{own, user}
	n := 2
	if own == user {
		n = 1
	}
	for _, u := range senders[:n] {
		if u.Marked(now) {
			t.dirty.Store(true)
			rung, _ := u.Judge(now, s)
			score, _ := u.Score(now, s)
			rung = max(rung, ladder.ByScore(score, s))
			st.rung, st.slow = max(st.rung, rung), st.slow || u.Slow(now, rung, s)
			st.more = st.more || u.More(now, e.Likely, s)
		}
	}
	if st.stops(s) {
		return st
	}
	own.Tell(now, e, s)
	if own != user {
		user.Tell(now, ladder.Event{Kind: ladder.Good}, s)
	}
	return st
}

// originOf tells identities apart inside of their user, over restarts too.
func originOf(identity string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(identity))
	return max(1, h.Sum32())
}

// tellOne counts an event for one sender, and returns the rule that it meets. The shard is locked.
func (t *tallies) tellOne(u *tally, whom Scope, e ladder.Event, ev Evidence, now time.Duration, s *policy.Lock) *finding {
	u.Tell(now, e, s)
	if e.Kind == ladder.Known {
		return nil
	}
	return t.judge(u, whom, e, ev, now, s)
}

// judge returns the rule that an event which was counted has met. The shard is locked.
func (t *tallies) judge(u *tally, whom Scope, e ladder.Event, ev Evidence, now time.Duration, s *policy.Lock) *finding {
	if ev.Code != "" {
		u.remember(ev, e)
	}
	t.suspect(whom.User)
	rung, cause := u.Judge(now, s)
	if rung != ladder.Locked {
		return u.disreputable(whom, ev, now, s)
	}
	f := &finding{whom: whom, check: ev.Check, code: ev.Code, cause: cause, reason: cause.String(), evidence: append([]Evidence(nil), u.evidence...)}
	if cause.Rule == "virus" {
		f.reason += " (" + ev.Code + ")"
	}
	if f.alarm = now >= u.quiet; f.alarm {
		u.quiet = now + s.Window
	}
	return f
}

// disreputable returns what there is to tell somebody, once a window, of a sender whose reputation is that bad.
func (u *tally) disreputable(whom Scope, ev Evidence, now time.Duration, s *policy.Lock) *finding {
	score, _ := u.Score(now, s)
	if s.ScoreAlarm == 0 || score < s.ScoreAlarm || now < u.quiet {
		return nil
	}
	u.quiet = now + s.Window
	return &finding{whom: whom, check: ev.Check, code: ev.Code, cause: ladder.Cause{Rule: "reputation"}, reason: fmt.Sprintf("has a reputation of %d of 100", score),
		evidence: append([]Evidence(nil), u.evidence...), alarm: true, only: true}
}

// remember keeps a message as evidence, once for all copies of a text.
func (u *tally) remember(ev Evidence, e ladder.Event) {
	if e.Print != 0 && !e.Firm {
		for i := range u.evidence {
			if o := &u.evidence[i]; o.Print != 0 && ladder.Alike(o.Print, e.Print) {
				return
			}
		}
		ev.Print = e.Print
	}
	u.keep(ev)
}

// keep adds a piece of evidence, in the place of the oldest where there are too many.
func (u *tally) keep(ev Evidence) {
	if len(u.evidence) >= keepEvidence {
		u.evidence = append(u.evidence[:0], u.evidence[1:]...)
	}
	u.evidence = append(u.evidence, ev)
}

// sender returns the tally of a sender, and now and then forgets those who did nothing lately. The shard is locked.
func (t *tallies) sender(sh *tallyShard, whom Scope, now time.Duration, s *policy.Lock) *tally {
	if now-sh.swept > sweepEvery {
		t.sweep(sh, now, s)
	}
	u := sh.known.find(whom)
	if u == nil {
		u = sh.known.add(whom)
		if whom.Identity == "" {
			t.n.Add(1)
		}
	}
	return u
}

func (t *tallies) sweep(sh *tallyShard, now time.Duration, s *policy.Lock) {
	sh.swept = now
	var marked [suspectWords]uint64
	for whom, u := range sh.known.all {
		switch {
		case u.quiet <= now && u.Quiet(now, s):
			t.drop(sh, whom)
		case !u.Marked(now):
			u.evidence = nil
		default:
			i, bit := suspectAt(whom.User)
			marked[i] |= bit
		}
	}
	sh.suspects.replace(&marked)
}

func (t *tallies) drop(sh *tallyShard, whom Scope) {
	if sh.known.drop(whom) && whom.Identity == "" {
		t.n.Add(-1)
	}
}

// forget lets a sender begin anew.
func (t *tallies) forget(whom Scope) {
	sh := t.shard(whom.User)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	t.drop(sh, whom)
	t.dirty.Store(true)
}

// release begins a sender's probation.
func (t *tallies) release(now time.Duration, whom Scope, s *policy.Lock) {
	sh := t.shard(whom.User)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	u := t.sender(sh, whom, now, s)
	u.Release(now, s)
	u.evidence = nil
	t.suspect(whom.User)
}

// suspect notes that something may speak against a user. The shard is locked.
func (t *tallies) suspect(user uint32) {
	t.dirty.Store(true)
	t.shard(user).suspects.put(user)
}

// marked tells whether something speaks against a user.
func (t *tallies) marked(user uint32) bool {
	sh := t.shard(user)
	if !sh.suspects.has(user) {
		return false
	}
	now := t.now()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	u := sh.known.find(Scope{User: user})
	return u != nil && u.Marked(now)
}

// of returns where a sender stands now.
func (t *tallies) of(whom Scope, s *policy.Lock) Standing {
	sh, now := t.shard(whom.User), t.now()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	u := sh.known.find(whom)
	if u == nil {
		return Standing{}
	}
	rung, cause := u.Judge(now, s)
	st := Standing{Probation: u.OnProbation(now)}
	st.Score, st.Factors = u.Score(now, s)
	st.Rung = max(rung, ladder.ByScore(st.Score, s))
	if cause.Bad > 0 {
		st.Cause = cause.String()
	}
	return st
}

// short bounds what a lock keeps of a hit's evidence.
func short(s string) string {
	const most = 200
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return strings.Clone(s)
}
