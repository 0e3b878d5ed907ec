package sender

import (
	"context"
	"strings"
	"testing"
	"unicode/utf8"

	"sluice/filter"
	"sluice/filter/message"
)

func TestValid(t *testing.T) {
	t.Parallel()
	l64 := strings.Repeat("l", 64)
	for a, want := range map[message.Address]string{
		"a@example.org":                   "",
		"a.b+c=d@example.org":             "",
		"bounces-12=x=example.net@e.org":  "",
		"!#$%&'*+-/=?^_`{|}~@example.org": "",
		"root@localhost":                  "",
		"a@my_host.example.org":           "",
		"a@EXAMPLE.ORG":                   "",
		"a@xn--bcher-kva.example":         "",
		"a@3com.example":                  "",
		`"a b"@example.org`:               "",
		`"a@b\"c"@example.org`:            "",
		`""@example.org`:                  "",
		"a@[192.0.2.1]":                   "",
		"a@[IPv6:2001:db8::1]":            "",
		message.Address(l64 + "@e.org"):   "",
		"a":                               "no @",
		"@example.org":                    "before the @",
		"a@":                              "after the @",
		message.Address("SRS0=a=" + l64 + "@e.org"):         "",
		message.Address(strings.Repeat(l64, 8) + "@e.org"):  "",
		message.Address(strings.Repeat(l64, 8) + "l@e.org"): "more than 512",
		".a@example.org":                     "dot",
		"a.@example.org":                     "dot",
		"a..b@example.org":                   "dot",
		"a b@example.org":                    "needs quotes",
		"a@b@example.org":                    "needs quotes",
		"a\x00@example.org":                  "needs quotes",
		`"a@example.org`:                     "do not close",
		`"a"b"@example.org`:                  "inside its quotes",
		`"a\"@example.org`:                   "backslash",
		"a@example..org":                     "empty",
		"a@.example.org":                     "empty",
		"a@example.org.":                     "empty",
		"a@-example.org":                     "hyphen",
		"a@example-.org":                     "hyphen",
		"a@exam ple.org":                     "no domain has",
		"a@exam\r\nple.org":                  "no domain has",
		"a@192.0.2.1":                        "needs brackets",
		"a@[192.0.2.256]":                    "not an IP address",
		"a@[2001:db8::1]":                    "not an IP address",
		"a@[IPv6:192.0.2.1]":                 "not an IP address",
		"a@[IPv6:fe80::1%eth0]":              "not an IP address",
		"a@[192.0.2.1":                       "does not close",
		"a@xn--99999999999.example":          "international",
		"bücher@example.org":                 "SMTPUTF8",
		"a@bücher.example":                   "SMTPUTF8",
		message.Address("a@" + l64 + ".org"): "longer than 63",
		message.Address("a@" + strings.Repeat("abc.", 64) + "org"): "longer than 255",
	} {
		err := Valid(a, false)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("Valid(%q) said %v, want %q", a, err, want)
		}
	}
}

func TestValidUTF8(t *testing.T) {
	t.Parallel()
	for a, ok := range map[message.Address]bool{
		"bücher@bücher.example": true,
		"例え@例え.テスト":             true,
		`"ü ü"@example.org`:     true,
		"a\xff@example.org":     false,
		"a@b\u0000.example":     false,
		"a@\u2028.example":      false,
		"a@-ü.example":          false,
	} {
		if err := Valid(a, true); (err == nil) != ok {
			t.Errorf("Valid(%q) with SMTPUTF8 said %v, want ok %v", a, err, ok)
		}
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for from, want := range map[message.Address]string{
		"":              "",
		"a@example.org": "",
		"nobody":        "SENDER-SYNTAX 5.1.7",
		"ü@example.org": "SENDER-UTF8 5.6.7",
	} {
		m := &message.Message{Envelope: message.Envelope{From: from}}
		hits := New().Check(context.Background(), filter.Mail, m, nil)
		got := ""
		if len(hits) == 1 {
			h := hits[0]
			got = h.Code + " " + h.Enhanced
			if h.SMTP != 553 || h.Action != filter.Reject || h.Class != filter.Policy || strings.ContainsAny(h.Text+h.Evidence, "\r\n") {
				t.Errorf("hit is %+v", h)
			}
		}
		if got != want {
			t.Errorf("<%s> got %q, want %q", from, got, want)
		}
		if hits := New().Check(context.Background(), filter.Rcpt, m, nil); len(hits) != 0 {
			t.Errorf("asked in phase rcpt it said %v", hits)
		}
	}
}

func TestUsual(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"alice@example.org", "bounces-1234=x=example.net@lists.example.org", "a.b+c_d@x1.example", "a@localhost"} {
		if !usual(s) {
			t.Errorf("%q is not usual", s)
		}
	}
}

func FuzzValid(f *testing.F) {
	for _, s := range []string{"a@example.org", `"\"@x`, "a@[IPv6:::]", "a@xn--a.b", "ü@ü"} {
		f.Add(s, true)
	}
	for _, s := range []string{"a.b-c_d+e=1@mail.example.org", "a@1.2", "a@b.-c", "a@b-.c", "a..b@c.d", ".a@b.c", "a.@b.c", "a@b..c", "a@.c", "a@b.", "a@", "a", "a@b@c.d", "a@" + strings.Repeat("b", 64) + ".c"} {
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, s string, u bool) {
		if err := valid(s, u); err != nil && usual(s) {
			t.Errorf("%q is usual, though %v", s, err)
		}
		if Valid(message.Address(s), u) != nil {
			return
		}
		if !utf8.ValidString(s) || strings.ContainsAny(s, "\r\n\x00") || !strings.Contains(s, "@") || !u && !ascii(s) {
			t.Errorf("%q is said to be valid", s)
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	m := &message.Message{Envelope: message.Envelope{From: "bounces-1234=x=example.net@lists.example.org"}}
	ctx := context.Background()
	b.ReportAllocs()
	for range b.N {
		if hits := New().Check(ctx, filter.Mail, m, nil); len(hits) != 0 {
			b.Fatal(hits)
		}
	}
}
