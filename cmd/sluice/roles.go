package main

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// choice is what setup makes of one interface, and why.
type choice struct {
	Name string `json:"name"`
	Role string `json:"role"` // customer, uplink, or "" for neither
	Why  string `json:"why"`
}

const (
	customer = "customer"
	uplink   = "uplink"
)

// choose gives every interface a role by what is routed there; what the operator named has his.
func choose(nics []*nic, customers, uplinks []string) []choice {
	out := make([]choice, len(nics))
	for i, n := range nics {
		role, why := n.role()
		switch {
		case named(uplinks, n.name):
			role, why = uplink, "you named it"
		case named(customers, n.name):
			role, why = customer, "you named it"
		case role == uplink && len(uplinks) > 0:
			role, why = "", why+", but you named other uplinks"
		case role == customer && len(customers) > 0:
			role, why = "", "you named other customer interfaces"
		}
		out[i] = choice{n.name, role, why}
	}
	return out
}

func named(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, err := path.Match(p, name)
		return err == nil && ok // what is no pattern is refused with the configuration
	})
}

// containers are bridges that programs make for their guests on this host.
var containers = regexp.MustCompile(`^(docker|br-[0-9a-f]{12}$|virbr|podman|cni|lxcbr|lxdbr)`)

// role is what an interface looks like.
func (n *nic) role() (role, why string) {
	switch {
	case n.refused != "":
		return "", n.refused
	case n.default4 || n.default6:
		return uplink, "the default route (" + n.families() + ") leads there"
	case n.kind == "dummy" || n.kind == "ifb" || n.kind == "nlmon":
		return "", "a " + n.kind + ", which leads nowhere"
	case !n.up:
		return "", "is down"
	case n.kind == "bridge" && containers.MatchString(n.name):
		return "", "looks like a bridge for guests of this host; --customer " + n.name + " takes it in"
	case len(n.routes) > 0:
		return customer, n.behind() + " behind it"
	case len(n.addrs) > 0:
		return customer, "has the address " + n.addrs[0].Addr().String()
	}
	return "", "no address, and no route leads there"
}

func (n *nic) families() string {
	switch {
	case n.default4 && n.default6:
		return "IPv4 and IPv6"
	case n.default4:
		return "IPv4"
	}
	return "IPv6"
}

// behind names the first networks that are routed to an interface.
func (n *nic) behind() string {
	const most = 2
	var names []string
	for _, r := range n.routes[:min(most, len(n.routes))] {
		names = append(names, r.String())
	}
	text := strings.Join(names, ", ")
	if more := len(n.routes) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// with lists the interfaces that have a role.
func with(choices []choice, role string) (names []string) {
	for _, c := range choices {
		if c.Role == role {
			names = append(names, c.Name)
		}
	}
	return names
}

var numbered = regexp.MustCompile(`^(.*[^0-9])[0-9]+$`)

// patterns writes the names of a role shorter: those that differ in a number at their end only become one pattern, so that
// more of them are attached as they appear. Not where the pattern names an interface of another role.
func patterns(choices []choice, role string) (out []string) {
	for _, name := range with(choices, role) {
		if named(out, name) {
			continue
		}
		out = append(out, name)
		m := numbered.FindStringSubmatch(name)
		if m == nil {
			continue
		}
		pattern, alike := m[1]+"*", 0
		for _, c := range choices {
			if ok, err := path.Match(pattern, c.Name); err != nil || ok && c.Role != role {
				alike = -len(choices)
			} else if ok {
				alike++
			}
		}
		if alike > 1 {
			out[len(out)-1] = pattern
		}
	}
	return out
}
