//go:build labtest

package lab

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
)

// TestContainmentOnRealSockets: a web shop of alice's is broken into and sends spam as fast as it can, of which the filter
// finds nine in ten, while her office and two other customers send good mail. What escaped is counted at the MX: at most
// five before the shop is locked; nobody else is, and all good mail arrives.
func TestContainmentOnRealSockets(t *testing.T) {
	t.Parallel()
	const spams, goods, most = 60, 12, 5
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, identityConfig)
	send := func(host, identity, to, text string) (string, error) {
		c, err := l.Hello(ctx, host, "", "198.51.100.20:25")
		if err != nil {
			return "", err
		}
		defer c.Close()
		_, last, err := c.Send(identity+"@"+host+".example", []string{to}, fmt.Appendf(nil, "X-AuthUser: %s\r\nSubject: %s\r\n\r\n%s\r\n", identity, to, text))
		return last.String(), err
	}
	var all sync.WaitGroup
	defer all.Wait()
	for _, s := range []struct{ host, identity string }{{"alice", "office"}, {"bob", "list"}, {"dave", "shop"}} {
		all.Go(func() {
			for i := range goods {
				to := fmt.Sprintf("good-%s-%d@sink.example", s.host, i)
				if got, err := send(s.host, s.identity, to, fmt.Sprintf("the minutes of meeting %d", i)); err != nil || !strings.HasPrefix(got, "250 ") {
					t.Errorf("good mail to %s hears %q, %v", to, got, err)
				}
			}
		})
	}
	rnd, accepted, found, lockedAfter := rand.New(rand.NewPCG(1, 7)), 0, 0, 0
	for i := range spams {
		text := fmt.Sprintf("cheap watches, offer %d, code %x", i, rnd.Uint64())
		if i > 0 && rnd.IntN(10) > 0 { // the first is one that the filter misses
			text += "\r\n" + gtubeText
			found++
		}
		got, err := send("alice", "shop", fmt.Sprintf("victim-%d@sink.example", i), text)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case strings.HasPrefix(got, "250 "):
			accepted++
		case lockedAfter == 0 && strings.Contains(got, "[LOCKED]"):
			lockedAfter = i + 1
		}
	}
	all.Wait()
	if found < spams*8/10 || found == spams {
		t.Fatalf("%d of %d spam messages would be found, want about nine in ten", found, spams)
	}
	if _, err := l.Sink("sink").WaitMatch(ctx, func(ms []*Message) bool { return strings.Count(subjects(ms), "good-") >= 3*goods }); err != nil {
		t.Errorf("good mail is missing at the MX: %v", err)
	}
	arrived := subjects(l.Sink("sink").Messages())
	escaped := strings.Count(arrived, "victim-")
	t.Logf("%d spam messages, %d of them found; %d escaped, the first that was held up by the lock was number %d", spams, found, escaped, lockedAfter)
	if escaped == 0 || escaped > most || escaped != accepted {
		t.Errorf("%d spam messages escaped, and the sender was told so of %d; want at least the first and at most %d", escaped, accepted, most)
	}
	for _, host := range []string{"alice", "bob", "dave"} {
		if n := strings.Count(arrived, "good-"+host+"-"); n != goods {
			t.Errorf("%d of %d good messages of %s arrived", n, goods, host)
		}
	}
	var locks []scopeLock
	if err := sluiceJSON(ctx, g, &locks, "locks"); err != nil || len(locks) != 1 || locks[0].User != "alice" || locks[0].Identity != "shop" {
		t.Errorf("locked are %+v, %v; want the shop alone", locks, err)
	}
}

// subjects are those of messages, one a line.
func subjects(ms []*Message) string {
	var b strings.Builder
	for _, m := range ms {
		for line := range strings.Lines(string(m.Data)) {
			if s, ok := strings.CutPrefix(line, "Subject: "); ok {
				b.WriteString(s)
				break
			}
		}
	}
	return b.String()
}
