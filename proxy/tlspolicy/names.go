package tlspolicy

import (
	"net/netip"
	"sync"
	"time"
)

// nameTable knows by which name mail is sent to an address, from the domains that were looked up. It is safe for
// concurrent use.
type nameTable struct {
	mu sync.Mutex
	m  map[netip.Addr]nameSeen
}

type nameSeen struct {
	name  string
	sure  bool // DNSSEC or an MTA-STS policy vouches for it
	until time.Time
}

const mostAddresses = 1 << 16

// learn takes the names of a domain's exchangers. One that is known stays for its time, unless a better one comes: with a
// domain of his own anybody can give any address one more name.
func (t *nameTable) learn(d *Domain, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.m == nil {
		t.m = map[netip.Addr]nameSeen{}
	}
	for i := range d.Hosts {
		h := &d.Hosts[i]
		if h.Err != nil {
			continue
		}
		n := nameSeen{name: h.Policy.SNI, until: now.Add(longest), sure: d.Secure && h.Answer.Secure || h.Policy.Source == MTASTS && h.Policy.Bar == ""}
		if n.name == "" {
			continue
		}
		for _, a := range h.Answer.Addrs {
			old, there := t.m[a]
			if there && now.Before(old.until) && (old.sure || !n.sure) && old.name != n.name {
				continue
			}
			if !there {
				makeRoom(t.m, mostAddresses)
			}
			t.m[a] = n
		}
	}
}

// get gives the name of an address, "" where none is known, and whether something vouches for it.
func (t *nameTable) get(a netip.Addr, now time.Time) (name string, sure bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, ok := t.m[a]
	if !ok || now.After(n.until) {
		return "", false
	}
	return n.name, n.sure
}

// NameOf gives the name by which mail is sent to an address, as far as it was seen, "" for none, and whether DNSSEC or an
// MTA-STS policy vouches for it. It waits for nothing.
func (f *Finder) NameOf(a netip.Addr) (name string, sure bool) {
	return f.names.get(a.Unmap(), f.o.Now())
}
