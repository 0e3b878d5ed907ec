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
	Raw    bool   // no Ethernet header
	Loop   bool   // the loopback
	Master string // "": none; else the kind of its master: "bridge", "vrf", "bond", "team" …
	Over   string // name of the master
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
		if !c && !u {
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
	case l.Master == "bridge" || l.Master == "openvswitch":
		return fmt.Sprintf("%s is a port of the bridge %s, where packets are not routed yet; name %s instead", l.Name, l.Over, l.Over)
	case l.Master == "bond" || l.Master == "team":
		return fmt.Sprintf("%s is part of %s, which receives its packets; name %s instead", l.Name, l.Over, l.Over)
	case l.Master == "vrf":
		return fmt.Sprintf("%s belongs to the VRF %s, whose routing rules come before ours; take it out of the VRF", l.Name, l.Over)
	}
	return ""
}

// places names the programs by the link's header; the names are those of package bpf.
func places(l Link, role string) []Place {
	suffix := ""
	if l.Raw {
		suffix = "_l3"
	}
	if role == Customer {
		return []Place{{l.Index, Ingress, "mail_ingress" + suffix}}
	}
	return []Place{{l.Index, Ingress, "uplink_ingress" + suffix}, {l.Index, Egress, "uplink_guard" + suffix}}
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
