package sender

import (
	"testing"

	"sluice/filter"
	"sluice/filter/policy"
)

// TestMaySign: a domain signs for whom it belongs to, and for who logged in as somebody of it.
func TestMaySign(t *testing.T) {
	t.Parallel()
	domains := policy.Domains{".shops.example", "customer.example"}
	set := &policy.Sender{Domains: &domains}
	for _, c := range []struct {
		set           *policy.Sender
		login, domain string
		want          bool
	}{
		{set, "", "customer.example", true}, {set, "", "a.shops.example", true}, {set, "", "shops.example", false}, {set, "", "bank.example", false},
		{&policy.Sender{}, "", "customer.example", false}, {&policy.Sender{}, "customer.example", "customer.example", true},
		{&policy.Sender{}, "a@Customer.example", "customer.example", true}, {&policy.Sender{}, "a@customer.example", "x.customer.example", false},
	} {
		if got := MaySign(c.set, c.login, c.domain); got != c.want {
			t.Errorf("%q may sign as %s: %t", c.login, c.domain, got)
		}
	}
	for header, want := range map[string]string{
		"From: a@Customer.example\r\n\r\n": "customer.example", "From: A <a@bücher.example>\r\n\r\n": "xn--bcher-kva.example", "Subject: x\r\n\r\n": "",
		"From: a@x.example, b@y.example\r\n\r\n": "", "From: a@x.example\r\nFrom: a@x.example\r\n\r\n": "", "From: undisclosed:;\r\n\r\n": "",
	} {
		if got, err := AuthorDomain([]byte(header)); got != want || (err == nil) != (want != "") {
			t.Errorf("%q is of %q, %v", header, got, err)
		}
	}
}

// TestSignedHereDoesNotFail: DMARC's failure is not foretold of what is signed on its way out.
func TestSignedHereDoesNotFail(t *testing.T) {
	t.Parallel()
	r := NewRules(&fixed{policy.Settings{Sender: policy.Sender{DMARC: policy.DMARCRefuse}}}, &fakeDNS{txt: map[string]string{"_dmarc.reject.example": "v=DMARC1; p=reject"}})
	m := letter("a@web.host.example", "From: a@reject.example\r\n\r\n")
	if got := at(r, filter.Data, m); got != "DMARC 5.7.1" {
		t.Errorf("unsigned: %q", got)
	}
	r.Signs = func(user uint32, login, domain string) bool { return user == 7 && domain == "reject.example" }
	if got := at(r, filter.Data, m); got != "" {
		t.Errorf("signed here: %q", got)
	}
	if got := at(r, filter.Data, letter("a@web.host.example", "From: a@x.reject.example\r\n\r\n")); got != "DMARC 5.7.1" {
		t.Errorf("of a domain without a key: %q", got)
	}
}
