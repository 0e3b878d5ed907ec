package proxy

import "testing"

func TestUnknownRecipients(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		code int
		text string
		want bool
	}{
		{550, "5.1.1 <x@sink.example>: Recipient address rejected: User unknown in local recipient table", true},
		{550, "5.1.2 bad destination system", true},
		{550, "5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup", true},
		{550, "no such user here", true},
		{550, "Requested action not taken: mailbox unavailable", false}, // or access was denied
		{550, "5.7.1 user unknown to our policy, access denied", false},
		{550, "5.7.1 no such user", false},
		{550, "5.2.1 mailbox disabled", false},
		{550, "5.2.2 mailbox full", false},
		{550, "5.1.7 bad sender address", false},
		{550, "5.1.8 bad sender's system address", false},
		{550, "spam is not wanted here", false},
		{554, "no such user", true},
		{450, "4.1.1 user unknown", false},
		{451, "greylisted", false},
	} {
		if got := unknownRecipient(c.code, c.text); got != c.want {
			t.Errorf("%d %s: %t", c.code, c.text, got)
		}
	}
}
