//go:build labtest

package lab

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// testContext ends a minute before the run would be cut off. A test's own bound would be one for its parts' waiting for their
// turn, too, which takes as long as all the other tests on a slow machine.
func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	if end, bounded := t.Deadline(); bounded {
		ctx, cancel = context.WithDeadline(ctx, end.Add(-time.Minute))
	}
	t.Cleanup(cancel)
	return ctx
}

func TestRawDialogueArrivesByteForByte(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	body := []byte(".leading dot\r\n..two\r\nlone \r and \n inside\r\n\x00\x80\xff\r\n" + string(bytes.Repeat([]byte("x"), 5000)) + "\r\n")
	for _, c := range []struct{ laddr, raddr string }{
		{"192.0.2.10", "198.51.100.20:25"},
		{"2001:db8:1::10", "[2001:db8:100::20]:25"},
	} {
		x, err := l.SMTP(ctx, "alice", c.laddr, c.raddr)
		if err != nil {
			t.Fatal(err)
		}
		if r, err := x.Cmd("EHLO mail.alice.example"); err != nil || r.Code != 250 {
			t.Fatal(r, err)
		}
		rcpts, last, err := x.Send("a@alice.example", []string{"u@sink.example", "reject1@sink.example", "defer1@sink.example"}, body)
		if err != nil || last.Code != 250 || rcpts[1].Code != 550 || rcpts[2].Code != 451 {
			t.Fatal(rcpts, last, err)
		}
		if err := x.Quit(); err != nil {
			t.Fatal(err)
		}
	}
	got, err := l.Sink("sink").Wait(ctx, 2)
	if err != nil {
		t.Fatal(err)
	}
	for i, peer := range []string{"192.0.2.10", "2001:db8:1::10"} {
		if !bytes.Equal(got[i].Data, body) {
			t.Errorf("message %d changed on the way:\n%q\n%q", i, got[i].Data, body)
		}
		if got[i].Peer.Addr().String() != peer || len(got[i].Rcpts) != 1 || got[i].Helo != "mail.alice.example" {
			t.Errorf("message %d has the envelope %+v", i, got[i])
		}
	}
}

func TestSwaksFindsItsWay(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	for _, args := range [][]string{
		{"--to", "u@sink.example"},
		{"--to", "u@selfsigned.example", "--tls"},
		{"--to", "u@sink.example", "--server", "2001:db8:100::20", "-6"},
	} {
		out, err := l.Swaks(ctx, "alice", append(args, "--from", "a@alice.example")...)
		if err != nil || out.Code != 0 {
			t.Fatalf("swaks %v: %v %+v", args, err, out)
		}
	}
	if got, err := l.Sink("sink").Wait(ctx, 2); err != nil || got[1].Peer.Addr().String() != "2001:db8:1::10" || got[0].Helo != "mail.alice.example" {
		t.Errorf("%v %+v", err, got)
	}
	if got := l.Sink("selfsigned").Messages(); len(got) != 1 || !got[0].TLS {
		t.Errorf("%+v", got)
	}
	out, err := l.Swaks(ctx, "alice", "--to", "u@tlsonly.example", "--from", "a@alice.example")
	if err != nil || out.Code == 0 || !strings.Contains(out.Stdout, "530 5.7.0") {
		t.Errorf("tlsonly took plaintext: %v %+v", err, out)
	}
}

