package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/config"
)

// gatewayProbe looks at the ways of customers' packets through this host.
type gatewayProbe struct {
	file    string
	towards []string // of the internet, one of each family

	mark    uint32
	door    bool // the proxy's sockets have a namespace of their own
	ifaces  map[string]api.Interface
	strays  []api.Elsewhere
	targets []netip.Addr
	way     func(to netip.Addr, o *netlink.RouteGetOptions) (device string, local bool, err error)
}

// probed is what is known of one prefix.
type probed struct {
	User    string       `json:"user"`
	Prefix  netip.Prefix `json:"prefix"`
	By      string       `json:"by,omitempty"`  // interface to the customer
	Out     string       `json:"out,omitempty"` // interface to the internet
	State   string       `json:"state"`
	Text    string       `json:"text"`
	Mode    string       `json:"mode"`
	Answers uint64       `json:"elsewhere,omitempty"` // to connections that went another way
}

func (p *program) probeGateway(ctx context.Context, g gatewayProbe, names []string) error {
	if err := p.prepare(ctx, &g); err != nil {
		return err
	}
	users, err := p.probedUsers(ctx, names)
	if err != nil {
		return err
	}
	all := []probed{}
	for _, u := range users {
		for _, pre := range u.Prefixes {
			all = append(all, g.prefix(&u, pre))
		}
	}
	bad := slices.ContainsFunc(all, func(w probed) bool { return w.State != api.OK })
	if p.screen.json {
		err = p.screen.writeJSON(all)
	} else {
		p.screen.probes(all)
	}
	if err == nil && bad {
		err = errFindings
	}
	return err
}

// prepare asks for what is the same for all prefixes.
func (p *program) prepare(ctx context.Context, g *gatewayProbe) error {
	var st api.Status
	if err := p.client.Do(ctx, "GET", "/v1/status", nil, &st); err != nil {
		return err
	}
	if !st.Helper.Connected {
		return fmt.Errorf("could not probe: sluice-intercept is not connected to sluiced: %s", st.Helper.Error)
	}
	cfg, err := config.Load(cmp.Or(g.file, st.Config.File, configFile()))
	if err != nil {
		return err
	}
	g.mark, g.strays, g.way = cfg.Intercept.Mark, st.Helper.Elsewhere, kernelWay
	g.door = st.Helper.Path != pathNFT && openDoor(&kernelRoutes{})
	g.ifaces = make(map[string]api.Interface, len(st.Helper.Interfaces))
	for _, i := range st.Helper.Interfaces {
		g.ifaces[i.Name] = i
	}
	for _, t := range g.towards {
		a, err := netip.ParseAddr(t)
		if err != nil {
			return usageError{fmt.Errorf("--towards: %q is not an address", t)}
		}
		g.targets = append(g.targets, a)
	}
	return nil
}

// probedUsers are those of the names, or all.
func (p *program) probedUsers(ctx context.Context, names []string) (users []api.User, err error) {
	if len(names) == 0 {
		return users, p.client.Do(ctx, "GET", "/v1/users", nil, &users)
	}
	for _, n := range names {
		var u api.UserDetail
		if err := p.client.Do(ctx, "GET", userPath(n), nil, &u); err != nil {
			return nil, err
		}
		if a, err := netip.ParseAddr(n); err == nil { // this one of his
			u.Prefixes = []netip.Prefix{netip.PrefixFrom(a, a.BitLen())}
		}
		users = append(users, u.User)
	}
	return users, nil
}

// prefix judges one prefix by an address of it.
func (g *gatewayProbe) prefix(u *api.User, p netip.Prefix) probed {
	w := probed{User: u.Name, Prefix: p, Mode: u.Mode}
	who := p.Addr()
	if !p.IsSingleIP() {
		who = who.Next() // the first one may be the network's own, or a router's anycast address
	}
	for _, s := range g.strays {
		if p.Contains(s.Address) {
			w.Answers += s.Answers
		}
	}
	w.State, w.Text = g.judge(&w, who)
	return w
}

