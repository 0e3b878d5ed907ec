package main

import (
	"testing"

	"sluice/proxy/delivery"
	"sluice/proxy/smtp"
	"sluice/proxy/spool"
)

func TestWhatIsNotDeliveredCounts(t *testing.T) {
	t.Parallel()
	one := func(f delivery.Fate, enh smtp.Enhanced) delivery.Outcome {
		return delivery.Outcome{Fate: f, Reply: spool.Reply{Enh: enh}}
	}
	failed, invalid := undelivered([]delivery.Outcome{
		one(delivery.Delivered, smtp.Enhanced{2, 0, 0}), one(delivery.Deferred, smtp.Enhanced{4, 1, 1}), one(delivery.Failed, smtp.Enhanced{5, 1, 1}),
		one(delivery.Failed, smtp.Enhanced{5, 1, 10}), one(delivery.Failed, smtp.Enhanced{5, 7, 1}), one(delivery.Expired, smtp.Enhanced{4, 4, 1}),
	})
	if failed != 1 || invalid != 2 {
		t.Errorf("%d failed, %d invalid; want 1 and 2", failed, invalid)
	}
}
