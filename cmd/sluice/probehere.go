package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sluice/cmd/internal/api"
	"sluice/proxy/probe"
)

const (
	probeDomain   = "gmail.com" // has servers of both families that answer everybody
	probePatience = 15 * time.Second
)

// passage is the way of one connection, as its client sees it.
type passage struct {
	Family  string     `json:"family"` // IPv4 or IPv6
	Server  netip.Addr `json:"server"`
	From    netip.Addr `json:"from,omitzero"`
	State   string     `json:"state"` // ok: through a gateway; fail: not through one that intercepts; warn: not proven
	Gateway string     `json:"gateway,omitempty"`
	Text    string     `json:"text"`
}

// probeFromHere needs nothing of this host but its network.
func (p *program) probeFromHere(ctx context.Context, args []string) error {
	b := make([]byte, 12)
	_, _ = rand.Read(b) // never fails
	nonce := hex.EncodeToString(b)
	target := probeDomain
	if len(args) > 0 {
		target = args[0]
	}
	servers, err := mailServers(ctx, target)
	if err != nil {
		return err
	}
	var ways []passage
	for _, s := range servers {
		ways = append(ways, try(ctx, s, nonce))
	}
	good := len(ways) > 0
	for _, w := range ways {
		good = good && w.State == api.OK
	}
	if p.screen.json {
		err = p.screen.writeJSON(map[string]any{"probe": nonce, "ways": ways})
	} else {
		p.screen.passages(target, nonce, ways)
	}
	if err == nil && !good {
		err = errFindings
	}
	return err
}

func (s *screen) passages(target, nonce string, ways []passage) {
	colours := map[string]string{api.OK: green, api.Warn: yellow, api.Fail: red}
	s.say("probe %s, to port 25 of %s", nonce, plain(target))
	proven := 0
	for _, w := range ways {
		from := ""
		if w.From.IsValid() {
			from = " from " + w.From.String()
		}
		s.say("%s  %s%s to %s: %s", s.paint(colours[w.State], fmt.Sprintf("%-4s", w.State)), w.Family, from, w.Server, plain(w.Text))
		if w.State == api.OK {
			proven++
		}
	}
	if proven < len(ways) {
		s.say("a gateway in shadow or observe does not answer by itself: `sluice probe --look %s` on it", nonce)
	}
}

// mailServers gives one address of each family: of the domain's mail servers, else of the host.
func mailServers(ctx context.Context, name string) ([]netip.AddrPort, error) {
	host, port := name, uint16(smtpPort)
	if h, n, err := net.SplitHostPort(name); err == nil {
		v, err := strconv.ParseUint(n, 10, 16)
		if err != nil {
			return nil, usageError{fmt.Errorf("%q is not a port", n)}
		}
		host, port = h, uint16(v)
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(a.Unmap(), port)}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	hosts := []string{host}
	if mx, err := net.DefaultResolver.LookupMX(ctx, host); err == nil && len(mx) > 0 && strings.Trim(mx[0].Host, ".") != "" {
		hosts = hosts[:0]
		for _, m := range mx {
			hosts = append(hosts, m.Host)
		}
	}
	var out []netip.AddrPort
	for _, network := range []string{"ip4", "ip6"} {
		for _, h := range hosts {
			if as, err := net.DefaultResolver.LookupNetIP(ctx, network, h); err == nil && len(as) > 0 {
				out = append(out, netip.AddrPortFrom(as[0].Unmap(), port))
				break
			}
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("could not find an address of %s; name a mail server by its address: sluice probe --from-here ADDRESS", name)
	}
	return out, nil
}

const smtpPort = 25

// try connects and asks.
func try(ctx context.Context, server netip.AddrPort, nonce string) passage {
	w := passage{Family: "IPv4", Server: server.Addr(), State: api.Warn}
	if server.Addr().Is6() {
		w.Family = "IPv6"
	}
	ctx, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", server.String())
	if err != nil {
		w.Text = unconnected(err)
		return w
	}
	defer c.Close()
	if end, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(end) // a socket that is open takes it
	}
	w.From = c.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	w.ask(c, nonce)
	return w
}

// unconnected tells what may be behind a connection that does not come about.
func unconnected(err error) string {
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return "refused at once: by the server, or by a gateway in mode reject or with a lock on this source"
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH):
		return "there is no way to it: this host has no such connectivity"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, unix.ETIMEDOUT):
		return "no answer at all: dropped on the way (mode drop, a wrong interface or Ethernet address, another firewall), or the server is away"
	}
	return err.Error()
}

// ask speaks just enough SMTP. Nothing of it makes a message.
func (w *passage) ask(c net.Conn, nonce string) {
	r := bufio.NewReader(c)
	greeting, err := reply(r)
	if err != nil {
		w.Text = "connected, but no greeting came: " + err.Error()
		return
	}
	want, _ := probe.Echo([]byte(strings.TrimPrefix(probe.Noop(nonce), "NOOP ")))
	fmt.Fprintf(c, "%s\r\n", probe.Noop(nonce)) // a failure shows in the reply
	answer, err := reply(r)
	fmt.Fprintf(c, "EHLO %s\r\n", probe.Name(nonce))
	if _, err := reply(r); err == nil {
		fmt.Fprint(c, "QUIT\r\n")
		_, _ = reply(r) // it is over either way
	}
	name, echoed := strings.CutSuffix(answer, ": "+want)
	switch {
	case echoed:
		w.State, w.Gateway = api.OK, lastWord(name)
		w.Text = "through the gateway " + w.Gateway
	case err != nil:
		w.Text = fmt.Sprintf("not proven: greeted with %q, then %v", greeting, err)
	default:
		w.State, w.Text = api.Fail, fmt.Sprintf("no gateway answered, the server itself did: %q", greeting)
	}
}

// reply reads one reply and gives its last line.
func reply(r *bufio.Reader) (string, error) {
	for range 100 {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", err
		}
		line = strings.TrimRight(line, "\r\n")
		if len(line) < 4 || line[3] != '-' {
			return line[:min(len(line), 200)], nil
		}
	}
	return "", errors.New("the server's reply does not end")
}

func lastWord(s string) string { return s[strings.LastIndexByte(s, ' ')+1:] }
