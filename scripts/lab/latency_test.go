//go:build labtest

package lab

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// farConfig is the usual configuration where bob's mail is only forwarded.
var farConfig = strings.Replace(GatewayConfig, `name = "{{.Name}}"`, `name = "{{.Name}}"{{if eq .Name "bob"}}
mode = "pass"{{end}}`, 1) + `
[limits]
messages_per_hour = 0
recipients_per_hour = 0
`

// TestFasterThanDirect: with 50 ms to the destination a client with one message, pipelined or one command after the other, finishes in
// half the time of a direct one when there was mail to that destination a moment ago, and no later than 1.1 times it when
// nothing is known of the destination (DEL13). SLUICE_LATENCY=full prints the whole table.
func TestFasterThanDirect(t *testing.T) {
	t.Parallel()
	far, samples := []time.Duration{50 * time.Millisecond}, 10
	if os.Getenv("SLUICE_LATENCY") == "full" {
		far, samples = []time.Duration{0, 10 * time.Millisecond, 50 * time.Millisecond, 150 * time.Millisecond}, 50
	}
	ctx := testContext(t)
	l := ForTest(t, Options{})
	startGatewayWith(t, l, farConfig)
	d, err := l.Delay(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.ip6or4(ctx, "-6 route replace local 2001:db8:100::/64 dev lo"); err != nil {
		t.Fatal(err)
	}
	if err := l.Sysctl(HostInternet, "ipv6/ip_nonlocal_bind", "1"); err != nil {
		t.Fatal(err)
	}
	t.Logf("%8s %6s %-10s %9s %9s %9s %7s %7s", "distance", "legs", "client", "direct", "cold", "warm", "cold", "warm")
	last := 1000
	unknown := func(tls bool) []string { // destinations of which nothing is known
		to := make([]string, samples)
		if err := l.In(HostInternet, func() error {
			for i := range to {
				last++
				mx := MX{Name: fmt.Sprintf("far%d", last), Last: last, Only: "6", Sink: SinkOptions{TLS: tls}}
				to[i] = fmt.Sprintf("[%s]:25", mx.V6())
				if err := l.startSink(mx); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return to
	}
	for _, wait := range far {
		for _, c := range []struct{ tls, piped bool }{{false, false}, {true, false}, {false, true}, {true, true}} {
			to := unknown(c.tls)
			d.Set(wait)
			direct := l.finish(ctx, t, "bob", to, c.tls, c.piped)
			cold := l.finish(ctx, t, "alice", to, c.tls, c.piped)
			warm := l.finish(ctx, t, "alice", to, c.tls, c.piped)
			legs, client := map[bool]string{true: "TLS", false: "plain"}[c.tls], map[bool]string{true: "pipelined", false: "lock-step"}[c.piped]
			t.Logf("%8v %6s %-10s %9v %9v %9v %6.2fx %6.2fx", wait, legs, client, direct, cold, warm, ratio(cold, direct), ratio(warm, direct))
			if wait != 50*time.Millisecond {
				continue
			}
			least := ratio(warm, direct)
			for tries := 0; least > 0.5 && tries < 3; tries++ { // a busy machine adds to both, and is asked again
				again := l.finish(ctx, t, "bob", to, c.tls, c.piped)
				least = min(least, ratio(l.finish(ctx, t, "alice", to, c.tls, c.piped), again))
			}
			if least > 0.5 {
				t.Errorf("at %v over %s legs, warm, %s: %.2f times direct", wait, legs, client, least)
			}
			if c.piped && samples < 50 {
				continue // it is as long: a busy machine is not asked
			}
			least = ratio(cold, direct)
			for tries := 0; least > 1.1 && tries < 3; tries++ {
				others := unknown(c.tls)
				again := l.finish(ctx, t, "bob", others, c.tls, c.piped)
				least = min(least, ratio(l.finish(ctx, t, "alice", others, c.tls, c.piped), again))
			}
			if least > 1.1 {
				t.Errorf("at %v over %s legs, cold, %s: %.2f times direct", wait, legs, client, least)
			}
		}
	}
}

func ratio(a, b time.Duration) float64 { return float64(a) / float64(b) }

// finish sends one message to each destination, each in a session of its own, and returns the median time from the
// connection to the answer to QUIT.
func (l *Lab) finish(ctx context.Context, t *testing.T, host string, to []string, tls, piped bool) time.Duration {
	t.Helper()
	times := make([]time.Duration, len(to))
	var wg sync.WaitGroup
	room := make(chan struct{}, 10)
	for i := range to {
		wg.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			start := time.Now()
			if err := l.oneMessage(ctx, host, to[i], tls, piped); err != nil {
				t.Errorf("%s to %s: %v", host, to[i], err)
			}
			times[i] = time.Since(start)
		})
	}
	wg.Wait()
	slices.Sort(times)
	return times[len(times)/2].Round(100 * time.Microsecond)
}

// oneMessage is a whole session with one message.
func (l *Lab) oneMessage(ctx context.Context, host, to string, tls, piped bool) error {
	c, err := l.Hello(ctx, host, "", to)
	if err != nil {
		return err
	}
	if tls {
		if _, err := c.StartTLS(); err != nil {
			return err
		}
		if r, err := c.Cmd("EHLO mail." + host + ".example"); err != nil || r.Code != 250 {
			return fmt.Errorf("EHLO under TLS: %v %w", r, err)
		}
	}
	body := []byte("Subject: far away\r\n\r\nhello\r\n")
	envelope := []string{"MAIL FROM:<a@" + host + ".example>", "RCPT TO:<u@far.example>", "DATA"}
	if piped {
		if _, err := c.Write([]byte(strings.Join(envelope, "\r\n") + "\r\n")); err != nil {
			return err
		}
	}
	for i, line := range envelope {
		r, err := Reply{}, error(nil)
		if piped {
			r, err = c.Reply()
		} else {
			r, err = c.Cmd(line)
		}
		if want := []int{250, 250, 354}[i]; err != nil || r.Code != want {
			return fmt.Errorf("%s: %v %w", line, r, err)
		}
	}
	if _, err := c.Write(Stuff(body)); err != nil {
		return err
	}
	if r, err := c.Reply(); err != nil || r.Code != 250 {
		return fmt.Errorf("the message: %v %w", r, err)
	}
	return c.Quit()
}
