package tlspolicy

import (
	"net/netip"
	"sync"
	"time"
)

// nameTable knows by which name, and under which policy, mail is sent to an address, from the domains that were looked up. It is safe for
// concurrent use.
type nameTable struct {
	mu sync.Mutex
	m  map[netip.Addr]nameSeen
}

type nameSeen struct {
	policy *Policy
	sure   bool // DNSSEC or an MTA-STS policy vouches for it
	until  time.Time
}

const mostAddresses = 1 << 16

// learn takes the names of a domain's exchangers. One that is known stays for its time, unless a better one comes: with a
// domain of his own anybody can give any address one more name, or the same one without anything that vouches for it.
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
		n := nameSeen{policy: h.Policy, until: now.Add(longest), sure: d.Secure && h.Answer.Secure || h.Policy.Source == MTASTS && h.Policy.Bar == ""}
		if n.policy.SNI == "" {
			continue
		}
		for _, a := range h.Answer.Addrs {
			old, there := t.m[a]
			if holds := there && now.Before(old.until); holds && (old.sure && !n.sure || old.sure == n.sure && old.policy.SNI != n.policy.SNI) {
				continue
			}
			if !there {
				makeRoom(t.m, mostAddresses)
			}
			t.m[a] = n
		}
	}
}

// PolicyAt gives the policy of the server at an address, as the domains publish it whose mail was seen to go there, nil
// for none, and whether DNSSEC or an MTA-STS policy vouches for its name. It waits for nothing.
func (f *Finder) PolicyAt(a netip.Addr) (p *Policy, sure bool) {
	now := f.o.Now()
	f.names.mu.Lock()
	defer f.names.mu.Unlock()
	n, ok := f.names.m[a.Unmap()]
	if !ok || now.After(n.until) {
		return nil, false
	}
	return n.policy, n.sure
}
