package identity

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/filter/policy"
	"sluice/intercept/flow"
)

// letter is a message of a user with these header fields.
func letter(user uint32, from, header string) *message.Message {
	return &message.Message{Flow: &flow.Flow{User: flow.User{ID: user}}, Received: time.Now(), Helo: "web1.customer.example",
		Envelope: message.Envelope{From: message.Address(from)}, Data: []byte(header + "Subject: x\r\n\r\nbody\r\n")}
}

func names(rule *policy.Identify) (all []string) {
	if rule == nil {
		return nil
	}
	for _, h := range rule.Headers {
		all = append(all, h.Name)
	}
	return append([]string{rule.Method.String()}, all...)
}

// TestARuleIsSuggested: by what most of a user's mail tells, with what else adds to it, and its share.
func TestARuleIsSuggested(t *testing.T) {
	t.Parallel()
	const trace = "Received: by web7.customer.example (Postfix, from userid %d)\r\n\tid 4F2C81A0B; Sun, 22 Nov 2026 08:00:00 +0000\r\n"
	for name, c := range map[string]struct {
		mail     func(i int) *message.Message
		rule     []string
		hosts    []string
		coverage float64
	}{
		"a panel and its cron jobs": {func(i int) *message.Message {
			switch {
			case i%10 < 7:
				return letter(1, "a@x.example", fmt.Sprintf("X-AuthUser: user%d\r\n", i%5))
			case i%10 < 9:
				return letter(1, "a@x.example", fmt.Sprintf(trace, 33))
			}
			return letter(1, "a@x.example", "")
		}, []string{"header", "X-AuthUser", "Received"}, []string{"web7.customer.example"}, 0.9},
		"a field twice tells nobody": {func(int) *message.Message {
			return letter(1, "a@x.example", "X-AuthUser: one\r\nX-AuthUser: two\r\n")
		}, nil, nil, 0},
		"senders, for want of anything else": {func(i int) *message.Message { return letter(1, fmt.Sprintf("a%d@x.example", i%4), "") }, []string{"sender"}, nil, 1},
		"one sender":                         {func(int) *message.Message { return letter(1, "a@x.example", "") }, nil, nil, 0},
		"logins": {func(i int) *message.Message {
			m := letter(1, fmt.Sprintf("a%d@x.example", i%4), "")
			m.Login = fmt.Sprint("box", i%3)
			return m
		}, []string{"login"}, nil, 1},
		"half of two servers": {func(i int) *message.Message {
			h := fmt.Sprintf(trace, 33)
			if i%4 == 3 {
				h = "Received: by other.example (Postfix, from userid 1) id x; Sun, 22 Nov 2026 08:00:00 +0000\r\n"
			}
			return letter(1, "a@x.example", h)
		}, []string{"header", "Received"}, []string{"web7.customer.example"}, 0.75},
		"too little to be worth a header": {func(i int) *message.Message {
			if i == 5 {
				return letter(1, "a@x.example", "X-Source-Dir: x.example:/public_html\r\n")
			}
			return letter(1, "a@x.example", "X-PHP-Originating-Script: 33:mail.php\r\n")
		}, []string{"header", "X-PHP-Originating-Script"}, nil, 0.99},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var s Survey
			for i := range 100 {
				s.Look(c.mail(i))
			}
			g := s.Suggest(1)
			if !slices.Equal(names(g.Rule), c.rule) || math.Abs(g.Coverage-c.coverage) > 1e-9 || g.Messages != 100 {
				t.Fatalf("suggested is %v with %.3f of %d messages, want %v with %.3f", names(g.Rule), g.Coverage, g.Messages, c.rule, c.coverage)
			}
			if g.Rule != nil && !slices.Equal(g.Rule.Hosts, c.hosts) {
				t.Errorf("hosts are %v, want %v", g.Rule.Hosts, c.hosts)
			}
			if g.Rule == nil {
				return
			}
			found := 0 // the rule does what it promises
			for i := range 100 {
				if Find(c.mail(i), g.Rule).Name != "" {
					found++
				}
			}
			if float64(found)/100 != c.coverage {
				t.Errorf("the rule tells of %d of 100 messages, promised was %.2f", found, c.coverage)
			}
		})
	}
	var none Survey
	if g := none.Suggest(7); g.Rule != nil || g.Messages != 0 || g.Choices != nil {
		t.Errorf("of nobody: %+v", g)
	}
}

