package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"sluice/filter"
	"sluice/filter/lock"
	mail "sluice/filter/message"
	"sluice/filter/policy"
	"sluice/intercept/flow"
	"sluice/proxy"
)

// TestReplay: a proposed rule over a log tells whom it would have locked, and whom not (LCK10).
func TestReplay(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	make := func() *replay {
		r := &replay{users: map[uint32]string{}, names: map[uint32]string{}}
		put := func(user uint32, identity string, minute, size int, c filter.Class) {
			rec := &proxy.Record{Flow: flow.Flow{User: flow.User{ID: user, Name: fmt.Sprint("u", user)}}, Identity: identity, From: "a@x.example", Size: int64(size),
				Start: noon.Add(time.Duration(minute) * time.Minute), Verdict: filter.Verdict{Cause: -1}}
			if c != filter.Clean {
				rec.Verdict = filter.Judge([]filter.Hit{{Check: "content", Code: "SPAM", Class: c, Action: filter.Reject}})
			}
			r.add(rec)
		}
		for i := 9; i >= 0; i-- { // newest first, as the log gives them
			put(1, "shop", i, 1000*(i+1), filter.Spam)
			put(1, "office", i, 1000*(i+1), filter.Clean)
			put(2, "", i, 5000, filter.Spam) // copies of one
			put(3, "", 30*i, 1000*(i+1), filter.Spam)
		}
		return r
	}
	usual := func(uint32) policy.Lock { return policy.Default().Lock }
	out := make().run(noon, usual)
	if len(out.Locks) != 1 || out.Locks[0].User != "u1" || out.Locks[0].Identity != "shop" || out.Locks[0].Rule != "spam" || !out.Locks[0].First.Equal(noon.Add(4*time.Minute)) || out.Users != 3 || !out.Whole {
		t.Errorf("by the usual settings: %+v", out)
	}
	out = make().run(noon, func(uint32) policy.Lock {
		s := policy.Default().Lock
		s.DayCount = 4
		return s
	})
	if len(out.Locks) != 2 || out.Locks[1].User != "u3" || out.Locks[1].Rule != "spam-day" {
		t.Errorf("with a stricter day: %+v", out.Locks)
	}
}

// TestReplayKnowsDoubts: what went on although it looked bad counts by its score, different texts each, an identity's for him alone; what
// only mentions a score counts for nothing (LCK1), and what a lock's rule held back then is judged anew.
func TestReplayKnowsDoubts(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	made := func() *replay {
		r := &replay{users: map[uint32]string{}, names: map[uint32]string{}}
		put := func(user uint32, identity string, minute, size int, hits ...filter.Hit) {
			r.add(&proxy.Record{Flow: flow.Flow{User: flow.User{ID: user, Name: fmt.Sprint("u", user)}}, Identity: identity, From: "a@x.example", Size: int64(size),
				Start: noon.Add(time.Duration(minute) * time.Minute), Verdict: filter.Judge(hits)})
		}
		doubt := filter.Hit{Code: "UNSURE", Points: 0.9, Score: 0.9}
		said := doubt
		said.Score = 0 // the filter may not act
		delayed := doubt
		delayed.Action = filter.Delay
		for i := 44; i >= 0; i-- {
			put(1, "", i, 1000*(i+1), doubt)
			put(2, "shop", i, 1000*(i+1), delayed)
			put(3, "", i, 5000, doubt) // copies of one
			put(4, "", i, 1000*(i+1), said)
			put(5, "", i, 1000*(i+1), doubt, filter.Hit{Check: "rate", Code: "RATE", Class: filter.Policy, Action: filter.Defer})
			put(6, "", i, 1000*(i+1), doubt, filter.Hit{Check: lock.CheckName, Code: lock.CodeHeld, Class: filter.Policy, Action: filter.Defer})
		}
		return r
	}
	usual := func(uint32) policy.Lock { return policy.Default().Lock }
	out := made().run(noon, usual)
	whom := ""
	for _, l := range out.Locks {
		whom += l.User + "/" + l.Identity + " " + l.Rule + "\n"
	}
	if whom != "u1/ score-hour\nu2/shop score-hour\nu6/ score-hour\n" {
		t.Fatalf("by the usual settings: %+v", out.Locks)
	}
	// Five of ten minutes go on, then what follows waits, and counts when it goes on: the twelfth brings the hour above 10.
	if at := out.Locks[0].First.Sub(noon); at < 20*time.Minute || at > 30*time.Minute {
		t.Errorf("after %v, want between 20 and 30 minutes", at)
	}
	if out = made().run(noon, func(uint32) policy.Lock {
		s := policy.Default().Lock
		s.AverageCount = 0
		return s
	}); len(out.Locks) != 0 {
		t.Errorf("without the rule: %+v", out.Locks)
	}
}

