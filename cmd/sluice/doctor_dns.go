package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/config"
)

// names asks the DNS.
type names interface {
	LookupAddr(ctx context.Context, addr string) ([]string, error)
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

const (
	dnsPatience = 3 * time.Second        // for one question to the DNS
	dnsSlow     = 500 * time.Millisecond // an answer that came this late
)

// dns checks every server that this host asks, and the gateway's own name; answers tells whether any of them does.
func (h *host) dns(ctx context.Context, name string) (fs []api.Finding, answers bool) {
	if len(h.servers) == 0 {
		fs = append(fs, api.Finding{Check: "DNS", State: api.Fail, Text: "/etc/resolv.conf names no server", Remedy: "echo 'nameserver <address>' >> /etc/resolv.conf, or set up systemd-resolved"})
	}
	dead := 0
	for _, server := range h.servers {
		f := api.Finding{Check: "DNS server " + server, State: api.OK}
		ctx, cancel := context.WithTimeout(ctx, dnsPatience)
		begin := time.Now()
		err := h.probe(ctx, server, name)
		took := time.Since(begin)
		cancel()
		switch {
		case err != nil:
			dead++
			f.State, f.Text, f.Remedy = api.Warn, "does not answer: "+err.Error(), "start it or take it out of /etc/resolv.conf: every question waits for it"
		case took > dnsSlow:
			f.State, f.Text, f.Remedy = api.Warn, "answers after "+span(took), "name a nearer one in /etc/resolv.conf, or run a caching one on this host"
		default:
			f.Text = "answers in " + span(took)
		}
		fs = append(fs, f)
	}
	if len(h.servers) > 0 && dead == len(h.servers) {
		fs[len(fs)-1].State = api.Fail
		return fs, false
	}
	return append(fs, h.gateway(ctx, name)), true
}

// nameservers are those of a resolv.conf(5).
func nameservers(file string) (servers []string) {
	f, err := os.Open(file)
	if err != nil {
		return nil // then there are none
	}
	defer f.Close()
	for in := bufio.NewScanner(f); in.Scan(); {
		if words := strings.Fields(in.Text()); len(words) > 1 && words[0] == "nameserver" {
			servers = append(servers, words[1])
		}
	}
	return servers
}

// askServer asks one server anything; that there is no such name is an answer, too.
func askServer(ctx context.Context, server, name string) error {
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, net.JoinHostPort(server, "53"))
	}}
	_, err := r.LookupNetIP(ctx, "ip", strings.TrimSuffix(name, ".")+".")
	var dns *net.DNSError
	if errors.As(err, &dns) {
		if dns.IsNotFound {
			return nil
		}
		return errors.New(dns.Err)
	}
	return err
}

func (h *host) gateway(ctx context.Context, name string) api.Finding {
	ctx, cancel := context.WithTimeout(ctx, dnsPatience)
	defer cancel()
	f := api.Finding{Check: "gateway name", State: api.OK, Text: name + " resolves"}
	if as, err := h.names.LookupNetIP(ctx, "ip", name); err != nil || len(as) == 0 {
		f.State, f.Text, f.Remedy = api.Warn, name+" does not resolve", "add an address record: clients see the name in every reply"
	}
	return f
}

// addresses checks that mail can leave from every delivery address, and that its names agree; asks is nil where the DNS
// is not to be asked.
func (h *host) addresses(ctx context.Context, cfg *config.Config, asks names) []api.Finding {
	if len(cfg.Delivery.Address) == 0 {
		return nil
	}
	var bad []api.Finding
	named := 0
	for _, a := range cfg.Delivery.Address {
		check := "delivery address " + a.Address.String()
		if ok, err := h.routes.local(a.Address); err != nil || !ok {
			bad = append(bad, api.Finding{Check: check, State: api.Fail, Text: "is not this host's",
				Remedy: fmt.Sprintf("add its prefix to delivery.prefixes and `systemctl restart sluice-intercept`, or: ip address add %s dev lo", a.Address)})
		}
		if asks == nil {
			continue
		}
		if f := agrees(ctx, asks, a); f.State != api.OK {
			f.Check = check
			bad = append(bad, f)
		} else {
			named++
		}
	}
	text := count(len(cfg.Delivery.Address), "address is this host's", "addresses are this host's")
	if named > 0 {
		text += "; PTR, HELO name and address record agree"
	}
	if len(bad) > 0 {
		return some(bad)
	}
	return []api.Finding{{Check: "delivery addresses", State: api.OK, Text: text}}
}

// agrees checks the names of one address: PTR = HELO = A or AAAA.
func agrees(ctx context.Context, asks names, a config.Address) api.Finding {
	ctx, cancel := context.WithTimeout(ctx, 2*dnsPatience)
	defer cancel()
	ptr, err := asks.LookupAddr(ctx, a.Address.String())
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && !dns.IsNotFound:
		return api.Finding{State: api.Warn, Text: "PTR not checked: " + dns.Err, Remedy: "mend the DNS first; --no-dns leaves this out"}
	case err != nil || !hasName(ptr, a.Helo):
		return api.Finding{State: api.Warn, Text: fmt.Sprintf("PTR is %s, HELO %s: receivers refuse or mistrust such mail", orNone(ptr), a.Helo),
			Remedy: fmt.Sprintf("set the PTR of %s to %s, or helo to the PTR's name", a.Address, a.Helo)}
	case !resolves(ctx, asks, a.Helo, a.Address):
		return api.Finding{State: api.Warn, Text: fmt.Sprintf("%s has no address record %s", a.Helo, a.Address), Remedy: "add the A or AAAA record"}
	}
	return api.Finding{State: api.OK}
}

func resolves(ctx context.Context, asks names, name string, want netip.Addr) bool {
	as, err := asks.LookupNetIP(ctx, "ip", name)
	if err != nil {
		return false
	}
	for _, a := range as {
		if a.Unmap() == want {
			return true
		}
	}
	return false
}

func hasName(ptr []string, name string) bool {
	for _, p := range ptr {
		if strings.EqualFold(strings.TrimSuffix(p, "."), name) {
			return true
		}
	}
	return false
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "missing"
	}
	return strings.Join(list, ", ")
}