func (g *gatewayProbe) judge(w *probed, who netip.Addr) (state, text string) {
	by, local, err := g.way(who, nil)
	w.By = by
	seat, named := g.ifaces[by]
	switch {
	case err != nil:
		return api.Warn, fmt.Sprintf("there is no route to %s: nobody is there, or his packets come and go by another router", who)
	case local:
		return api.Warn, "is this host's own address"
	case !named:
		return api.Fail, fmt.Sprintf("is routed to %s, which is no customer interface: add it to intercept.customer_interfaces (or it was not shown: sluice status)", by)
	case seat.Role != "customer":
		return api.Fail, fmt.Sprintf("is routed to %s, an uplink: his packets do not come by a customer interface", by)
	case seat.Path == "":
		return api.Fail, fmt.Sprintf("is routed to %s, where no program stands: %s", by, seat.Error)
	}
	i := slices.IndexFunc(g.targets, func(t netip.Addr) bool { return t.Is4() == who.Is4() })
	if i < 0 {
		return api.Warn, "only the way back was looked at: --towards names no address of this family"
	}
	to := g.targets[i]
	out, _, err := g.way(to, &netlink.RouteGetOptions{Iif: by, SrcAddr: who.AsSlice()})
	w.Out = out
	up, known := g.ifaces[out]
	switch {
	case err != nil:
		return api.Fail, fmt.Sprintf("a packet of his from %s to %s would not be forwarded: %v", by, to, err)
	case !known || up.Role != "uplink" || up.Path == "":
		return api.Fail, fmt.Sprintf("a packet of his to %s would leave by %s, where no guard stands: add it to intercept.uplinks", to, out)
	}
	switch {
	case !g.delivered(by, who, to):
		return api.Fail, "intercepted packets of his would not come to the proxy: see `sluice doctor`"
	case w.Answers > 0:
		return api.Fail, fmt.Sprintf("%d answers came back for connections that did not go through here: he has another way out; on his server: sluice probe --from-here", w.Answers)
	case w.Mode == "pass" || w.Mode == "observe":
		return api.OK, "goes through this host, past the proxy (mode " + w.Mode + ")"
	}
	return api.OK, "goes through the gateway (mode " + w.Mode + ")"
}

// delivered tells whether what programs take out of a customer's packets gets to the proxy's sockets: by the door of their
// namespace, or by a policy rule.
func (g *gatewayProbe) delivered(by string, who, to netip.Addr) bool {
	if g.door {
		return true
	}
	_, here, err := g.way(to, &netlink.RouteGetOptions{Iif: by, SrcAddr: who.AsSlice(), Mark: g.mark})
	return err == nil && here
}

// openDoor tells whether the namespace of the proxy's sockets has a door, and it is up.
func openDoor(r routes) bool {
	doors, err := r.doors()
	for _, up := range doors {
		if up && err == nil {
			return true
		}
	}
	return false
}

// kernelWay asks the routing of this host; o is nil for a packet of its own.
func kernelWay(to netip.Addr, o *netlink.RouteGetOptions) (device string, local bool, err error) {
	rs, err := netlink.RouteGetWithOptions(net.IP(to.AsSlice()), o)
	switch {
	case errors.Is(err, unix.EXDEV):
		return "", false, errors.New("the kernel's reverse path filter would drop it")
	case err != nil:
		return "", false, err
	case len(rs) == 0:
		return "", false, errors.New("no route")
	}
	l, err := netlink.LinkByIndex(rs[0].LinkIndex)
	if err != nil {
		return "", false, err
	}
	return l.Attrs().Name, rs[0].Type == unix.RTN_LOCAL, nil
}

// probes names what is not as it should be, and everything if that is little.
func (s *screen) probes(all []probed) {
	colours := map[string]string{api.OK: green, api.Warn: yellow, api.Fail: red}
	counts := map[string]int{}
	for _, w := range all {
		if counts[w.State]++; w.State == api.OK && len(all) > 50 {
			continue
		}
		s.say("%s  %s %s: %s", s.paint(colours[w.State], fmt.Sprintf("%-4s", w.State)), plain(w.User), w.Prefix, plain(w.Text))
	}
	s.say("%s good, %d not proven, %d not through the gateway", count(counts[api.OK], "prefix", "prefixes"), counts[api.Warn], counts[api.Fail])
	s.say("whether a customer has a way of his own around this host, only he can show: sluice probe --from-here on his server")
}
