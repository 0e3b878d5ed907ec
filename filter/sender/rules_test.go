package sender

import (
	"context"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/filter/policy"
	"sluice/intercept/flow"
)

type fixed struct{ s policy.Settings }

func (f *fixed) Settings(uint32) *policy.Settings { return &f.s }

// fakeDNS has records by name; "slow" in a name answers never, "broken" with an error.
type fakeDNS struct {
	mx   map[string]string
	addr map[string]bool
	txt  map[string]string
}

func (f *fakeDNS) gone(ctx context.Context, name string) error {
	switch {
	case strings.Contains(name, "slow"):
		<-ctx.Done()
		return &net.DNSError{Err: "no answer in time", Name: name, IsTimeout: true, IsTemporary: true}
	case strings.Contains(name, "broken"):
		return &net.DNSError{Err: "server misbehaving", Name: name, IsTemporary: true}
	}
	return &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

func (f *fakeDNS) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	if h, ok := f.mx[name]; ok {
		return []*net.MX{{Host: h}}, nil
	}
	return nil, f.gone(ctx, name)
}

func (f *fakeDNS) LookupIPAddr(ctx context.Context, name string) ([]net.IPAddr, error) {
	if f.addr[name] {
		return []net.IPAddr{{IP: net.ParseIP("192.0.2.1")}}, nil
	}
	return nil, f.gone(ctx, name)
}

func (f *fakeDNS) LookupTXT(ctx context.Context, name string) ([]string, error) {
	if t, ok := f.txt[name]; ok {
		return []string{t}, nil
	}
	return nil, f.gone(ctx, name)
}

func letter(from, data string) *message.Message {
	m := &message.Message{ID: "x.1", Flow: &flow.Flow{User: flow.User{ID: 7}}, Received: time.Now(), Envelope: message.Envelope{From: message.Address(from)}, Data: []byte(data)}
	m.Forwarded = message.PassedOn(m)
	return m
}

// at asks a check at one phase and returns "code reply enhanced", or "" where nothing was refused.
func at(c filter.Check, p filter.Phase, m *message.Message) string {
	v := filter.Judge(c.Check(context.Background(), p, m, nil))
	if h := v.Decisive(); h != nil {
		return h.Code + " " + h.Enhanced
	}
	return ""
}

func TestSendersDomainTakesMail(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dns := &fakeDNS{mx: map[string]string{"mx.example": "mail.mx.example.", "null.example": ".", "xn--bcher-kva.example": "m."}, addr: map[string]bool{"a.example": true}}
		set := &fixed{}
		r := NewRules(set, dns)
		if got := at(r, filter.Mail, letter("x@nowhere.example", "")); got != "" {
			t.Errorf("unasked: %s", got)
		}
		set.s.Sender.Valid = true
		for from, want := range map[string]string{
			"x@mx.example": "", "x@MX.Example": "", "x@a.example": "", "x@bücher.example": "", "": "", "x@[192.0.2.1]": "",
			"x@nowhere.example": "SENDER-DOMAIN 5.1.8", "x@null.example": "SENDER-NULLMX 5.7.27", "x@-bad-.example": "SENDER-DOMAIN 5.1.8",
			"x@broken.example": "", "x@slow.example": "",
		} {
			if got := at(r, filter.Mail, letter(from, "")); got != want {
				t.Errorf("%s: %q, want %q", from, got, want)
			}
		}
		set.s.Sender.DeferUnknown = true
		for _, from := range []string{"x@broken.example", "x@slow.example"} {
			begin := time.Now()
			if got := at(r, filter.Mail, letter(from, "")); got != "SENDER-DNS 4.4.3" {
				t.Errorf("%s: %q", from, got)
			}
			if d := time.Since(begin); d > wait {
				t.Errorf("%s took %v", from, d)
			}
		}
		set.s.Sender.RefuseNull = true
		if got := at(r, filter.Mail, letter("", "")); got != "NULL-SENDER 5.7.1" {
			t.Errorf("the null sender: %q", got)
		}
	})
}

