package main

import (
	"fmt"
	"testing"
	"time"

	"sluice/filter"
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
// only mentions a score counts for nothing (LCK1).
func TestReplayKnowsDoubts(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	made := func() *replay {
		r := &replay{users: map[uint32]string{}, names: map[uint32]string{}}
		put := func(user uint32, identity string, minute, size int, hits ...filter.Hit) {
			r.add(&proxy.Record{Flow: flow.Flow{User: flow.User{ID: user, Name: fmt.Sprint("u", user)}}, Identity: identity, From: "a@x.example", Size: int64(size),
				Start: noon.Add(time.Duration(minute) * 30 * time.Second), Verdict: filter.Judge(hits)})
		}
		doubt := filter.Hit{Code: "UNSURE", Points: 0.9, Score: 0.9}
		said := doubt
		said.Score = 0 // the filter may not act
		delayed := doubt
		delayed.Action = filter.Delay
		for i := 9; i >= 0; i-- {
			put(1, "", i, 1000*(i+1), doubt)
			put(2, "shop", i, 1000*(i+1), delayed)
			put(3, "", i, 5000, doubt) // copies of one
			put(4, "", i, 1000*(i+1), said)
			put(5, "", i, 1000*(i+1), doubt, filter.Hit{Code: "HELD", Class: filter.Policy, Action: filter.Defer})
		}
		return r
	}
	usual := func(uint32) policy.Lock { return policy.Default().Lock }
	out := made().run(noon, usual)
	if len(out.Locks) != 2 || out.Locks[0].User != "u1" || out.Locks[1].User != "u2" || out.Locks[1].Identity != "shop" || out.Locks[0].Rule != "score" || out.Locks[1].Rule != "score" {
		t.Fatalf("by the usual settings: %+v", out.Locks)
	}
	if want := noon.Add(5 * 30 * time.Second); !out.Locks[0].First.Equal(want) { // the sixth brings it above 5
		t.Errorf("at %v, want %v", out.Locks[0].First, want)
	}
	if out = made().run(noon, func(uint32) policy.Lock {
		s := policy.Default().Lock
		s.AverageCount = 0
		return s
	}); len(out.Locks) != 0 {
		t.Errorf("without the rule: %+v", out.Locks)
	}
}
