package main

import (
	"encoding/json"
	"testing"
	"time"

	"sluice/filter"
	"sluice/filter/limit"
	"sluice/filter/lock"
	mail "sluice/filter/message"
	"sluice/intercept/flow"
)

// TestVerdictsAreToldWhole: what a process that goes tells of a verdict counts with its successor as it would have here.
func TestVerdictsAreToldWhole(t *testing.T) {
	t.Parallel()
	refused := filter.Hit{Check: "learned", Code: "SPAM", Class: filter.Spam, Action: filter.Reject, Score: 0.99, Group: 7}
	outside, wrong, unsure, let := refused, refused, refused, refused
	outside.Outside, wrong.NoLock = true, true
	unsure.Code, unsure.Class, unsure.Action, unsure.Score = "UNSURE", filter.Clean, filter.None, 0.9
	let.Action = filter.None
	for name, hits := range map[string][]filter.Hit{
		"good": nil, "bad": {refused}, "that counts for itself": {outside}, "that may be wrong": {wrong}, "doubtful": {unsure}, "let go by a setting": {let},
		"stopped otherwise": {unsure, {Code: "RATE", Class: filter.Policy, Action: filter.Defer}},
	} {
		for _, forwarded := range []bool{false, true} {
			m := &mail.Message{ID: "1", Flow: &flow.Flow{User: flow.User{ID: 7, Name: "alice"}}, Identity: "shop", Forwarded: forwarded, Data: []byte("Subject: x\r\n\r\nhello\r\n")}
			m.Found.Likely = 60
			v := filter.Judge(hits)
			text, err := json.Marshal(newJudged(m, &v))
			if err != nil {
				t.Fatal(err)
			}
			var told judged
			if err := json.Unmarshal(text, &told); err != nil {
				t.Fatal(err)
			}
			m2, v2 := told.rebuild()
			want, _, counts := lock.EventOf(&v, m.Forwarded, m.Found.Likely)
			got, _, counted := lock.EventOf(v2, m2.Forwarded, m2.Found.Likely)
			if got != want || counted != counts || m2.Identity != "shop" || m2.Flow.User != m.Flow.User {
				t.Errorf("%s, forwarded %v: %+v, %v; want %+v, %v", name, forwarded, got, counted, want, counts)
			}
		}
	}
}

// TestWhatIsBookedIsGivenOnce: what a process booked before its counts went to another one is in them, and is not told besides; what
// it books later is told.
func TestWhatIsBookedIsGivenOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	old, err := openCounts(dir, limit.NewCounts(0))
	if err != nil {
		t.Fatal(err)
	}
	defer old.close()
	var told []booked
	c := toldCounts{old.counts, old, func(n note) { told = append(told, *n.Booked) }}
	failed := limit.Key{User: 1, What: limit.Failed, Window: time.Hour}
	book := func() {
		c.SettleHour(1, limit.Hour{Messages: 1, Recipients: 2}, limit.Hour{Messages: 1, Recipients: 2})
		c.SettleHour(1, limit.Hour{Messages: 1, Recipients: 1}, limit.Hour{})
		c.Settle(failed, 0, 3)
	}
	book()
	if err := old.give(); err != nil {
		t.Fatal(err)
	}
	before := len(told)
	book()
	next, err := openCounts(dir, limit.NewCounts(0))
	if err != nil {
		t.Fatal(err)
	}
	defer next.close()
	for _, b := range told {
		next.counts.Settle(b.Key, 0, b.N)
	}
	for what, want := range map[limit.Quantity]int{limit.Messages: 2, limit.Recipients: 4, limit.Failed: 6} {
		if n, _ := next.counts.Count(limit.Key{User: 1, What: what, Window: time.Hour}); n != want {
			t.Errorf("quantity %d: %d are booked in the next process, want %d", what, n, want)
		}
	}
	if before != 0 || len(told) != 3 {
		t.Errorf("%d and %d were told, want none and 3", before, len(told)-before)
	}
}