func TestOwnDomainsAlone(t *testing.T) {
	t.Parallel()
	set := &fixed{}
	var err error
	var domains policy.Domains
	if domains, err = policy.ParseDomains("customer.example, .shops.example bücher.example"); err != nil {
		t.Fatal(err)
	}
	set.s.Sender = policy.Sender{RequireDomain: true, Domains: &domains}
	r := NewRules(set, &fakeDNS{})
	for _, c := range []struct{ name, from, header, want string }{
		{"own", "a@customer.example", "From: A <a@customer.example>\r\n", ""},
		{"letters", "a@Customer.EXAMPLE", "From: a@CUSTOMER.example\r\n", ""},
		{"below", "a@x.shops.example", "From: a@y.x.shops.example\r\n", ""},
		{"not the name itself", "a@shops.example", "From: a@customer.example\r\n", "FROM-DOMAIN 5.7.1"},
		{"A-labels", "a@xn--bcher-kva.example", "From: a@bücher.example\r\n", ""},
		{"another's envelope", "a@bank.example", "From: a@customer.example\r\n", "FROM-DOMAIN 5.7.1"},
		{"another's From", "a@customer.example", "From: \"a@customer.example\" <a@bank.example>\r\n", "FROM-DOMAIN 5.7.1"},
		{"one of two", "a@customer.example", "From: a@customer.example, b@bank.example\r\n", "FROM-DOMAIN 5.7.1"},
		{"two fields", "a@customer.example", "From: a@customer.example\r\nFrom: a@bank.example\r\n", "FROM-DOMAIN 5.7.1"},
		{"not well formed", "a@customer.example", "From: a@customer.example <a@bank.example\r\n", "FROM-DOMAIN 5.7.1"},
		{"folded", "a@customer.example", "From: =?utf-8?q?x?=\r\n <a@customer.example>\r\n", ""},
		{"none", "a@customer.example", "Subject: x\r\n", "FROM-DOMAIN 5.7.1"},
		{"notice", "", "From: MAILER-DAEMON@other.example\r\n", ""},
		{"list", "list-bounces@customer.example", "List-Id: <l.customer.example>\r\nFrom: someone@bank.example\r\n", ""},
		{"list of another", "list-bounces@bank.example", "List-Id: <l.bank.example>\r\nFrom: someone@bank.example\r\n", "FROM-DOMAIN 5.7.1"},
		{"forwarded", "SRS0=abc=de=bank.example=x@customer.example", "From: x@bank.example\r\n", ""},
		{"a trick with suffixes", "a@evilcustomer.example", "From: a@customer.example\r\n", "FROM-DOMAIN 5.7.1"},
	} {
		for _, p := range []filter.Phase{filter.Data, filter.Part} { // the beginning of a message is enough
			if got := at(r, p, letter(c.from, c.header+"\r\nbody\r\n")); got != c.want {
				t.Errorf("%s, in phase %s: %q, want %q", c.name, p, got, c.want)
			}
		}
	}
	set.s.Sender = policy.Sender{}
	m := letter("a@customer.example", "From: a@bank.example\r\n\r\n")
	if got := at(r, filter.Data, m); got != "" {
		t.Errorf("without a rule: %q", got)
	}
	if m.Login = "customer.example"; at(r, filter.Data, m) != "FROM-DOMAIN 5.7.1" {
		t.Error("who logged in for a domain writes as another")
	}
	m.Data = []byte("From: b@customer.example\r\n\r\n")
	if got := at(r, filter.Data, m); got != "" {
		t.Errorf("as his own: %q", got)
	}
}

