package policy

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"
)

func ptr[T any](v T) *T { return &v }

func hours(messages, recipients int64) *Limits {
	l := &Limits{}
	l.Max[MessagesHour], l.Max[RecipientsHour] = messages, recipients
	return l
}

func TestDefaultIsValid(t *testing.T) {
	t.Parallel()
	d := Default()
	if err := d.Validate(); err != nil {
		t.Fatalf("the default is invalid: %v", err)
	}
	if d.Limits.Max[MessagesHour] != 500 || d.Limits.Max[RecipientsHour] != 2000 || d.Limits.Max[InvalidShare] != 10 || d.SessionsPerSource != 100 || d.SessionsPerPair != 20 {
		t.Errorf("limits are %+v", d)
	}
	want := Lock{SpamCount: 5, SpamShare: 0.2, Window: 10 * time.Minute, Time: time.Hour, MaxUnlocks: 3, Explained: 10,
		DayCount: 20, DayShare: 0.05, AverageCount: 5, Average: 0.6, Viruses: 1, Phish: 2, Traps: 1, Complaints: 3, RemoteSpam: 10, Unknown: 50, UnknownShare: 0.3, Guesses: 30, ForwardedShare: 0.6, Origins: 3,
		Throttled: 20, Probation: 24 * time.Hour, ProbationRate: 100, ScoreSlow: 15, ScoreHeld: 55, ScoreAlarm: 80, ByLink: 3}
	if d.Lock != want {
		t.Errorf("lock is %+v, want %+v", d.Lock, want)
	}
}

func TestValidateNamesTheSetting(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*Settings){
		"messages_per_hour": func(s *Settings) { s.Limits = hours(-1, 0) },
		"message_size":      func(s *Settings) { s.MessageSize = -1 },
		"delivery":          func(s *Settings) { s.Delivery = 7 },
		"spam_count":        func(s *Settings) { s.Lock.SpamCount = 0 },
		"spam_share":        func(s *Settings) { s.Lock.SpamShare = math.NaN() },
		"lock window":       func(s *Settings) { s.Lock.Window = 0 },
		"lock time":         func(s *Settings) { s.Lock.Time = MaxLockTime + time.Second },
		"max_unlocks":       func(s *Settings) { s.Lock.MaxUnlocks = 101 },
		"explained":         func(s *Settings) { s.Lock.Explained = -1 },
	} {
		s := Default()
		change(&s)
		if err := s.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Validate said %v, want it to name %q", err, want)
		}
	}
}

func TestTableResolvesInOrder(t *testing.T) {
	t.Parallel()
	tab := NewTable(Default())
	custom := Default()
	custom.Limits = hours(10, 20)
	tab.Configure(map[uint32]Settings{1: custom})
	tab.Override(1, Overrides{MessagesPerHour: ptr(7)})
	tab.Override(2, Overrides{Delivery: ptr(Own), LockMinutes: ptr(5)})

	if s := tab.Settings(1); s.Limits.Max[MessagesHour] != 7 || s.Limits.Max[RecipientsHour] != 20 {
		t.Errorf("user 1 has %d messages, %d recipients; want 7 (override), 20 (configured)", s.Limits.Max[MessagesHour], s.Limits.Max[RecipientsHour])
	}
	if s := tab.Settings(2); s.Delivery != Own || s.Lock.Time != 5*time.Minute || s.Limits.Max[MessagesHour] != 500 {
		t.Errorf("user 2 has %+v", s)
	}
	d := Default()
	d.Limits, d.MessageSize = hours(100, 0), 1000
	tab.SetDefault(d)
	if s := tab.Settings(3); s.Limits.Max[MessagesHour] != 100 {
		t.Errorf("user 3 has %d messages, want the new default 100", s.Limits.Max[MessagesHour])
	}
	if s := tab.Settings(2); s.MessageSize != 1000 {
		t.Errorf("user 2 has size %d, want the new default 1000", s.MessageSize)
	}
	tab.Override(1, Overrides{})
	if s := tab.Settings(1); s.Limits.Max[MessagesHour] != 10 {
		t.Errorf("user 1 has %d messages, want the configured 10 again", s.Limits.Max[MessagesHour])
	}
	tab.OverrideAll(map[uint32]Overrides{3: {MessageSize: ptr(int64(5))}, 4: {}})
	if tab.Settings(2).Delivery != Managed || tab.Settings(3).MessageSize != 5 {
		t.Errorf("OverrideAll did not replace: user 2 %+v, user 3 %+v", tab.Settings(2), tab.Settings(3))
	}
}

