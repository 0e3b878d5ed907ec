//go:build labtest

package lab

import (
	"fmt"
	"slices"
	"sync"
	"testing"
)

// TestStockPostfixDefersNothing: 300 messages to 30 domains become due at once on a Postfix that nobody configured, which
// then opens as many connections as it likes.
func TestStockPostfixDefersNothing(t *testing.T) {
	t.Parallel()
	const messages = 300
	ctx, l := testContext(t), ForTest(t, Options{})
	startGateway(t, l, "")
	if err := l.Sink("sink").Script("data: stall 100ms | ok"); err != nil {
		t.Fatal(err)
	}
	m, err := l.Postfix(ctx, "alice", "header_checks=static:HOLD")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	failed := make([]error, 10)
	for w := range failed {
		wg.Go(func() {
			for i := w; i < messages && failed[w] == nil; i += len(failed) {
				failed[w] = m.Send(ctx, Mail{From: "a@alice.example", To: []string{fmt.Sprintf("u%03d@d%02d.example", i, i%Domains+1)}, Data: letter("alice", fmt.Sprint(i))})
			}
		})
	}
	wg.Wait()
	for _, err := range failed {
		if err != nil {
			t.Fatal(err)
		}
	}
	// sendmail only drops a message; Postfix picks it up and gives it another id.
	for held := 0; held != messages; {
		all, err := m.Queue(ctx)
		if err != nil {
			t.Fatal(err)
		}
		held = 0
		for _, e := range all {
			if e.Queue == "hold" {
				held++
			}
		}
		if err := sleep(ctx, logPoll); err != nil {
			t.Fatalf("%d of %d messages are held: %v", held, messages, err)
		}
	}
	if out, err := m.Exec(ctx, "/usr/sbin/postsuper", "-H", "ALL"); err != nil || out.Code != 0 {
		t.Fatal(err, out.Stderr)
	}
	if err := m.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	tried, err := m.WaitDeliveries(ctx, func(all []Delivery) bool { return len(all) >= messages })
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range tried {
		if d.Status != Sent {
			t.Errorf("%s is %s: %s", d.To, d.Status, d.Text)
		}
	}
	var arrived []string
	for _, m := range l.Sink("sink").Messages() {
		arrived = append(arrived, m.Recipients()...)
		if !DeliveryV4.Contains(m.Peer.Addr().Unmap()) && !DeliveryV6.Contains(m.Peer.Addr()) {
			t.Errorf("a message came from %v: Sluice was not in the path", m.Peer)
		}
	}
	slices.Sort(arrived)
	if n := len(slices.Compact(arrived)); n != messages || len(arrived) != messages {
		t.Errorf("%d of %d messages arrived, %d copies", n, messages, len(arrived))
	}
}
