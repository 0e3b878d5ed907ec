package ruleset

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"
)

// Link is a network interface as far as places depend on it.
type Link struct {
	Index  int
	Name   string
	Kind   string // "veth", "bridge", "macvlan" …; "" of hardware
	Raw    bool   // no Ethernet header
	Header string // name of a link header that the programs cannot read; "" otherwise
	Outer  bool   // shows the programs a tunnel's outer header
	Loop   bool   // the loopback
	Door   bool   // leads to the namespace of the proxy's sockets
	Master string // "": none; else the kind of its master: "bridge", "vrf", "bond", "team" …
	Over   string // name of the master
}

// headerless are the kinds of link header, as netlink names them, of devices that show the programs bare IP packets.
var headerless = []string{"none", "ppp", "ipip", "tunnel6", "sit", "gre", "unknown823" /* ip6gre */, "unknown519" /* rawip */}

// SetHeader puts down what a kind of link header means for the programs.
func (l *Link) SetHeader(kind string) {
	switch {
	case kind == "ether":
	case kind == "loopback":
		l.Loop = true
	case slices.Contains(headerless, kind):
		l.Raw = true
	default:
		l.Header = kind
	}
}

// The roles of an interface.
const (
	Customer = "customer"
	Uplink   = "uplink"
)

// The hooks of an interface.
const (
	Ingress = "ingress"
	Egress  = "egress"
)

// Place is one program at one hook of one interface.
type Place struct {
	Link    int
	Hook    string
	Program string // the name in the kernel
}

// Seat is what becomes of one interface that a pattern names.
type Seat struct {
	Link    Link
	Role    string
	Places  []Place // none when Refused is set
	Refused string  // why no program can stand there, and the remedy
}

// Seats decides for every interface that a pattern names which programs stand there. An interface that both lists name,
// and one whose packets are not routed where the program would see them, is refused with the reason.
func Seats(links []Link, customers, uplinks []string) []Seat {
	var seats []Seat
	for _, l := range links {
		c, u := matches(customers, l.Name), matches(uplinks, l.Name)
		if !c && !u || l.Door { // a pattern may name every interface
			continue
		}
		s := Seat{Link: l, Role: Customer}
		if u {
			s.Role = Uplink
		}
		if s.Refused = refusal(l, c && u); s.Refused == "" {
			s.Places = places(l, s.Role)
		}
		seats = append(seats, s)
	}
	// Uplinks first: their guard holds `closed` sources while the customer interfaces are still being served.
	slices.SortFunc(seats, func(a, b Seat) int {
		return cmp.Or(strings.Compare(b.Role, a.Role), strings.Compare(a.Link.Name, b.Link.Name))
	})
	return seats
}

func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, err := path.Match(p, name)
		return err == nil && ok // patterns were checked when the configuration was read
	})
}

func refusal(l Link, both bool) string {
	switch {
	case both:
		return fmt.Sprintf("%s is named as customer interface and as uplink; name it once", l.Name)
	case l.Loop:
		return fmt.Sprintf("%s is the loopback, where no customer is", l.Name)
	case l.Kind == "vrf":
		return fmt.Sprintf("%s is a VRF, whose routing rules come before ours; take customers and uplinks out of VRFs", l.Name)
	case l.Header != "":
		return fmt.Sprintf("%s has a link header (%s) that the programs cannot read; route its customers through an Ethernet or tunnel device", l.Name, l.Header)
	case l.Outer:
		return fmt.Sprintf("%s is a tunnel without a remote address, which shows its outer header only; make one tunnel for each remote", l.Name)
	case l.Master == "vrf":
		return fmt.Sprintf("%s belongs to the VRF %s, whose routing rules come before ours; take it out of the VRF", l.Name, l.Over)
	case l.Master == "bridge" || l.Master == "openvswitch" || l.Master == "ovs-bridge":
		return fmt.Sprintf("%s is a port of the bridge %s, where packets are not routed yet; name %s instead", l.Name, l.Over, l.Over)
	case l.Master != "": // bond, team and whatever else gathers interfaces
		return fmt.Sprintf("%s is part of %s (%s), which receives its packets; name %s instead", l.Name, l.Over, l.Master, l.Over)
	}
	return ""
}

// The programs, by the names that package bpf has for them.
const (
	mailIngress   = "mail_ingress"
	uplinkIngress = "uplink_ingress"
	uplinkGuard   = "uplink_guard"
	bare          = "_l3" // follows the name of a program for devices without an Ethernet header
)

// places names the programs by the link's header.
func places(l Link, role string) []Place {
	suffix := ""
	if l.Raw {
		suffix = bare
	}
	if role == Customer {
		return []Place{{l.Index, Ingress, mailIngress + suffix}}
	}
	return []Place{{l.Index, Ingress, uplinkIngress + suffix}, {l.Index, Egress, uplinkGuard + suffix}}
}

// Guard is the place of the guard beside an uplink's own program; false where p is another program's place.
func Guard(p Place) (Place, bool) {
	suffix, ok := strings.CutPrefix(p.Program, uplinkIngress)
	return Place{p.Link, Egress, uplinkGuard + suffix}, ok
}

// IsGuard tells whether the place is a guard's.
func (p Place) IsGuard() bool { return strings.HasPrefix(p.Program, uplinkGuard) }

// EveryPlace returns all places of ours that an interface could have.
func EveryPlace(index int) []Place {
	var out []Place
	for _, raw := range []bool{false, true} {
		for _, role := range []string{Customer, Uplink} {
			out = append(out, places(Link{Index: index, Raw: raw}, role)...)
		}
	}
	return out
}

// SeatsText writes seats one line each, for golden files and for the operator.
func SeatsText(seats []Seat) string {
	var b strings.Builder
	for _, s := range seats {
		if s.Refused != "" {
			fmt.Fprintf(&b, "%s %s refused: %s\n", s.Role, s.Link.Name, s.Refused)
		}
		for _, p := range s.Places {
			fmt.Fprintf(&b, "%s %s %s %s\n", s.Role, s.Link.Name, p.Hook, p.Program)
		}
	}
	return b.String()
}