func TestOverridesAsJSON(t *testing.T) {
	t.Parallel()
	in := Overrides{Delivery: ptr(Own), LockAutomatic: ptr(true), LockSpamShare: ptr(0.5), MessageSize: ptr(int64(1 << 40))}
	text, err := json.Marshal(&in)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"delivery":"own","message_size":1099511627776,"lock_automatic":true,"lock_spam_share":0.5}`
	if string(text) != want {
		t.Errorf("JSON is %s, want %s", text, want)
	}
	var out Overrides
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	if base := Default(); out.Apply(base) != in.Apply(base) {
		t.Errorf("read back %+v", out)
	}
	if err := json.Unmarshal([]byte(`{"delivery":"pigeon"}`), &out); err == nil {
		t.Error("an unknown delivery was accepted")
	}
}

func TestOverridesValidate(t *testing.T) {
	t.Parallel()
	good := Overrides{LockMinutes: ptr(int(MaxLockTime / time.Minute)), MessagesPerHour: ptr(0)}
	if err := good.Validate(); err != nil {
		t.Errorf("%+v: %v", good, err)
	}
	for _, bad := range []Overrides{
		{LockMinutes: ptr(math.MaxInt)}, {LockMinutes: ptr(-1)}, {LockWindowMinutes: ptr(0)}, {LockSpamShare: ptr(1.1)},
		{LockSpamCount: ptr(0)}, {SessionsPerPair: ptr(-1)},
	} {
		if bad.Validate() == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
}

func BenchmarkSettings(b *testing.B) {
	tab := NewTable(Default())
	tab.Override(2, Overrides{Delivery: ptr(Own)})
	b.ReportAllocs()
	for i := range b.N {
		if tab.Settings(uint32(i&3)) == nil {
			b.Fatal("no settings")
		}
	}
}

func TestLimitsInherit(t *testing.T) {
	t.Parallel()
	var o Overrides
	text := `{"messages_per_hour":7,"limits":{"messages_per_day":{"max":100,"action":"reject","text":"no more today"},"recipients_per_hour":{"shadow":true}},"limits_per_identity":{"messages_per_hour":{"max":3}}}`
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		t.Fatal(err)
	}
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	base := Default()
	s := o.Apply(base)
	l := s.Limits
	if l.Max[MessagesHour] != 7 || l.Max[MessagesDay] != 100 || l.Action[MessagesDay] != RejectOver || l.Text[MessagesDay] != "no more today" ||
		!l.Shadow[RecipientsHour] || l.Max[RecipientsHour] != 2000 || s.PerIdentity.Max[MessagesHour] != 3 {
		t.Errorf("limits are %+v, of identities %+v", l, s.PerIdentity)
	}
	if *base.Limits != *DefaultLimits() {
		t.Error("what is inherited was changed")
	}
	if out, err := json.Marshal(&o); err != nil || string(out) != text {
		t.Errorf("%s, %v", out, err)
	}
	for text, want := range map[string]string{
		`{"limits":{"messages_per_second":{"max":1}}}`:               "there is no limit",
		`{"limits":{"messages_per_day":{"max":-1}}}`:                 "want at least 0",
		`{"limits":{"messages_per_day":{"text":"a\nb"}}}`:            "one line",
		`{"limits":{"invalid_recipients_percent":{"max":101}}}`:      "want at most 100",
		`{"limits_per_identity":{"messages_per_fortnight":{}}}`:      "there is no limit",
		`{"identity":{"method":"header"}}`:                           "has no headers",
		`{"identity":{"method":"header","headers":["X-A: (a)(b)"]}}`: "capturing groups",
		`{"limits":{"messages_per_day":{"action":"explode"}}}`:       "use defer, reject or lock",
	} {
		var o Overrides
		err := json.Unmarshal([]byte(text), &o)
		if err == nil {
			err = o.Validate()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want …%s…", text, err, want)
		}
	}
}
