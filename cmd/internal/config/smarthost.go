package config

import (
	"fmt"
	"net/netip"
)

// mostListeners fit into one welcome of sluice-intercept.
const mostListeners = 12

// smarthost gives listeners what is usual at their ports, and refuses what cannot be listened at.
func (v *validator) smarthost(s *Smarthost) {
	if len(s.Listener) > mostListeners {
		v.report("smarthost.listener", fmt.Sprintf("%d listeners are more than %d", len(s.Listener), mostListeners), "remove some: a name may have several addresses, but few ports are usual")
	}
	seen := map[netip.AddrPort]bool{}
	for i := range s.Listener {
		l := &s.Listener[i]
		key := fmt.Sprintf("smarthost.listener[%d].address", i)
		a := l.Address.Addr()
		switch {
		case !l.Address.IsValid(): // reported as missing
		case a.IsUnspecified(), a.IsMulticast(), a.Zone() != "":
			v.report(key, fmt.Sprintf("%s is not one address of this host", a), "name the address that customers' settings lead to; at port 25 of all addresses mail would be taken that is not for the smarthost")
		case l.Address.Port() == 0:
			v.report(key, "the port is missing", "587, 465 and 25 are usual")
		case seen[l.Address]:
			v.report(key, l.Address.String()+" stands there twice", "remove one")
		}
		seen[l.Address] = true
		if l.TLS == "" {
			l.TLS = "starttls"
			if l.Address.Port() == 465 {
				l.TLS = "implicit"
			}
		}
	}
}