// TestTheSurveyIsBounded: in users, in what is looked at, and in what is remembered of old mail.
func TestTheSurveyIsBounded(t *testing.T) {
	t.Parallel()
	var s Survey
	for i := range uint32(surveyUsers + 100) {
		s.Look(letter(i, "a@x.example", ""))
	}
	if len(s.users) != surveyUsers {
		t.Errorf("%d users are in memory", len(s.users))
	}
	var one Survey
	for range 100_000 {
		one.Look(letter(1, "a@x.example", "X-AuthUser: old\r\n"))
	}
	if g := one.Suggest(1); g.Messages > surveyMost+1 {
		t.Errorf("%d messages count", g.Messages)
	}
	for range 100_000 {
		one.Look(letter(1, "a@x.example", "X-Source-Dir: new\r\n"))
	}
	if g := one.Suggest(1); len(g.Rule.Headers) == 0 || g.Rule.Headers[0].Name != "X-Source-Dir" {
		t.Errorf("behind a change: %v", names(g.Rule))
	}
	for i := range 1 << 10 { // every combination
		one.users[1].count(uint16(i))
	}
	if n := len(one.users[1].masks); n > surveyMasks {
		t.Errorf("%d combinations are told apart", n)
	}
}

func TestHowManyNames(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 2, 5, 20, 100} {
		var s sketch
		for i := range n {
			for range 3 {
				s.add(fmt.Sprint("user", i, "@customer.example"))
			}
		}
		if got := s.estimate(); math.Abs(float64(got-n)) > max(1, float64(n)/5) {
			t.Errorf("%d names are taken for %d", n, got)
		}
	}
}

// TestAlarms: identities that explode, and a source that tells none though a rule stands, are told once an hour.
func TestAlarms(t *testing.T) {
	t.Parallel()
	var told []Alarm
	id := &policy.Identify{Method: policy.ByHeader, Headers: rulesOf(t, "X-AuthUser")}
	f := NewFinder(&one{policy.Settings{Identify: id}}, NewBook(0))
	f.Alarm = func(a Alarm) { told = append(told, a) }
	send := func(user uint32, header string) {
		m := letter(user, "a@x.example", header)
		m.Received = m.Received.Add(time.Minute)
		m.Identity, m.Told = f.Identify(filter.Data, m)
		f.Settle(m, filter.Outcome{Accepted: 1})
	}
	for i := range 3 * NewPerHour {
		send(1, fmt.Sprintf("X-AuthUser: made-up-%d\r\n", i))
	}
	if len(told) != 1 || told[0].Kind != Exploding || told[0].User != 1 || told[0].N != NewPerHour {
		t.Errorf("identities that explode: %+v", told)
	}
	told = nil
	for range 500 {
		send(2, "X-AuthUser: shop\r\n")
	}
	for range LeastUntold - 1 {
		send(2, "")
	}
	if len(told) != 0 {
		t.Errorf("too early: %+v", told)
	}
	for range 100 {
		send(2, "")
	}
	if len(told) != 1 || told[0].Kind != Untold || told[0].User != 2 || told[0].N*10 < told[0].Of {
		t.Errorf("mail without an identity: %+v", told)
	}
	told = nil
	f.settings = &one{} // nobody told how: nothing is missing
	for range 100 {
		send(3, "")
	}
	if len(told) != 0 {
		t.Errorf("without a rule: %+v", told)
	}
}

// TestEachUserIsLookedAtFirst: the first messages of a user all, then few, whatever others send, and anew when he was forgotten.
func TestEachUserIsLookedAtFirst(t *testing.T) {
	t.Parallel()
	var s Survey
	for _, user := range []uint32{1, 2, surveyUsers + 3} {
		for range 128 {
			s.Look(letter(user, "a@x.example", ""))
		}
		if n := s.users[user].looked; n != 128 {
			t.Errorf("%d of the first 128 messages of user %d were looked at", n, user)
		}
		for range 16_000 {
			s.Look(letter(user, "a@x.example", ""))
		}
		if n := s.users[user].looked - 128; n < 800 || n > 1200 { // 1000, give or take six deviations
			t.Errorf("%d of 16000 further messages of user %d were looked at", n, user)
		}
	}
	for i := uint32(1000); s.users[1] != nil; i++ {
		s.Look(letter(i, "a@x.example", ""))
	}
	s.Look(letter(1, "a@x.example", ""))
	if u := s.users[1]; u == nil || u.looked != 1 {
		t.Errorf("who was forgotten is not looked at: %+v", u)
	}
}

func BenchmarkLook(b *testing.B) {
	var s Survey
	m := letter(1, "a@x.example", "Received: by web7.customer.example (Postfix, from userid 33)\r\n\tid 4F2C81A0B; Sun, 22 Nov 2026 08:00:00 +0000\r\nX-AuthUser: shop\r\n")
	b.ReportAllocs()
	for i := range b.N {
		m.Flow.User.ID = uint32(i % 1000)
		s.Look(m)
	}
}
