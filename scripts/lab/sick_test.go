//go:build labtest

package lab

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// wilful is a gateway where mallory wants her mail to go whatever happens to those who are asked about it, and dave his to wait.
var wilful = strings.Replace(GatewayConfig, `name = "{{.Name}}"`, `name = "{{.Name}}"{{if eq .Name "mallory"}}
content = { failure = "go-on" }{{end}}{{if eq .Name "dave"}}
content = { failure = "defer" }{{end}}`, 1)

// reconfigure puts a configuration beside wilful's into force, and returns where the text log was before.
func reconfigure(ctx context.Context, t *testing.T, g *Gateway, more string) (mark int) {
	t.Helper()
	if err := g.Configure(wilful, more); err != nil {
		t.Fatal(err)
	}
	mark = logSize(t, g.Sluiced)
	if err := g.Reload(); err != nil {
		t.Fatal(err)
	}
	if _, err := waitLogAfter(ctx, g.Sluiced, mark, "configuration reloaded"); err != nil {
		t.Fatal(err)
	}
	return mark
}

// answered sends mail while those who are asked about it are sick: alice's hears want, that of who has a setting what it says, and what
// another check refuses is refused.
func answered(ctx context.Context, t *testing.T, l *Lab, when, want string, n *atomic.Int64) {
	t.Helper()
	gtube := plainMail("x", "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X")
	for _, c := range []struct{ host, mail, want string }{
		{"alice", plainMail("minutes", "are attached"), want}, {"mallory", plainMail("minutes", "are attached"), "250 "}, {"dave", plainMail("minutes", "are attached"), "451 4.3.0 "},
		{"bob", gtube, "550 5.7.1 gw.example: [GTUBE]"},
	} {
		got, err := sendOne(ctx, l, c.host, "a@"+c.host+".example", fmt.Sprintf("m%d@sink.example", n.Add(1)), c.mail)
		if err != nil || !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %s hears %q, %v, want %q", when, c.host, got, err, c.want)
		}
	}
}

// serveEach has a peer serve each connection to an address of a host, until the test ends.
func serveEach(t *testing.T, l *Lab, host, address string, session func(net.Conn)) {
	t.Helper()
	ln, err := l.Listen(host, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return // closed
			}
			go func() { defer c.Close(); session(c) }()
		}
	}()
}

// sickPeers are programs that fail, on the gateway: one takes all and answers after 30 s, one talks nonsense.
func sickPeers(t *testing.T, l *Lab) (slow, garbage string) {
	t.Helper()
	slow, garbage = "127.0.0.1:7001", "127.0.0.1:7002"
	serveEach(t, l, HostGateway, slow, func(c net.Conn) {
		_ = c.SetReadDeadline(time.Now().Add(30 * time.Second)) // a failure ends the copying
		_, _ = io.Copy(io.Discard, c)
		_, _ = io.WriteString(c, "stream: OK\x00")
	})
	serveEach(t, l, HostGateway, garbage, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1))
		_, _ = io.WriteString(c, "\x00\x00\x00\x09?garbage\x00\r\n\r\n")
		_, _ = io.Copy(io.Discard, c)
	})
	return slow, garbage
}

