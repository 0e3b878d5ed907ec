package tlspolicy

import (
	"context"
	"net/netip"
	"slices"
	"time"
)

// strictSeen is why clients may refuse any other certificate than the server's own.
type strictSeen struct {
	why   string
	until time.Time
}

// strictKeep is how long it is remembered that a server met what its domain asks for.
const strictKeep = 24 * time.Hour

func (s *judged) note(a netip.Addr, why strictSeen) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.strict == nil {
		s.strict = map[netip.Addr]strictSeen{}
	}
	if _, there := s.strict[a]; !there {
		makeRoom(s.strict, mostJudged)
	}
	s.strict[a] = why
}

// Strict tells why a client that refuses any certificate but the server's own may be right: the server's name has TLSA
// records, or its certificate was seen to meet DANE or an enforced MTA-STS policy of a domain whose mail it takes. ""
// means that nothing of the kind is known. A domain that merely points at the server proves nothing of it: anybody may
// make one. The error says that the DNS gave no answer.
func (f *Finder) Strict(ctx context.Context, server netip.Addr) (why string, err error) {
	server = server.Unmap()
	f.seen.mu.Lock()
	s, ok := f.seen.strict[server]
	f.seen.mu.Unlock()
	if ok && f.o.Now().Before(s.until) {
		return s.why, nil
	}
	names, err := f.o.DNS.Look(ctx, server.String(), Pointers)
	if err != nil {
		return "", err
	}
	for _, n := range names.Names[:min(len(names.Names), mostTries)] {
		n = canonical(n)
		if !hostName(n) {
			continue
		}
		a, err := f.o.DNS.Look(ctx, n, Addresses)
		if err != nil {
			return "", err
		}
		if !a.Secure || !slices.Contains(a.Addrs, server) {
			continue
		}
		r, err := f.o.DNS.Look(ctx, "_25._tcp."+n, Records)
		if err != nil {
			return "", err
		}
		if r.Secure && slices.ContainsFunc(r.TLSA, func(t TLSA) bool { return t.Unusable() == nil }) {
			why := "TLSA records at _25._tcp." + n
			f.seen.note(server, strictSeen{why: why, until: f.o.Now().Add(min(max(r.TTL, shortest), strictKeep))})
			return why, nil
		}
	}
	return "", nil
}
