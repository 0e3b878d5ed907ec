package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"sluice/cmd/internal/api"
	"sluice/intercept/control"
	"sluice/proxy/spool"
)

// opened opens listening sockets on loopback for a configuration that names them.
func opened(t *testing.T, kinds ...string) (config string, at []netip.AddrPort, files []*os.File) {
	t.Helper()
	config = "[smarthost]\nname = \"smtp.gw.example\"\nsessions_per_source = 2\n"
	for _, kind := range kinds {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		t.Cleanup(func() { f.Close() })
		a := l.Addr().(*net.TCPAddr).AddrPort()
		config += fmt.Sprintf("[[smarthost.listener]]\naddress = %q\n%s\n", a, kind)
		at, files = append(at, a), append(files, f)
	}
	return config, at, files
}

// kept lists what the spool holds.
func (g *gateway) kept() (all []*spool.Lease) {
	g.t.Helper()
	var ids []spool.ID
	g.daemon.mail.spool.Each(0, func(d *spool.Delivery) bool {
		ids = append(ids, d.ID)
		return true
	})
	for _, id := range ids {
		l, err := g.daemon.mail.spool.Look(id)
		if err != nil {
			g.t.Fatal(err)
		}
		all = append(all, l)
	}
	return all
}

// TestTheSmarthost takes mail of those who log in, and of nobody else, and has it on disk before it says so.
func TestTheSmarthost(t *testing.T) {
	t.Parallel()
	config, at, files := opened(t, `tls = "starttls"`, `tls = "implicit"`, "trusted = [\"127.0.0.0/8\"]")
	g := newGateway(t, "[[user]]\nname = \"alice\"\nprefixes = [\"192.0.2.0/24\"]\n"+config)
	g.start()
	for i, f := range files {
		if err := g.daemon.takeHouse(control.HouseName(at[i]), f); err != nil {
			t.Fatal(err)
		}
	}
	var made api.MadeLogin
	if err := g.api.Do(t.Context(), "POST", "/v1/logins", api.NewLogin{Name: "customer.example", User: "alice"}, &made); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("smtp.gw.example port %d, STARTTLS", at[0].Port()); made.Servers[0] != want {
		t.Errorf("the customer is told %q, want %q", made.Servers, want)
	}
	insecure := &tls.Config{InsecureSkipVerify: true}
	dial := []func() (*smtp.Client, error){
		func() (*smtp.Client, error) { return smtp.DialStartTLS(at[0].String(), insecure) },
		func() (*smtp.Client, error) { return smtp.DialTLS(at[1].String(), insecure) },
	}
	for i, d := range dial {
		c, err := d()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Auth(sasl.NewPlainClient("", made.Name, made.Password)); err != nil {
			t.Fatal(err)
		}
		for _, to := range []string{"b@sink.example", "c@other.example"} {
			if err := c.SendMail("a@customer.example", []string{to}, strings.NewReader(ham)); err != nil {
				t.Errorf("listener %d, %s: %v", i, to, err)
			}
		}
		var e *smtp.SMTPError
		if err := c.Mail("a@elsewhere.example", nil); !errors.As(err, &e) || e.Code != 550 {
			t.Errorf("another sender: %v", err)
		}
		if err := c.Quit(); err != nil {
			t.Error(err)
		}
	}
	if ms := g.logged("user=alice&status=queued", 4); len(ms) != 4 {
		t.Errorf("%d lines in the log", len(ms))
	}
	all := g.kept()
	if len(all) != 4 {
		t.Fatalf("%d deliveries are kept, want 4", len(all))
	}
	l := all[0]
	b, err := l.Body()
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
	b.Release()
	if err != nil || !strings.HasPrefix(string(text), "Received: from ") || !strings.Contains(string(text), "with ESMTPSA") || l.Envelope.UserName != "alice" ||
		l.Envelope.Identity != "customer.example" || !l.Envelope.Verified || l.Envelope.From != "a@customer.example" {
		t.Errorf("kept %+v: %q, %v", l.Envelope, text, err)
	}
	stranger, err := smtp.Dial(at[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	if err := stranger.Mail("a@customer.example", nil); err != nil {
		t.Error(err)
	}
	var e *smtp.SMTPError
	if err := stranger.Rcpt("b@sink.example", nil); !errors.As(err, &e) || e.Code != 550 || e.EnhancedCode != (smtp.EnhancedCode{5, 7, 1}) {
		t.Errorf("a stranger's recipient: %v", err)
	}
	c, err := smtp.Dial(at[2].String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SendMail("a@anywhere.example", []string{"b@sink.example"}, strings.NewReader(ham)); err != nil {
		t.Errorf("from a trusted address: %v", err)
	}
	g.logged("user=127.0.0.1/32&status=queued", 1)
	over, err := net.Dial("tcp", at[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer over.Close()
	again, err := net.Dial("tcp", at[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	buf := make([]byte, 200)
	if n, err := again.Read(buf); err != nil || !strings.HasPrefix(string(buf[:n]), "421 4.7.0 gw.example: Too many concurrent SMTP connections from this IP address") {
		t.Errorf("one session too many: %q, %v", buf[:n], err)
	}
	over.Close()
	again.Close()
	g.end()
	if copies := g.daemon.houses; len(copies) != 3 {
		t.Errorf("%d listeners", len(copies))
	}
	g.start()
	defer g.end()
	if n := len(g.kept()); n != 5 {
		t.Errorf("after a restart %d deliveries are kept, want 5", n)
	}
}
