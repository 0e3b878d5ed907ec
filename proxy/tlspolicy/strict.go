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

// notStrict is how long it is remembered that nothing binds clients to a server's certificate.
const notStrict = 30 * time.Minute

// Demands tells why a client that refuses any certificate but the server's own may be right: the server's name has TLSA
// records, or its certificate was seen to meet DANE or an enforced MTA-STS policy of a domain whose mail it takes. ""
// means that nothing of the kind is known, or not yet: it waits for nothing and is found out in the background. A domain
// that merely points at the server proves nothing of it, since anybody may make one.
func (f *Finder) Demands(target netip.AddrPort) string {
	server, now := target.Addr().Unmap(), f.o.Now()
	f.seen.mu.Lock()
	s, ok := f.seen.strict[server]
	f.seen.mu.Unlock()
	if ok && now.Before(s.until) {
		return s.why
	}
	select {
	case f.slots <- struct{}{}:
	default:
		return ""
	}
	f.seen.note(server, strictSeen{until: now.Add(2 * patience)})
	go func() {
		defer func() { <-f.slots }()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		found, err := f.demands(ctx, server)
		if err != nil {
			found = strictSeen{until: f.o.Now().Add(afterError)}
		}
		f.seen.found(server, found)
	}()
	return ""
}

// found notes the answer to a question, unless more was seen meanwhile.
func (s *judged) found(a netip.Addr, why strictSeen) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.strict[a].why == "" {
		s.strict[a] = why
	}
}

// demands looks for TLSA records of the server's own name, which has to know the server, too.
func (f *Finder) demands(ctx context.Context, server netip.Addr) (strictSeen, error) {
	nothing := strictSeen{until: f.o.Now().Add(notStrict)}
	names, err := f.o.DNS.Look(ctx, server.String(), Pointers)
	if err != nil {
		return nothing, err
	}
	for _, n := range names.Names[:min(len(names.Names), mostTries)] {
		n = canonical(n)
		if !hostName(n) {
			continue
		}
		a, err := f.o.DNS.Look(ctx, n, Addresses)
		if err != nil {
			return nothing, err
		}
		if !a.Secure || !slices.Contains(a.Addrs, server) {
			continue
		}
		r, err := f.o.DNS.Look(ctx, "_25._tcp."+n, Records)
		if err != nil {
			return nothing, err
		}
		if r.Secure && slices.ContainsFunc(r.TLSA, func(t TLSA) bool { return t.Unusable() == nil }) {
			return strictSeen{why: "TLSA records at _25._tcp." + n, until: f.o.Now().Add(min(max(r.TTL, shortest), strictKeep))}, nil
		}
	}
	return nothing, nil
}
