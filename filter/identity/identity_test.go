package identity

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/filter/policy"
	"sluice/intercept/flow"
)

// rulesOf reads header rules; a comma parts them.
func rulesOf(t testing.TB, text string) (rules []policy.HeaderRule) {
	t.Helper()
	for one := range strings.SplitSeq(text, ", ") {
		var r policy.HeaderRule
		if err := r.UnmarshalText([]byte(one)); err != nil {
			t.Fatal(err)
		}
		rules = append(rules, r)
	}
	return rules
}

func TestHeadersOfPanelsAndServers(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/headers.txt")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "case: ")
	n := 0
	for c := range strings.SplitSeq(rest, "---\n") {
		head, header, ok := strings.Cut(strings.TrimPrefix(c, "case: "), "\n\n")
		if !ok {
			continue
		}
		n++
		name, head, _ := strings.Cut(head, "\n")
		keys := map[string]string{}
		for line := range strings.Lines(head + "\n") {
			k, v, _ := strings.Cut(line, ":")
			keys[k] = strings.TrimSpace(v)
		}
		t.Run(name, func(t *testing.T) {
			id := &policy.Identify{Method: policy.ByHeader, Headers: rulesOf(t, keys["rules"])}
			if h := keys["hosts"]; h != "" {
				id.Hosts = strings.Split(h, ", ")
			}
			m := &message.Message{Helo: "web1.customer.example", Data: []byte(strings.ReplaceAll(header, "\n", "\r\n") + "\r\nbody\r\n")}
			if got := Find(m, id); got.Name != keys["told"] || got.Header != keys["by"] {
				t.Errorf("told is %q by %q, want %q by %q", got.Name, got.Header, keys["told"], keys["by"])
			}
		})
	}
	if n < 25 {
		t.Errorf("only %d cases were read", n)
	}
}

type one struct{ s policy.Settings }

func (o *one) Settings(uint32) *policy.Settings { return &o.s }

func mailFrom(user uint32, from, data string) *message.Message {
	return &message.Message{ID: "x.1", Flow: &flow.Flow{User: flow.User{ID: user}}, Helo: "h.example", Received: time.Now(),
		Envelope: message.Envelope{From: message.Address(from)}, Data: []byte(data)}
}

func TestTheChecksSeeTheIdentity(t *testing.T) {
	t.Parallel()
	set, book := &one{policy.Default()}, NewBook(0)
	at := map[filter.Phase]string{}
	p := filter.NewPipeline(filter.Step{Name: "identity", Phases: Phases, Check: NewFinder(set, book)},
		filter.Step{Name: "look", Phases: []filter.Phase{filter.Mail, filter.Rcpt, filter.Data}, Check: look(at)})
	run := func(m *message.Message) {
		clear(at)
		data := m.Data
		m.Data = nil
		p.Ask(context.Background(), filter.Mail, m)
		p.Ask(context.Background(), filter.Rcpt, m)
		m.Data = data
		v := p.Ask(context.Background(), filter.Data, m)
		p.Settle(m, filter.Outcome{Accepted: 2, Verdict: &v})
	}
	run(mailFrom(1, "a@x.example", "X-AuthUser: u\r\n\r\n"))
	if at[filter.Data] != "" || book.Len() != 0 {
		t.Errorf("without a setting: %v", at)
	}
	set.s.Identify = &policy.Identify{Method: policy.BySender}
	run(mailFrom(1, "A@X.example", "\r\n"))
	if at[filter.Mail] != "a@x.example" || at[filter.Rcpt] != "a@x.example" || at[filter.Data] != "a@x.example" {
		t.Errorf("by sender: %v", at)
	}
	run(mailFrom(1, "", "\r\n"))
	if at[filter.Data] != "" {
		t.Errorf("the null sender has the identity %q", at[filter.Data])
	}
	set.s.Identify = &policy.Identify{Method: policy.ByHeader, Headers: rulesOf(t, "X-AuthUser")}
	run(mailFrom(2, "a@x.example", "X-AuthUser: u\r\n\r\n"))
	if at[filter.Mail] != "" || at[filter.Data] != "u" {
		t.Errorf("by header: %v", at)
	}
	m := mailFrom(3, "a@x.example", "\r\n")
	m.Login = "Box@X.example"
	set.s.Identify = &policy.Identify{Method: policy.ByLogin}
	run(m)
	if at[filter.Rcpt] != "box@x.example" {
		t.Errorf("by login: %v", at)
	}
	e, ok := book.Known(1, "a@x.example")
	if !ok || e.Messages != 1 || e.Recipients != 2 || e.Refused != 0 {
		t.Errorf("the account is %+v", e)
	}
}

