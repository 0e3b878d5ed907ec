package pool

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Names asks the DNS about delivery addresses. An error that is not about a missing record tells that there was no answer.
type Names interface {
	// Pointers are the names of an address; none where it has none.
	Pointers(ctx context.Context, ip netip.Addr) ([]string, error)
	// Addresses are those of a name; none where it has none.
	Addresses(ctx context.Context, name string) ([]netip.Addr, error)
}

// List is a DNS list of bad senders (RFC 5782).
type List struct {
	Zone string
	// Codes are the answers that mean a listing, as ranges. Whatever else it answers is an error of the list, such as the
	// word that it does not answer this resolver.
	Codes [][2]netip.Addr
}

// Inspect looks at an address: PTR, HELO name and A or AAAA have to agree, and no list may have it. Of what it had no answer
// to the last result tells; kinds are those it had answers to.
func Inspect(ctx context.Context, dns Names, a Address, lists []List) (kinds []FaultKind, faults []Fault, unsure string) {
	var open []string
	f, err := agree(ctx, dns, a)
	switch {
	case err != nil:
		open = append(open, err.Error())
	default:
		kinds = append(kinds, Name)
		faults = append(faults, f...)
	}
	sure := true
	for _, l := range lists {
		f, err := l.ask(ctx, dns, a.IP)
		if err != nil {
			open, sure = append(open, err.Error()), false
		} else if f != nil {
			faults = append(faults, *f)
		}
	}
	listed := slices.ContainsFunc(faults, func(f Fault) bool { return f.Kind == Listed })
	if sure || listed { // a list that does not answer lifts no listing, and makes none
		kinds = append(kinds, Listed)
	}
	return kinds, faults, strings.Join(open, "; ")
}

// agree compares PTR, HELO name and its addresses.
func agree(ctx context.Context, dns Names, a Address) (faults []Fault, err error) {
	fault := func(format string, args ...any) []Fault { return []Fault{{Name, fmt.Sprintf(format, args...)}} }
	names, err := dns.Pointers(ctx, a.IP)
	if err != nil {
		return nil, fmt.Errorf("the PTR of %v: %w", a.IP, err)
	}
	switch {
	case len(names) == 0:
		return fault("%v has no PTR; make it %s", a.IP, a.Helo), nil
	case !slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(strings.TrimSuffix(n, "."), a.Helo) }):
		return fault("the PTR of %v is %s, not the HELO name %s; make both the same", a.IP, strings.TrimSuffix(names[0], "."), a.Helo), nil
	}
	as, err := dns.Addresses(ctx, a.Helo)
	switch {
	case err != nil:
		return nil, fmt.Errorf("the addresses of %s: %w", a.Helo, err)
	case !slices.Contains(as, a.IP):
		return fault("the HELO name %s does not lead to %v; add its %s record", a.Helo, a.IP, map[bool]string{true: "A", false: "AAAA"}[a.IP.Is4()]), nil
	}
	return nil, nil
}

// ask looks an address up in the list.
func (l *List) ask(ctx context.Context, dns Names, ip netip.Addr) (*Fault, error) {
	as, err := dns.Addresses(ctx, listName(ip)+"."+l.Zone)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", l.Zone, err)
	}
	var odd error
	for _, a := range as {
		if slices.ContainsFunc(l.Codes, func(r [2]netip.Addr) bool { return r[0].Compare(a) <= 0 && a.Compare(r[1]) <= 0 }) {
			return &Fault{Listed, fmt.Sprintf("%v is on the list %s (%v); have it removed there", ip, l.Zone, a)}, nil
		}
		odd = fmt.Errorf("list %s answers %v, which is none of its codes for a listing", l.Zone, a)
	}
	return nil, odd
}

// listName is an address as DNS lists have it (RFC 5782 2.1, 2.4).
func listName(ip netip.Addr) string {
	const hex = "0123456789abcdef"
	var b strings.Builder
	if ip = ip.Unmap(); ip.Is4() {
		a := ip.As4()
		return fmt.Sprintf("%d.%d.%d.%d", a[3], a[2], a[1], a[0])
	}
	a := ip.As16()
	for i := len(a) - 1; i >= 0; i-- {
		b.WriteByte(hex[a[i]&15])
		b.WriteByte('.')
		b.WriteByte(hex[a[i]>>4])
		if i > 0 {
			b.WriteByte('.')
		}
	}
	return b.String()
}
