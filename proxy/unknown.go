package proxy

import (
	"strings"

	"sluice/proxy/smtp"
)

// noSuchUser are words by which servers that give no enhanced status code say that a recipient is unknown.
var noSuchUser = []string{
	"user unknown", "unknown user", "no such user", "no such recipient", "recipient unknown", "unknown recipient", "recipient not found",
	"user not found", "mailbox not found", "no mailbox", "no such mailbox", "unknown mailbox", "does not exist",
	"unknown local", "unrouteable address", "invalid recipient", "address unknown", "not a known user",
}

// unknownRecipient tells whether a destination's reply to RCPT means that the recipient, or his domain, is not there
// (LIM3): by the status code where there is one (RFC 3463 3.2), so that no refusal by policy (5.7) counts, else by words.
func unknownRecipient(code int, text string) bool {
	if code/100 != 5 {
		return false
	}
	if enh := smtp.ParseEnhanced([]byte(text)); enh != (smtp.Enhanced{}) {
		if enh[0] != 5 || enh[1] != 1 {
			return false
		}
		switch enh[2] {
		case 1, 2, 3, 6, 10:
			return true
		}
		return false
	}
	if code != 550 && code != 551 && code != 553 {
		return false
	}
	text = strings.ToLower(text)
	for _, words := range noSuchUser {
		if strings.Contains(text, words) {
			return true
		}
	}
	return false
}