// TestReplaySaysWhatHappened: over half a day of four users' mail of all kinds, the replay of the settings in force finds, in the log that
// this left, the locks that there were: what was held back meanwhile, or looked bad and waited, counts as it did then (LCK10).
func TestReplaySaysWhatHappened(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3) {
		var live, waited, records int
		synctest.Test(t, func(t *testing.T) { live, waited, records = replayHalfDay(t, seed) })
		if live < 10 || waited < 50 {
			t.Errorf("seed %d: %d locks and %d messages that waited of %d: that shows nothing", seed, live, waited, records)
		}
	}
}

// replayHalfDay has mail judged, and replays its log.
func replayHalfDay(t *testing.T, seed uint64) (locked, waited, records int) {
	rnd := rand.New(rand.NewPCG(seed, 10))
	usual := policy.Default()
	usual.Lock.Automatic, usual.Lock.MaxUnlocks = true, 1000 // a replay ends them all
	was := map[string]string{}
	keeper, err := lock.New(lock.Deps{Settings: policy.NewTable(usual), Blocker: nowhere{}, Store: nowhere{}, Events: func(e lock.Event) {
		if e.Kind != lock.Locked {
			return
		}
		locked++
		if name := e.Lock.User.Name + "/" + e.Lock.Identity; was[name] == "" {
			was[name] = fmt.Sprint(e.Lock.Rule, " at ", e.Lock.Since)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = keeper.Close() }()
	began, log := time.Now(), []*proxy.Record(nil)
	for i := 0; time.Since(began) < 12*time.Hour; i++ {
		time.Sleep(time.Duration(rnd.Int64N(int64(12 * time.Second))))
		user := flow.User{ID: 1 + rnd.Uint32N(4)}
		user.Name = fmt.Sprint("u", user.ID)
		msg := &mail.Message{ID: fmt.Sprint(i), Flow: &flow.Flow{User: user}, Identity: []string{"", "shop", "office"}[rnd.IntN(3)], Forwarded: rnd.IntN(20) == 0,
			Data: fmt.Appendf(nil, "Subject: %d\r\n\r\ntext %d\r\n", i, i)}
		msg.Envelope.To = []mail.Address{"r@sink.example"}
		wicked := time.Since(began)/time.Hour%4 == time.Duration(user.ID-1) // each has his hours
		v := filter.Judge(opinions(rnd, msg, wicked))
		keeper.Judged(msg, &v)
		synctest.Wait()
		if h := v.Decisive(); h != nil && h.Check == lock.CheckName {
			waited++
		}
		log = append(log, &proxy.Record{Flow: *msg.Flow, Identity: msg.Identity, Forwarded: msg.Forwarded, Likely: msg.Found.Likely, Group: msg.Found.Group,
			From: "a@x.example", To: []proxy.Recipient{{Address: "r@sink.example"}}, Size: int64(1024 * (i + 1)), Start: time.Now(), Verdict: v})
	}
	r := &replay{users: map[uint32]string{}, names: map[uint32]string{}}
	for _, rec := range slices.Backward(log) {
		r.add(rec)
	}
	out, n := r.run(began, func(uint32) policy.Lock { return usual.Lock }), 0
	for _, l := range out.Locks {
		n += l.Count
		if name, got := l.User+"/"+l.Identity, fmt.Sprint(l.Rule, " at ", l.First); was[name] != got {
			t.Errorf("seed %d: %s was locked first by %q, the replay says %q", seed, name, was[name], got)
		}
	}
	if n != locked || len(out.Locks) != len(was) {
		t.Errorf("seed %d: %d locks of %d, the replay says %d of %d", seed, locked, len(was), n, len(out.Locks))
	}
	return locked, waited, len(log)
}

// opinions are what checks may say of a message; they leave with it what they found.
func opinions(rnd *rand.Rand, m *mail.Message, wicked bool) []filter.Hit {
	bad, odds := rnd.IntN(3) == 0, rnd.Float64()
	if !wicked {
		bad, odds = rnd.IntN(300) == 0, odds*odds*odds
	}
	if rnd.IntN(10) == 0 {
		m.Found.Group = 1 + rnd.Uint64N(3)
	}
	h := filter.Hit{Check: "learned", Group: m.Found.Group, NoLock: rnd.IntN(30) == 0, Outside: rnd.IntN(30) == 0}
	switch {
	case bad:
		h.Code, h.Class, h.Action = "SPAM", filter.Spam, filter.Reject
		return []filter.Hit{h}
	case odds >= 0.8:
		h.Code, h.Score = "UNSURE", odds
		m.Found.Likely = uint8(100 * odds)
		return []filter.Hit{h}
	case odds >= 0.1:
		m.Found.Likely = uint8(100 * odds)
	case rnd.IntN(10) == 0:
		return []filter.Hit{{Check: "rate", Code: "RATE", Class: filter.Policy, Action: filter.Defer}}
	}
	return nil
}
