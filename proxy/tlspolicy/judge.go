package tlspolicy

import (
	"crypto/sha256"
	"crypto/tls"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Leg is how a connection is protected, as a Finder judges it.
type Leg struct {
	State *tls.ConnectionState // nil: plain text
	print [sha256.Size]byte    // of the server's certificate
}

// NewLeg describes a connection; st is nil where it is in plain text.
func NewLeg(st *tls.ConnectionState) Leg {
	l := Leg{State: st}
	if st != nil && len(st.PeerCertificates) > 0 {
		l.print = sha256.Sum256(st.PeerCertificates[0].Raw)
	}
	return l
}

// Report tells how a connection compares with what the recipient's domain asks for. Nothing depends on it.
type Report struct {
	Trust  string // "trusted for mx.example.org", or why not; "" where it is not encrypted
	Policy string // "dane", "mta-sts enforce", "mta-sts testing", "none", or "unknown" where it could not be found out
	Result string // "ok", or what is wrong; "" where nothing is asked for
}

// Verdict is what the report comes to, in a word: "" where nothing is asked for.
func (r *Report) Verdict() string {
	switch {
	case r.Policy == "" || r.Policy == "none":
		return ""
	case r.Result == "ok":
		return "ok"
	case r.Policy == "unknown":
		return "unknown"
	}
	return "failed"
}

const mostJudged = 1 << 14

// judgedKey is what a judgement depends on.
type judgedKey struct {
	domain string
	server netip.Addr
	plain  bool
	print  [sha256.Size]byte
}

type judgement struct {
	report Report
	ready  bool
	until  time.Time
}

// judged remembers judgements.
type judged struct {
	mu     sync.Mutex
	m      map[judgedKey]judgement
	strict map[netip.Addr]strictSeen
}

// Judge tells how a connection to server, that carries mail for a domain, compares with what the domain asks for; false
// where that is not known yet. It waits for nothing: what is not known is found out in the background.
func (f *Finder) Judge(domain string, server netip.Addr, leg *Leg) (Report, bool) {
	key := judgedKey{domain: canonical(domain), server: server.Unmap(), plain: leg.State == nil, print: leg.print}
	now := f.o.Now()
	f.seen.mu.Lock()
	j, there := f.seen.m[key]
	f.seen.mu.Unlock()
	if there && now.Before(j.until) {
		return j.report, j.ready
	}
	if !hostName(key.domain) {
		return Report{}, false
	}
	select {
	case f.slots <- struct{}{}:
	default:
		return j.report, j.ready // too much to do: an old one tells more than none
	}
	f.seen.put(key, judgement{report: j.report, ready: j.ready, until: now.Add(2 * patience)})
	go func() {
		defer func() { <-f.slots }()
		f.judge(key, leg.State)
	}()
	return j.report, j.ready
}

func (s *judged) put(k judgedKey, j judgement) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		s.m = map[judgedKey]judgement{}
	}
	if _, there := s.m[k]; !there {
		makeRoom(s.m, mostJudged)
	}
	s.m[k] = j
}

// judge finds a judgement.
func (f *Finder) judge(k judgedKey, st *tls.ConnectionState) {
	now := f.o.Now()
	j := judgement{ready: true, until: now.Add(afterError)}
	defer func() {
		if recover() != nil { // what strangers publish must not end anything
			j.report = Report{Policy: "unknown", Result: "a mistake of ours"}
		}
		f.seen.put(k, j)
	}()
	q, mine := f.ask(k.domain)
	if mine {
		f.answer(k.domain, q)
	}
	<-q.done
	if q.err != nil {
		j.report = Report{Policy: "unknown", Result: clean(q.err.Error())}
		j.report.Trust = f.trust(st, "", now)
		return
	}
	j.until = q.until
	j.report = f.report(q.d, k.server, st, now)
}

// report compares.
func (f *Finder) report(d *Domain, server netip.Addr, st *tls.ConnectionState, now time.Time) Report {
	i := slices.IndexFunc(d.Hosts, func(h Host) bool { return slices.Contains(h.Answer.Addrs, server) })
	if i < 0 {
		r := Report{Policy: "none", Trust: f.trust(st, "", now)}
		if slices.ContainsFunc(d.Hosts, func(h Host) bool { return h.Err != nil }) {
			r.Policy, r.Result = "unknown", "an exchanger of the domain could not be looked up"
		}
		return r // somebody else's server: what the domain publishes says nothing of it
	}
	h := &d.Hosts[i]
	if h.Err != nil {
		return Report{Policy: "unknown", Result: clean(h.Err.Error()), Trust: f.trust(st, h.Host, now)}
	}
	r := Report{Policy: "none", Trust: f.trust(st, h.Host, now)}
	p := h.Policy
	switch {
	case p.Source == TLSAs:
		r.Policy = "dane"
	case p.Source == MTASTS:
		r.Policy = "mta-sts " + string(ModeEnforce)
	case h.Wish != nil:
		p, r.Policy = h.Wish, "mta-sts "+string(ModeTesting)
	default:
		return r
	}
	if err := p.Check(st, f.o.Roots, now); err != nil {
		r.Result = clean(err.Error())
		return r
	}
	r.Result = "ok"
	if p == h.Policy {
		f.seen.note(server, strictSeen{why: p.Why, until: now.Add(strictKeep)})
	}
	return r
}

// trust tells what the web's authorities say of a certificate.
func (f *Finder) trust(st *tls.ConnectionState, host string, now time.Time) string {
	if st == nil {
		return ""
	}
	if err := Trusted(st.PeerCertificates, f.o.Roots, now); err != nil {
		return clean(err.Error())
	}
	if host == "" {
		return "trusted"
	}
	if err := named(st.PeerCertificates[0], []string{host}, false); err != nil {
		return clean(err.Error())
	}
	return "trusted for " + host
}