// TestDMARCIsPredicted has the cases of alignment of RFC 7489 3.1.1 and 3.1.2, B.1.
// TestDMARCIsPredicted has the cases of RFC 7489 B.1.1 and B.1.2, strict ones beside them, and those of 6.6.3 about which record holds.
func TestDMARCIsPredicted(t *testing.T) {
	t.Parallel()
	dns := &fakeDNS{txt: map[string]string{
		"_dmarc.reject.example": "v=DMARC1; p=reject", "_dmarc.strict.example": "v=DMARC1; p=reject; adkim=s; aspf=s",
		"_dmarc.none.example": "v=DMARC1; p=none", "_dmarc.quarantine.example": "v=DMARC1; p=quarantine",
		"_dmarc.below.example": "v=DMARC1; p=reject; sp=none", "_dmarc.odd.example": "v=spf1 -all",
		"_dmarc.bank.co.uk": "v=DMARC1; p=reject",
	}}
	set := &fixed{policy.Settings{Sender: policy.Sender{DMARC: policy.DMARCRefuse}}}
	r := NewRules(set, dns)
	for _, c := range []struct{ name, envelope, from, signed, want string }{
		{"envelope of the same domain", "a@reject.example", "a@reject.example", "", ""},
		{"envelope below", "a@mail.reject.example", "a@reject.example", "", ""},
		{"From below", "a@reject.example", "a@news.reject.example", "", ""},
		{"neither", "a@web1.host.example", "a@reject.example", "", "DMARC 5.7.1"},
		{"signed by the domain", "a@web1.host.example", "a@reject.example", "reject.example", ""},
		{"signed below", "a@web1.host.example", "a@reject.example", "mail.reject.example", ""},
		{"signed by another", "a@web1.host.example", "a@reject.example", "host.example", "DMARC 5.7.1"},
		{"strict, the same", "a@strict.example", "a@strict.example", "", ""},
		{"strict, below", "a@mail.strict.example", "a@strict.example", "", "DMARC 5.7.1"},
		{"strict, signed below", "a@x.example", "a@strict.example", "mail.strict.example", "DMARC 5.7.1"},
		{"strict, signed by the same", "a@x.example", "a@strict.example", "strict.example", ""},
		{"p=none", "a@x.example", "a@none.example", "", ""},
		{"p=quarantine", "a@x.example", "a@quarantine.example", "", ""},
		{"sp=none", "a@x.example", "a@news.below.example", "", ""},
		{"p of sp=none", "a@x.example", "a@below.example", "", "DMARC 5.7.1"},
		{"the organisation's record", "a@x.example", "a@news.reject.example", "", "DMARC 5.7.1"},
		{"no record", "a@x.example", "a@nothing.example", "", ""},
		{"another record", "a@x.example", "a@odd.example", "", ""},
		{"public suffix", "a@other.co.uk", "a@bank.co.uk", "", "DMARC 5.7.1"},
		{"null sender", "", "a@reject.example", "", "DMARC 5.7.1"},
		{"no answer", "a@x.example", "a@broken.example", "", ""},
	} {
		data := "From: x <" + c.from + ">\r\n"
		if c.signed != "" {
			data = "DKIM-Signature: v=1; a=rsa-sha256; d=" + c.signed + ";\r\n\ts=x; h=from; b=x\r\n" + data
		}
		if got := at(r, filter.Data, letter(c.envelope, data+"\r\nbody\r\n")); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	set.s.Sender.DMARC = policy.DMARCLog
	hits := r.Check(context.Background(), filter.Data, letter("a@x.example", "From: a@reject.example\r\n\r\n"), nil)
	if v := filter.Judge(hits); len(hits) != 1 || v.Refused() || v.Class != filter.Clean || !strings.Contains(hits[0].Text, "receivers would refuse this: reject.example") {
		t.Errorf("only said: %+v", hits)
	}
}

func BenchmarkRulesUnset(b *testing.B) {
	r, m, ctx := NewRules(&fixed{policy.Default()}, &fakeDNS{}), letter("a@x.example", "From: a@x.example\r\n\r\n"), context.Background()
	b.ReportAllocs()
	for b.Loop() {
		r.Check(ctx, filter.Mail, m, nil)
		r.Check(ctx, filter.Data, m, nil)
	}
}

func BenchmarkRequireDomain(b *testing.B) {
	var domains policy.Domains
	for range 100 {
		domains = append(domains, "x.example")
	}
	set := &fixed{policy.Settings{Sender: policy.Sender{RequireDomain: true, Domains: &domains}}}
	r, m, ctx := NewRules(set, &fakeDNS{}), letter("a@x.example", "Received: from a by b; x\r\nSubject: hello\r\nFrom: A <a@x.example>\r\n\r\n"), context.Background()
	b.ReportAllocs()
	for b.Loop() {
		if hits := r.Check(ctx, filter.Data, m, nil); len(hits) > 0 {
			b.Fatal(hits)
		}
	}
}