type look map[filter.Phase]string

func (l look) Check(_ context.Context, p filter.Phase, m *message.Message, hits []filter.Hit) []filter.Hit {
	l[p] = m.Identity
	return hits
}

func TestTheFieldThatToldIsRemovedUnlessSigned(t *testing.T) {
	t.Parallel()
	set := &one{policy.Default()}
	set.s.Identify = &policy.Identify{Method: policy.ByHeader, Headers: rulesOf(t, "X-AuthUser, Received"), Remove: true}
	f := NewFinder(set, NewBook(0))
	const field = "X-AuthUser: u\r\n"
	for header, want := range map[string]string{
		field: "X-AuthUser",
		field + "DKIM-Signature: v=1; a=rsa-sha256; h=from:to:subject;\r\n\tb=x-authuser\r\n": "X-AuthUser",
		field + "DKIM-Signature: v=1; h=from:X-Auth\r\n\tUser:to; b=x\r\n":                    "X-AuthUser", // a name is not folded
		field + "DKIM-Signature: v=1;\r\n\th=from:\r\n\tx-authuser : to; b=x\r\n":             "",
		field + "ARC-Message-Signature: i=1; h=X-AuthUser; b=x\r\n":                           "",
		"Received: by h.example (Postfix, from userid 7)\r\n":                                 "",
		"Subject: x\r\n": "",
	} {
		if _, told := f.Identify(filter.Data, mailFrom(1, "a@x.example", header+"\r\n")); told != want {
			t.Errorf("of %q the field %q is removed, want %q", header, told, want)
		}
	}
	set.s.Identify = &policy.Identify{Method: policy.ByHeader, Headers: rulesOf(t, "X-AuthUser")}
	if name, _ := f.Identify(filter.Part, mailFrom(1, "a@x.example", field+"\r\n")); name != "u" {
		t.Errorf("the beginning of a message is of %q", name)
	}
	if _, told := f.Identify(filter.Data, mailFrom(1, "a@x.example", field+"\r\n")); told != "" {
		t.Errorf("unasked, %q is removed", told)
	}
}

func TestRulesThatMakeNoSense(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"X-A: (":      "correct the regular expression",
		"X-A: abc":    "0 capturing groups, want one",
		"X-A: (a)(b)": "2 capturing groups",
		": (.*)":      "not the name",
		"X A":         "not the name",
	} {
		var r policy.HeaderRule
		if err := r.UnmarshalText([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want …%s…", text, err, want)
		}
	}
	for _, text := range []string{"X-AuthUser", "X-Source-Dir: ^([^:]+)", "X-A: (?:a|b)(c)"} {
		var r policy.HeaderRule
		if err := r.UnmarshalText([]byte(text)); err != nil {
			t.Error(err)
		}
		if b, _ := r.MarshalText(); string(b) != text {
			t.Errorf("%q is written %q", text, b)
		}
	}
}

func BenchmarkFind(b *testing.B) {
	text, err := os.ReadFile("testdata/headers.txt")
	if err != nil {
		b.Fatal(err)
	}
	_, c, _ := strings.Cut(string(text), "\n\n")
	c, _, _ = strings.Cut(c, "---\n")
	m := mailFrom(1, "a@x.example", strings.ReplaceAll(c, "\n", "\r\n")+"\r\nbody\r\n")
	id := &policy.Identify{Method: policy.ByHeader, Headers: rulesOf(b, "X-Get-Message-Sender-Via, X-AuthUser, Received")}
	b.ReportAllocs()
	for b.Loop() {
		if Find(m, id).Name != "alice" {
			b.Fatal("not found")
		}
	}
}
