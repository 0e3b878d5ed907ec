//go:build labtest

package lab

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// sealed stands in every address and body of what a client says under TLS, open in what it says in plain text.
const (
	sealed = "sealed-"
	open   = "open-"
)

// whim is one client's session, its choices made beforehand, so that a seed gives the same clients again.
type whim struct {
	host, to string
	n        int
	plain    bool // does not ask for TLS
	version  uint16
	mails    int
	rnd      *rand.Rand
}

// played is what came of it.
type played struct{ encrypted, refused, taken atomic.Int64 }

// play leads the session. Whatever goes wrong is part of the game.
func (w *whim) play(ctx context.Context, l *Lab, got *played) error {
	c, err := l.SMTP(ctx, w.host, "", w.to)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return nil
	}
	defer func() { _ = c.Close() }()
	r, err := c.Cmd("EHLO " + w.host + ".example")
	if err != nil || r.Code != 250 {
		return nil
	}
	word := open
	if !w.plain && strings.Contains(r.Raw, "STARTTLS") {
		if r, err = c.Cmd("STARTTLS"); err != nil || r.Code == 421 {
			return nil
		}
		if r.Code == 220 {
			t := tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true, MaxVersion: w.version})
			if t.SetDeadline(time.Now().Add(time.Minute)) != nil || t.Handshake() != nil {
				return nil
			}
			c.Conn, c.in, word = t, bufio.NewReader(t), sealed
			got.encrypted.Add(1)
			if r, err = c.Cmd("EHLO " + w.host + ".example"); err != nil || r.Code != 250 {
				return nil
			}
		}
	}
	for i := range w.mails {
		if !w.mail(c, fmt.Sprintf("%s%d-%d", word, w.n, i), got) {
			return nil
		}
	}
	_, _ = c.Cmd("QUIT") // it may have left
	return nil
}

// mail is one transaction, or a part of one; false ends the session.
func (w *whim) mail(c *Client, name string, got *played) bool {
	say := func(line string) (int, bool) {
		r, err := c.Cmd(line)
		if r.Code == 451 && strings.Contains(r.Raw, "4.7.5") {
			got.refused.Add(1)
		}
		return r.Code, err == nil && r.Code != 421
	}
	if _, ok := say("MAIL FROM:<" + name + "@" + w.host + ".example>"); !ok {
		return false
	}
	for range 1 + w.rnd.IntN(3) {
		if _, ok := say("RCPT TO:<" + name + "@fickle.example>"); !ok {
			return false
		}
	}
	switch w.rnd.IntN(12) {
	case 0:
		_, ok := say("RSET")
		return ok
	case 1:
		return false // gone
	case 2:
		if _, ok := say("NOOP"); !ok {
			return false
		}
	}
	text := "Subject: " + name + "\r\n\r\n" + strings.Repeat(name+"\r\n", 1+w.rnd.IntN(200))
	if w.rnd.IntN(4) == 0 {
		r, err := c.Cmd(fmt.Sprintf("BDAT %d LAST\r\n%s", len(text), strings.TrimSuffix(text, "\r\n")))
		if err == nil && r.Code == 250 {
			got.taken.Add(1)
		}
		return err == nil && r.Code != 421
	}
	code, ok := say("DATA")
	if !ok || code != 354 {
		return ok
	}
	if w.rnd.IntN(20) == 0 {
		_, _ = io.WriteString(c.Conn, text) // and gone within the body
		return false
	}
	if code, ok = say(text + "."); code == 250 {
		got.taken.Add(1)
	}
	return ok
}

