package sender

import (
	"context"
	"strings"
	"testing"
	"time"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/filter/policy"
)

// remembered has hosts of which is known whether they have an address.
type remembered map[string]bool

func (r remembered) Remembered(host string) (has, known bool) {
	has, known = r[host]
	return has, known
}

// TestHello: what a client calls itself is an opinion, never a refusal; what honest servers say is none (FRM4).
func TestHello(t *testing.T) {
	t.Parallel()
	set := &fixed{policy.Default()}
	domains, err := policy.ParseDomains("own.example, gmx.net")
	if err != nil {
		t.Fatal(err)
	}
	set.s.Sender.Domains = &domains
	c := NewHello(set, remembered{"gone.customer.example": false, "mail.customer.example": true}, func(name string) bool { return name == "gw.example" })
	about := func(change func(m *message.Message)) *message.Message {
		m := letter("a@customer.example", "")
		m.Envelope.To = []message.Address{"x@first.example", "y@Rcpt.example", "z@own.example", "broken"}
		change(m)
		return m
	}
	for name, want := range map[string]string{
		"mail.customer.example": "", "MAIL.Customer.Example.": "", "unknown.example": "", "web_1.customer.example": "", "DESKTOP-7Q2": "", "mail": "",
		"[192.0.2.1]": "", "[IPv6:2001:db8::1]": "", "xn--bcher-kva.example": "", "bücher.example": "", "x.dip0.t-ipconnect.de": "",
		"notgmail.com": "", "gmail.com.customer.example": "", "mail.rcpt.example": "", "own.example": "", "mail.gmx.net": "", "xgw.example": "", "customer.example": "",

		"": "", ".": "no host name", "-x-.example": "no host name", "a..b": "no host name", "$host": "no host name", "1.2.3": "no host name", "xn--a.example": "no host name",
		"[": "no IP address in brackets", "[]": "no IP address in brackets", "[300.1.1.1]": "no IP address in brackets", "[2001:db8::1]": "no IP address in brackets",
		"192.0.2.1": "without brackets", "2001:db8::1": "without brackets",
		"localhost": "own use", "LOCALHOST.localdomain": "own use", "macbook.local": "own use", "srv.customer.internal": "own use",
		"gone.customer.example": "no address in the DNS",
		"gmail.com":             "!well-known", "mx1.Google.com": "!well-known", "smtp.mail.YAHOO.com.": "!well-known",
		"rcpt.example": "!recipient's own", "FIRST.example.": "!recipient's own", "GW.example": "!gateway's own",
	} {
		hits := c.Check(context.Background(), filter.Data, about(func(m *message.Message) { m.Helo = name }), nil)
		text, bad := strings.CutPrefix(want, "!")
		switch {
		case want == "" && len(hits) != 0:
			t.Errorf("%q: %+v", name, hits)
		case want == "":
		case len(hits) != 1 || !strings.Contains(hits[0].Evidence, text) || !hits[0].Weighs || hits[0].Points >= 1 != bad:
			t.Errorf("%q: %+v, want %q", name, hits, want)
		default:
			if v := filter.Judge(hits); v.Refused() || v.Class != filter.Clean || v.Doubt() != nil {
				t.Errorf("%q is %+v", name, v)
			}
		}
	}
	for name, m := range map[string]*message.Message{
		"a service that shows who it is":  about(func(m *message.Message) { m.Helo, m.Login = "mail-1.outbound.protection.outlook.com", "contoso" }),
		"a notice of the recipient's own": about(func(m *message.Message) { m.Helo, m.Envelope.From = "rcpt.example", "" }),
		"the recipient's own people":      about(func(m *message.Message) { m.Helo, m.Envelope.From = "rcpt.example", "cron@web.RCPT.example" }),
	} {
		if hits := c.Check(context.Background(), filter.Data, m, nil); len(hits) != 0 {
			t.Errorf("%s: %+v", name, hits)
		}
	}
	bare := about(func(m *message.Message) { m.Helo = "192.0.2.1" })
	if hits := c.Check(context.Background(), filter.Mail, bare, nil); len(hits) != 0 {
		t.Errorf("before the message is here: %+v", hits)
	}
	set.s.Sender.Hello = false
	if hits := c.Check(context.Background(), filter.Data, bare, nil); len(hits) != 0 {
		t.Errorf("off: %+v", hits)
	}
}

// TestGoodNamesCostNothing: the name of an honest server is looked at for each message.
func TestGoodNamesCostNothing(t *testing.T) {
	set := &fixed{policy.Default()}
	c := NewHello(set, remembered{}, func(string) bool { return false })
	m := letter("a@customer.example", "")
	m.Helo, m.Envelope.To = "mail.customer.example", []message.Address{"x@rcpt.example"}
	if n := testing.AllocsPerRun(100, func() { c.Check(context.Background(), filter.Data, m, nil) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestHelloIsLookedAtAgain: what is remembered of a name holds for a second, for each way to say it, and not for the recipients.
func TestHelloIsLookedAtAgain(t *testing.T) {
	t.Parallel()
	names := remembered{"mail.customer.example": true}
	c := NewHello(&fixed{policy.Default()}, names, func(string) bool { return false })
	at := time.Now()
	doubts := func(after time.Duration, to message.Address) int {
		m := letter("a@customer.example", "")
		m.Helo, m.Received, m.Envelope.To = "Mail.customer.example", at.Add(after), []message.Address{to}
		return len(c.Check(context.Background(), filter.Data, m, nil))
	}
	if n := doubts(0, "x@rcpt.example"); n != 0 {
		t.Errorf("%d doubts", n)
	}
	names["mail.customer.example"] = false
	if n := doubts(900*time.Millisecond, "x@rcpt.example"); n != 0 {
		t.Errorf("within a second: %d doubts", n)
	}
	if n := doubts(900*time.Millisecond, "x@mail.CUSTOMER.example"); n != 1 {
		t.Errorf("the recipient's own: %d doubts", n)
	}
	if n := doubts(1100*time.Millisecond, "x@rcpt.example"); n != 1 {
		t.Errorf("after a second: %d doubts", n)
	}
}