func TestCaptureCountsAttemptsAndResets(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	up, err := l.Capture(ctx, HostGateway, "up0", "tcp port 25")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		for _, to := range []string{"198.51.100.20:25", "[2001:db8:100::20]:25"} {
			laddr := ""
			if i == 2 && to[0] == '1' {
				laddr = "192.0.2.66:40025"
			}
			c, err := l.SMTP(ctx, "mallory", laddr, to)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Quit(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := l.Dial(ctx, "mallory", "", "198.51.100.41:25"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the dead MX answers %v", err)
	}
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if _, err := l.Dial(short, "mallory", "", "[2001:db8:100::42]:25"); !errors.Is(err, context.DeadlineExceeded) && !os.IsTimeout(err) {
		t.Errorf("the silent MX answers %v", err)
	}
	everything, err := l.Capture(ctx, HostGateway, "cust0", "")
	if err != nil {
		t.Fatal(err)
	}
	if c, err := l.SMTP(ctx, "alice", "", "198.51.100.20:25"); err != nil || c.Reset() != nil {
		t.Error(err)
	}
	if seen, err := everything.Packets(); err != nil || seen.Attempts(To("25")) != 1 {
		t.Errorf("in the middle of a capture: %v %v", seen, err)
	}
	if seen, err := everything.Stop(); err != nil || len(seen.RSTs(From("192.0.2.10"))) == 0 {
		t.Errorf("at the end of a capture: %v %v", seen, err)
	}
	all, err := up.Stop()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name      string
		got, want int
	}{
		{"attempts", all.Attempts(), 9},
		{"attempts over IPv4", all.Attempts(From("192.0.2.66")), 4},
		{"attempts to the sink over IPv6", all.Attempts(To("[2001:db8:100::20]:25"), From("2001:db8:66::/64")), 3},
		{"attempts from the chosen port", all.Attempts(From("192.0.2.66:40025")), 1},
		{"attempts of others", len(all.SYNs(Not(From("192.0.2.66")), Not(From("2001:db8:66::66")))), 1},
		{"resets of the dead MX", len(all.RSTs(From("198.51.100.41"))), 1},
	} {
		if c.got != c.want {
			t.Errorf("%s: %d, not %d", c.name, c.got, c.want)
		}
	}
}

func TestNamesAndLists(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	r := l.Resolver("alice")
	mx, err := r.LookupMX(ctx, "slowfirst.example")
	if err != nil || len(mx) != 2 || mx[0].Host != "mx.dropped.example." || mx[1].Host != "mx.alive.example." {
		t.Errorf("MX %+v %v", mx, err)
	}
	for addr, name := range map[string]string{
		"203.0.113.17": "out17.gw.example.", "2001:db8:203:1::17": "out17.gw.example.", "192.0.2.10": "mail.alice.example.",
	} {
		if got, err := r.LookupAddr(ctx, addr); err != nil || len(got) != 1 || got[0] != name {
			t.Errorf("PTR of %s: %v %v", addr, got, err)
		}
	}
	if txt, err := r.LookupTXT(ctx, "alice.example"); err != nil || len(txt) != 1 || txt[0] != "v=spf1 mx ip4:203.0.113.16/28 ip6:2001:db8:203:1::/64 -all" {
		t.Errorf("SPF %q %v", txt, err)
	}
	name := "66.2.0.192." + DNSList
	if got, err := r.LookupHost(ctx, name); err == nil {
		t.Errorf("listed before its time: %v", got)
	}
	if err := l.List(ctx, "192.0.2.66"); err != nil {
		t.Fatal(err)
	}
	if got, err := r.LookupHost(ctx, name); err != nil || len(got) != 1 || got[0] != "127.0.0.2" {
		t.Errorf("list says %v %v", got, err)
	}
}

func TestLateCustomer(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	err := l.AddCustomer(ctx, Customer{Name: "erin", V4: netip.MustParseAddr("192.0.2.40"), V6: netip.MustParseAddr("2001:db8:40::40")})
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{"198.51.100.20:25", "[2001:db8:100::20]:25"} {
		c, err := l.SMTP(ctx, "erin", "", to)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Quit(); err != nil {
			t.Error(err)
		}
	}
	out, err := l.Exec(ctx, HostGateway, "ip", "-o", "link", "show", "cust4")
	if err != nil || out.Code != 0 {
		t.Errorf("%v %+v", err, out)
	}
}

func TestCustomersReceive(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	m, err := l.Postfix(ctx, "alice")
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{"192.0.2.10:25", "[2001:db8:1::10]:25"} {
		c, err := l.SMTP(ctx, HostInternet, "", to)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Cmd("EHLO mx.sink.example"); err != nil {
			t.Fatal(err)
		}
		if _, last, err := c.Send("u@sink.example", []string{"any@alice.example"}, []byte("Subject: in\r\n\r\nhello\r\n")); err != nil || last.Code != 250 {
			t.Fatal(last, err)
		}
		if err := c.Quit(); err != nil {
			t.Error(err)
		}
	}
	if _, err := m.WaitMailbox(ctx, 2); err != nil {
		t.Error(err)
	}
}
