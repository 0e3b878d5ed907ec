package main

import (
	"testing"

	"sluice/proxy/delivery"
	"sluice/proxy/smtp"
	"sluice/proxy/spool"
)

// TestWhatIsNotDeliveredCounts: a recipient counts as unknown by what the destination's rules for replies say, status code, words
// and what was answered together, never by 5.7.x.
func TestWhatIsNotDeliveredCounts(t *testing.T) {
	t.Parallel()
	one := func(f delivery.Fate, code int, enh smtp.Enhanced, text string, behind bool) delivery.Outcome {
		return delivery.Outcome{Fate: f, Reply: spool.Reply{Code: code, Enh: enh, Text: text}, Behind: behind}
	}
	none := smtp.Enhanced{}
	failed, invalid := undelivered([]delivery.Outcome{
		one(delivery.Delivered, 250, smtp.Enhanced{2, 0, 0}, "ok", true), one(delivery.Deferred, 450, smtp.Enhanced{4, 1, 1}, "no such user", false),
		one(delivery.Failed, 550, smtp.Enhanced{5, 1, 1}, "gone", false), one(delivery.Failed, 550, smtp.Enhanced{5, 1, 10}, "not found", true),
		one(delivery.Failed, 550, none, "no such user here", false), one(delivery.Failed, 550, none, "no such user here", true),
		one(delivery.Failed, 550, smtp.Enhanced{5, 7, 1}, "no such user here", false), one(delivery.Expired, 451, smtp.Enhanced{4, 4, 1}, "timed out", false),
	})
	if failed != 1 || invalid != 3 {
		t.Errorf("%d failed, %d invalid; want 1 and 3", failed, invalid)
	}
}
