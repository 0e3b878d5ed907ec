package lock

import (
	"fmt"
	"hash/maphash"
	"strings"
	"sync"
	"time"

	"sluice/filter"
	"sluice/filter/limit"
	"sluice/filter/message"
	"sluice/filter/policy"
)

const (
	shards = 64
	// keepBad bounds the bad messages of a user that are told apart within one window. It is far above any count that
	// locks, so only a user whom nothing locks reaches it; then the oldest are forgotten.
	keepBad = policy.MaxSpamCount + 24
	// keepEvidence bounds the messages that a lock shows.
	keepEvidence = 10
	sweepEvery   = 10 * time.Minute
)

// tallies count the verdicts of users in sliding windows.
type tallies struct {
	start  time.Time
	seed   maphash.Seed
	shards [shards]tallyShard
}

type tallyShard struct {
	mu    sync.Mutex
	users map[uint32]*tally
	swept time.Duration
}

// tally is what one user sent lately.
type tally struct {
	good     limit.Window
	bad      []badMail // oldest first; messages with the same body stand once
	evidence []Evidence
	quiet    time.Duration // no alarm before this; one a window is enough
	window   time.Duration
}

type badMail struct {
	at   time.Duration
	body uint64
}

// finding is a lock rule that was met.
type finding struct {
	code, reason string
	evidence     []Evidence
	alarm        bool // nobody was alarmed about this user within the window
}

func newTallies() *tallies {
	t := &tallies{start: time.Now(), seed: maphash.MakeSeed()}
	for i := range t.shards {
		t.shards[i].users = map[uint32]*tally{}
	}
	return t
}

// judged counts one verdict and returns the rule that it meets, or nil.
func (t *tallies) judged(m *message.Message, v *filter.Verdict, s *policy.Lock) *finding {
	now := time.Since(t.start)
	d := v.Decisive()
	bad := d != nil && d.Class.Bad()
	var body uint64
	if bad {
		body = t.bodyOf(m, v)
	}
	sh := &t.shards[m.Flow.User.ID%shards]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	u := sh.user(m.Flow.User.ID, now)
	u.window = s.Window
	if !bad {
		u.good.Add(now, s.Window, 1)
		return nil
	}
	u.addBad(now, body, m, d)
	reason := u.rule(now, d, s)
	if reason == "" {
		return nil
	}
	f := &finding{code: d.Code, reason: reason, evidence: append([]Evidence(nil), u.evidence...)}
	if f.alarm = now >= u.quiet; f.alarm {
		u.quiet = now + s.Window
	}
	return f
}

// forget lets a user begin anew.
func (t *tallies) forget(user uint32) {
	sh := &t.shards[user%shards]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	delete(sh.users, user)
}

// bodyOf tells messages apart: two tries to send one have the same body, although their headers (Message-ID, Date) may
// differ. Copies of one message are the same too, unless more than their words speaks against them.
func (t *tallies) bodyOf(m *message.Message, v *filter.Verdict) uint64 {
	group, each := v.Copies()
	if group != 0 && !each {
		return group
	}
	body := message.Body(m.Data)
	if body == nil {
		body = m.Data
	}
	if !each {
		return maphash.Bytes(t.seed, body)
	}
	var h maphash.Hash
	h.SetSeed(t.seed)
	_, _ = h.Write(body)
	for _, to := range m.Envelope.To { // the same words to somebody else are another message here
		_, _ = h.WriteString(string(to))
		_ = h.WriteByte(0)
	}
	return h.Sum64()
}

// rule returns why the user is to be locked, or "".
func (u *tally) rule(now time.Duration, d *filter.Hit, s *policy.Lock) string {
	if d.Class == filter.Virus {
		return fmt.Sprintf("sent a virus (%s)", d.Code)
	}
	bad := len(u.bad)
	all := bad + u.good.Sum(now, s.Window)
	if !Meets(bad, all, s) {
		return ""
	}
	return fmt.Sprintf("sent %d spam messages in %s, %d %% of all", bad, minutes(s.Window), 100*bad/all)
}

// Meets reports whether so many bad messages among all of one window lock a user. A virus locks by itself.
func Meets(bad, all int, s *policy.Lock) bool {
	// The tiny allowance keeps 1 of 5 at a share of 20 % although 0.2 has no exact binary form.
	return bad >= s.SpamCount && float64(bad) >= s.SpamShare*float64(all)-1e-9
}

// addBad counts a bad message unless one with the same body counts already. The window is exact here.
func (u *tally) addBad(now time.Duration, body uint64, m *message.Message, d *filter.Hit) {
	gone := 0
	for gone < len(u.bad) && (u.bad[gone].at <= now-u.window || len(u.bad)-gone >= keepBad) {
		gone++
	}
	u.bad = append(u.bad[:0], u.bad[gone:]...)
	for i := range u.bad {
		if u.bad[i].body == body {
			return
		}
	}
	u.bad = append(u.bad, badMail{now, body})
	if len(u.evidence) >= keepEvidence {
		u.evidence = append(u.evidence[:0], u.evidence[1:]...)
	}
	u.evidence = append(u.evidence, Evidence{
		Message: strings.Clone(m.ID), At: time.Now().Round(0), From: strings.Clone(string(m.Envelope.From)),
		Check: d.Check, Code: d.Code, Class: d.Class.String(), Detail: short(d.Evidence),
	})
	// What has left the window is evidence no more.
	if extra := len(u.evidence) - len(u.bad); extra > 0 {
		u.evidence = append(u.evidence[:0], u.evidence[extra:]...)
	}
}

// user returns the tally of a user, and now and then forgets those who sent nothing lately. The shard is locked.
func (sh *tallyShard) user(id uint32, now time.Duration) *tally {
	if now-sh.swept > sweepEvery {
		sh.swept = now
		for other, u := range sh.users {
			if u.idle(now) {
				delete(sh.users, other)
			}
		}
	}
	u, ok := sh.users[id]
	if !ok {
		u = &tally{}
		sh.users[id] = u
	}
	return u
}

func (u *tally) idle(now time.Duration) bool {
	last := len(u.bad) - 1
	return u.good.Sum(now, u.window) == 0 && (last < 0 || u.bad[last].at <= now-u.window) && u.quiet <= now
}

func minutes(d time.Duration) string {
	if d%time.Minute == 0 {
		return fmt.Sprintf("%d minutes", d/time.Minute)
	}
	return d.String()
}

// short bounds what a lock keeps of a hit's evidence.
func short(s string) string {
	const most = 200
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return strings.Clone(s)
}
