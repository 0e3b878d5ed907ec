package policy

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMailboxesAreCompared(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"Office@Customer.EXAMPLE": "office@customer.example", "a+news@customer.example": "a@customer.example", "+a@customer.example": "+a@customer.example",
		"prvs=0123456789=a@customer.example": "a@customer.example", "prvs=x@customer.example": "prvs=x@customer.example", "Ä@bücher.example": "ä@xn--bcher-kva.example",
		"a@XN--bcher-kva.example": "a@xn--bcher-kva.example", "a@customer.example.": "a@customer.example", "o'neil@customer.example": "o'neil@customer.example",
		"": "", "a": "", "@customer.example": "", "a@": "", "a@localhost": "", "a@[192.0.2.1]": "", "a b@customer.example": "", "\"a\"@customer.example": "",
		"a@b@customer.example": "", "a,b@customer.example": "", "a@customer..example": "", "a\x00@customer.example": "", "\xff@customer.example": "", "a@cust,omer.example": "",
		strings.Repeat("a", 300) + "@customer.example": "", "a@" + strings.Repeat("a.", 130) + "example": "", "\u202ea@customer.example": "",
	} {
		got, ok := AppendMailbox([]byte("before "), in)
		if ok != (want != "") || string(got) != "before "+want {
			t.Errorf("%q is %q, %v, want %q", in, got, ok, want)
		}
		if again, ok := AppendMailbox(nil, want); want != "" && (!ok || string(again) != want) {
			t.Errorf("%q does not stay: %q", want, again)
		}
	}
}

func TestMailboxSettings(t *testing.T) {
	t.Parallel()
	var o Overrides
	for key, text := range map[string]string{"require_from_mailbox": "found", "from_mailboxes": "b@customer.example, A+x@customer.example b@customer.example", "from_mailboxes_learnt_until": "2027-01-31"} {
		if err := o.Set(key, text); err != nil {
			t.Fatal(err)
		}
	}
	s := o.Apply(Default()).Sender
	if s.Mailbox != FoundMailbox || !slices.Equal(*s.Mailboxes, []string{"a@customer.example", "b@customer.example"}) || !s.Mailboxes.Has([]byte("b@customer.example")) || s.Mailboxes.Has([]byte("c@customer.example")) {
		t.Errorf("%+v %v", s, *s.Mailboxes)
	}
	last := time.Date(2027, 1, 31, 23, 59, 59, 0, time.UTC)
	if s.LearnUntil.Before(last) || !s.LearnUntil.Before(last.Add(time.Second)) || s.LearnUntil.String() != "2027-01-31" {
		t.Errorf("it is learnt until %s", s.LearnUntil)
	}
	for key, text := range map[string]string{"require_from_mailbox": "some", "from_mailboxes": "customer.example", "from_mailboxes_learnt_until": "31.1.2027"} {
		if err := o.Set(key, text); err == nil {
			t.Errorf("%s=%s is taken", key, text)
		}
	}
}
