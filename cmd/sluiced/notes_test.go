package main

import (
	"encoding/json"
	"testing"

	"sluice/filter"
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