// TestEveryMessageIsAnswered: with plug-ins of each kind that are dead, slow or talk nonsense, each message is delivered,
// deferred with 451 4.3.0 or refused by another check, as the setting says; other users' settings hold for them.
func TestEveryMessageIsAnswered(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	slow, garbage := sickPeers(t, l)
	const dead = "127.0.0.1:7003"
	timeout := `timeout = "300ms"`
	if os.Getenv("SLUICE_SOAK") != "" {
		timeout = "" // as it is by itself, so that a slow one is waited for
	}
	config := func(address, failure string) string {
		var b strings.Builder
		b.WriteString("[content]\nlearned = \"never\"\n")
		for _, kind := range []string{"clamd", "rspamd", "spamd", "milter"} {
			fmt.Fprintf(&b, "[[plugin]]\nname = %q\nkind = %q\naddress = [%q]\nfailure = %q\n%s\n", kind, kind, address, failure, timeout)
		}
		return b.String()
	}
	g := startGatewayWith(t, l, wilful)
	var n atomic.Int64
	for _, address := range []string{dead, slow, garbage} {
		for failure, want := range map[string]string{"defer": "451 4.3.0 ", "go-on": "250 "} {
			mark := reconfigure(ctx, t, g, config(address, failure))
			answered(ctx, t, l, address+", "+failure, want, &n)
			if address == dead {
				if _, err := waitLogAfter(ctx, g.Sluiced, mark, "a plug-in does not answer"); err != nil {
					t.Errorf("nobody is alarmed: %v", err)
				}
			}
		}
	}
	silent := map[string]int{} // messages about which a program said nothing, by its kind
	var log []struct {
		Hits []struct{ Code, Evidence string }
	}
	if err := sluiceJSON(ctx, g, &log, "log"); err != nil {
		t.Fatal(err)
	}
	for _, m := range log {
		for _, h := range m.Hits {
			if kind, _, _ := strings.Cut(h.Evidence, ": "); h.Code == "UNCHECKED" {
				silent[kind]++
			}
		}
	}
	if want := map[string]int{"clamd": 6 * 4, "rspamd": 6 * 3, "spamd": 6 * 3, "milter": 6 * 3}; !maps.Equal(silent, want) { // of spam only a scanner is asked
		t.Errorf("the log says that nothing was heard of %v, want %v", silent, want)
	}
	reconfigure(ctx, t, g, "")
	if got, err := sendOne(ctx, l, "dave", "a@dave.example", "none@sink.example", plainMail("minutes", "without any")); err != nil || !strings.HasPrefix(got, "250 ") {
		t.Errorf("not configured is not dead: %q, %v", got, err)
	}
}

// TestSickDNSLists: with a list by DNS that is gone, whose servers never answer, or that answers nonsense to everything, each message is
// delivered, deferred with 451 4.3.0 or refused by another check, as the setting says; none is refused by such a list.
func TestSickDNSLists(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	var silent net.PacketConn // takes all questions
	if err := l.In(HostInternet, func() (err error) {
		silent, err = net.ListenPacket("udp4", "127.0.0.1:7053")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if err := l.sayAlso(ctx, "server=/slow.example/127.0.0.1#7053\naddress=/nonsense.example/203.0.113.80\naddress=/all.example/127.0.0.2\n"); err != nil {
		t.Fatal(err)
	}
	g := startGatewayWith(t, l, wilful)
	var n atomic.Int64
	for _, zone := range []string{"gone", "slow", "nonsense", "all"} {
		for failure, want := range map[string]string{"defer": "451 4.3.0 ", "go-on": "250 "} {
			mark := reconfigure(ctx, t, g, fmt.Sprintf("[content]\nlearned = \"never\"\n[[dnslist]]\nname = %[1]q\nzone = \"%[1]s.example\"\nof = \"source\"\nrefuse = [\"127.0.0.2\"]\nfailure = %[2]q\ntimeout = \"300ms\"\n", zone, failure))
			untilOpinions(ctx, t, g, func(st *opinionStatus) bool {
				return len(st.DNSLists) == 1 && st.DNSLists[0].Name == zone && st.DNSLists[0].State == "out" && st.DNSLists[0].Error != ""
			})
			if _, err := waitLogAfter(ctx, g.Sluiced, mark, "a list by DNS was taken out"); err != nil {
				t.Errorf("nobody is alarmed: %v", err)
			}
			answered(ctx, t, l, zone+", "+failure, want, &n)
		}
	}
	reconfigure(ctx, t, g, "")
	if got, err := sendOne(ctx, l, "dave", "a@dave.example", "none@sink.example", plainMail("minutes", "without any")); err != nil || !strings.HasPrefix(got, "250 ") {
		t.Errorf("not configured is not dead: %q, %v", got, err)
	}
}