// TestNeverPlainAfterSTARTTLS: in randomised sessions of clients who encrypt and of others, to destinations whose STARTTLS
// changes with each connection, with policies of all kinds, a capture before the destinations finds nothing in plain text
// of what a client said under TLS. A failure names the seed. SLUICE_SOAK_SESSIONS asks for another number of encrypted
// sessions.
func TestNeverPlainAfterSTARTTLS(t *testing.T) {
	t.Parallel()
	want, seed := 500, uint64(time.Now().UnixNano())
	if n, err := strconv.Atoi(os.Getenv("SLUICE_SOAK_SESSIONS")); err == nil {
		want = n
	}
	if n, err := strconv.ParseUint(os.Getenv("SLUICE_SEED"), 10, 64); err == nil {
		seed = n
	}
	ctx := testContext(t)
	l := ForTest(t, Options{})
	var targets []string
	var addrs []string
	for i := range 24 {
		v4, v6 := fmt.Sprintf("198.51.100.%d", 160+i), fmt.Sprintf("2001:db8:100::1:%x", 160+i)
		addrs = append(addrs, "addr add "+v4+"/32 dev lo", "addr add "+v6+"/128 dev lo nodad")
		targets = append(targets, netip.AddrPortFrom(netip.MustParseAddr(v4), 25).String(), netip.AddrPortFrom(netip.MustParseAddr(v6), 25).String())
	}
	if err := l.ip(ctx, HostInternet, addrs); err != nil {
		t.Fatal(err)
	}
	f := &fickle{lab: l, cert: l.certs, rnd: rand.New(rand.NewPCG(seed, 1))}
	for _, a := range targets {
		ln, err := l.Listen(HostInternet, a)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ln.Close() })
		go f.serve(ln)
	}
	g := startGatewayWith(t, l, strings.Replace(GatewayConfig, "[lock]\nautomatic = true", `[lock]
automatic = false

[limits]
messages_per_hour = 0
recipients_per_hour = 0
connections_per_second = 0
sessions_per_source = 500

[[tls.destination]]
prefix = "198.51.100.160/30"
starttls = "pass"
reason = "a test"

[[tls.destination]]
prefix = "2001:db8:100::1:a0/126"
starttls = "strip"
reason = "a test"`, 1))
	var got played
	rnd, begun := rand.New(rand.NewPCG(seed, 2)), time.Now()
	sessions, heard, packets := 0, 0, 0
	for got.encrypted.Load() < int64(want) && ctx.Err() == nil {
		up, err := l.Capture(ctx, HostInternet, "gw0", "tcp dst port 25")
		if err != nil {
			t.Fatal(err)
		}
		batch := min(want, 500)
		if err := playAll(ctx, l, rnd, sessions, batch, targets, &got); err != nil {
			t.Fatal(err)
		}
		sessions += batch
		if got.encrypted.Load() < int64(want) { // it remembers by now whose TLS is broken, and promises none
			if err := g.RestartSluiced(ctx); err != nil {
				t.Fatal(err)
			}
		}
		ps, err := up.Stop()
		if err != nil {
			t.Fatal(err)
		}
		packets += len(ps)
		for from, text := range streams(ps) {
			if i := bytes.Index(text, []byte(sealed)); i >= 0 {
				t.Errorf("in plain text went, %v: %q", from, text[max(0, i-100):min(len(text), i+100)])
			}
			if bytes.Contains(text, []byte(open)) {
				heard++
			}
		}
		if err := os.Remove(up.Path()); err != nil {
			t.Fatal(err)
		}
		if t.Failed() {
			break
		}
	}
	t.Logf("seed %d: %d sessions in %v, %d of them encrypted by the client; %d transactions ended with 451 4.7.5, %d messages taken; %d onward connections, %d messages under TLS, %d in plain text; %d packets captured, plain text in %d connections",
		seed, sessions, time.Since(begun).Round(time.Second), got.encrypted.Load(), got.refused.Load(), got.taken.Load(), f.conns.Load(), f.delivered.Load(), f.open.Load(), packets, heard)
	if n := f.weak.Load(); n != 0 {
		t.Errorf("seed %d: a destination heard %d lines of encrypted sessions in plain text or under a TLS that is too old", seed, n)
	}
	if got.encrypted.Load() < int64(want) || got.refused.Load() == 0 || got.taken.Load() == 0 || f.open.Load() == 0 || heard == 0 {
		t.Errorf("seed %d: not everything came about", seed)
	}
	if out := sluice(t, g, "status"); !strings.Contains(out, "passed encrypted") {
		t.Errorf("nothing passed encrypted:\n%s", out)
	}
}

// playAll plays a batch of sessions, some at a time.
func playAll(ctx context.Context, l *Lab, rnd *rand.Rand, from, n int, targets []string, got *played) error {
	whims := make(chan *whim)
	errs := make(chan error, 1)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for w := range whims {
				if err := w.play(ctx, l, got); err != nil {
					select {
					case errs <- err:
					default:
					}
				}
			}
		})
	}
	hosts := []string{"alice", "bob", "dave"}
	for i := range n {
		whims <- &whim{n: from + i, host: hosts[rnd.IntN(len(hosts))], to: targets[rnd.IntN(len(targets))], plain: rnd.IntN(5) == 0,
			version: [...]uint16{tls.VersionTLS12, tls.VersionTLS13}[rnd.IntN(2)], mails: 1 + rnd.IntN(3), rnd: rand.New(rand.NewPCG(rnd.Uint64(), 3))}
	}
	close(whims)
	wg.Wait()
	select {
	case err := <-errs:
		return errors.Join(errors.New("a client could not go on"), err)
	default:
		return nil
	}
}

// streams puts together what each connection carried, in the order of its sequence numbers as far as that matters to a
// search: veths do not reorder, and what is sent twice stands there twice.
func streams(ps Packets) map[string][]byte {
	all := map[string][]byte{}
	for _, p := range ps {
		if len(p.Payload) > 0 {
			k := p.Src.String() + " to " + p.Dst.String()
			all[k] = append(all[k], p.Payload...)
		}
	}
	return all
}
