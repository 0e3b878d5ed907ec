package proxy

import meaning "sluice/filter/reputation/replies"

// unknownRecipient tells whether a destination's reply to RCPT means that the recipient, or his domain, is not there
// (LIM3); a refusal by policy (5.7) never does.
func unknownRecipient(code int, text string) bool {
	return code/100 == 5 && meaning.Shipped().Classify(meaning.Recipient, code, text) == meaning.Unknown
}
