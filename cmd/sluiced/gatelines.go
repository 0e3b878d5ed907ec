package main

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"sluice/cmd/internal/api"
	"sluice/filter/lock"
	"sluice/proxy"
)

// The thresholds: whoever is concerned at all is to be looked at; above these shares a step would hurt more people than
// can be talked to one by one. A handful proves nothing in a quiet prefix, so stop needs a few in any case.
const (
	stopFew      = 5
	stopRefused  = 0.05 // of the judged messages, by a rule: limits, sizes, syntax. Bad mail is what the gateway is for
	stopLocked   = 0.01 // of the users
	stopSPF      = 0.01 // of the messages
	stopRelay    = 0.01 // of the messages
	stopTLS      = 0.01 // of the enforced flows
	stopAtCap    = 0.01 // of the flows: 421, or a wait in shadow that the caps would bring
	lookOpaque   = 0.5  // of the flows: more than half of the mail was not seen
	lookUnknown  = 0.1  // of the messages: the DNS said nothing about them
	wholeDay     = 20 * time.Hour
	worstListed  = 5
	detailListed = 3
)

// weigh is the verdict on n of all concerned.
func weigh(n, of int, stop float64) string {
	switch {
	case n == 0:
		return api.GateOK
	case n >= stopFew && share(n, of) > stop:
		return api.GateStop
	}
	return api.GateLook
}

// worse returns the worse of two verdicts; what is unknown decides nothing.
func worse(a, b string) string {
	order := []string{api.GateUnknown, api.GateOK, api.GateLook, api.GateStop}
	return order[max(slices.Index(order, a), slices.Index(order, b))]
}

// report fills in the figures and a line for each thing to look at.
func (f *figures) report(g *api.Gate, dns dnsAnswers) {
	g.Users, g.Flows, g.Messages = len(f.users), len(f.flows), len(f.mails)
	if f.read > 0 {
		first := f.first
		g.First = &first
	}
	for _, s := range f.flows {
		switch {
		case s.observed:
			g.Observed++
		case s.shadow:
			g.Shadow++
		default:
			g.Enforced++
		}
		if s.opaque {
			g.Opaque++
		}
	}
	g.Lines = []api.GateLine{
		f.traffic(g), f.opaque(g), f.refusals(), f.locks(), f.spf(&dns), f.relays(&dns), f.handshakes(g), f.caps(),
	}
	g.Verdict = api.GateOK
	for i := range g.Lines {
		g.Verdict = worse(g.Verdict, g.Lines[i].Verdict)
		if v := g.Lines[i].Verdict; v == api.GateOK || v == api.GateUnknown {
			g.Lines[i].Remedy = ""
		}
	}
}

// concerned counts a line's cases by user, each with a detail.
type concerned struct {
	f       *figures
	users   *top[uint32]
	details map[uint32]*top[string]
	all     *top[string]
}

func (f *figures) concerned() *concerned {
	return &concerned{f: f, users: newTop[uint32](), details: map[uint32]*top[string]{}, all: newTop[string]()}
}

func (c *concerned) add(user uint32, detail string) {
	c.users.add(user, 1)
	c.all.add(detail, 1)
	if c.details[user] == nil {
		c.details[user] = newTop[string]()
	}
	c.details[user].add(detail, 1)
}

func (c *concerned) worst() (out []api.GateWorst) {
	for _, u := range c.users.keys(worstListed) {
		out = append(out, api.GateWorst{User: c.f.users[u].name, Count: c.users.n[u], Detail: c.details[u].text(detailListed)})
	}
	return out
}

// nouns puts a number before its noun.
func nouns(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func (f *figures) traffic(g *api.Gate) api.GateLine {
	l := api.GateLine{Check: "traffic", Verdict: api.GateOK, Count: g.Messages, Of: g.Messages,
		Text: fmt.Sprintf("%s in %s of %s", nouns(g.Messages, "message", "messages"), nouns(g.Flows, "connection", "connections"), nouns(g.Users, "user", "users"))}
	asked := g.Until.Sub(g.Since)
	switch {
	case g.Flows == 0:
		l.Verdict, l.Text, l.Remedy = api.GateLook, "nothing was seen: nothing is proven", "wait for mail, or ask for more time with --since"
	case !g.Whole:
		l.Text += fmt.Sprintf(", the newest part of the log, since %s", g.Since.Format(time.RFC3339))
	case min(asked, wholeDay) > g.Until.Sub(f.first)+time.Minute:
		l.Verdict, l.Remedy = api.GateLook, "let it run for a usual day"
		minutes := int(math.Ceil(g.Until.Sub(f.first).Minutes()))
		within := fmt.Sprintf("%d h %d min", minutes/60, minutes%60)
		if minutes < 60 {
			within = fmt.Sprintf("%d minutes", max(2, minutes))
		}
		l.Text += ", all within the last " + within
	}
	return l
}

func (f *figures) opaque(g *api.Gate) api.GateLine {
	watched, passed := g.Shadow+g.Observed, 0
	c := f.concerned()
	for _, s := range f.flows {
		switch {
		case s.opaque && (s.shadow || s.observed):
			c.add(s.user, "encrypted or not readable")
		case s.opaque:
			passed++
		}
	}
	n := c.users.total
	l := api.GateLine{Check: "opaque", Verdict: api.GateOK, Count: n, Of: watched, Text: "every connection could be read"}
	if n == 0 && passed > 0 {
		l.Text = fmt.Sprintf("%s passed unread, since STARTTLS is left to their destinations", nouns(passed, "connection", "connections"))
	}
	if n == 0 {
		return l
	}
	l.Worst = c.worst()
	for i := range l.Worst {
		l.Worst[i].Detail = ""
	}
	l.Text = fmt.Sprintf("%d of %d watched connections (%s) went on encrypted or could not be read: nobody knows what was in them", n, watched, percent(n, watched))
	if share(n, watched) > lookOpaque {
		l.Verdict, l.Remedy = api.GateLook, "the figures below are of the rest; go on with a canary of a few users, whose mail is read"
	}
	return l
}

func (f *figures) refusals() api.GateLine {
	c, judged, byRule := f.concerned(), 0, 0
	for i := range f.mails {
		m := &f.mails[i]
		if m.judged {
			judged++
		}
		if m.refused {
			c.add(m.user, m.code)
			if !m.bad {
				byRule++
			}
		}
	}
	n := c.users.total
	l := api.GateLine{Check: "refusals", Verdict: weigh(n, judged, 1), Count: n, Of: judged, Worst: c.worst(), Text: "nothing would be refused",
		Remedy: "`sluice log --user NAME` and `sluice why ID` tell each; raise limits of honest users, talk to the others"}
	if n > 0 {
		l.Text = fmt.Sprintf("%d of %s (%s) refused, or would be: %s", n, nouns(judged, "message", "messages"), percent(n, judged), c.all.text(worstListed))
		l.Verdict = worse(l.Verdict, weigh(byRule, judged, stopRefused))
	}
	return l
}

func (f *figures) locks() api.GateLine {
	bad := newTop[uint32]()
	for id, u := range f.users {
		if n := u.locks(); n > 0 || u.locked {
			bad.add(id, n)
		}
	}
	n := len(bad.n)
	l := api.GateLine{Check: "locks", Verdict: weigh(n, len(f.users), stopLocked), Count: n, Of: len(f.users), Text: "nobody would be locked",
		Remedy: "look at their messages, `sluice log --user NAME`: a server that sends spam is to be mended first"}
	for _, id := range bad.keys(worstListed) {
		w := api.GateWorst{User: f.users[id].name, Count: bad.n[id], Detail: "bad messages"}
		if w.Count == 0 {
			w = api.GateWorst{User: w.User, Count: 1, Detail: "lock"}
		}
		l.Worst = append(l.Worst, w)
	}
	if n > 0 {
		l.Text = fmt.Sprintf("of %s %d were locked, or would be once lock.automatic is on", nouns(len(f.users), "user", "users"), n)
	}
	return l
}

// locks returns how many bad messages meet the rule that locks, 0 where it is never met. The log does not tell copies of
// one message apart, which count once for a real lock: this may say too much, never too little.
func (u *userSeen) locks() int {
	s := &u.settings.Lock
	vs := slices.Clone(u.verdicts)
	slices.SortFunc(vs, func(a, b verdictSeen) int { return a.at.Compare(b.at) })
	from, bad := 0, 0
	for i, v := range vs {
		if !v.bad {
			continue
		}
		bad++
		for vs[from].at.Before(v.at.Add(-s.Window)) {
			if vs[from].bad {
				bad--
			}
			from++
		}
		if v.virus || lock.Meets(bad, i+1-from, s) {
			return bad
		}
	}
	return 0
}

func (f *figures) spf(dns *dnsAnswers) api.GateLine {
	c, asked, unknown, domains := f.concerned(), 0, 0, newTop[string]()
	for i := range f.mails {
		m := &f.mails[i]
		if len(m.spfQuestions(f.managed)) == 0 {
			continue
		}
		asked++
		loses, known := dns.loses(m, f.managed)
		if !known {
			unknown++
		}
		if loses {
			c.add(m.user, m.sender)
			domains.add(m.sender, 1)
		}
	}
	n := c.users.total
	l := api.GateLine{Check: "spf", Verdict: weigh(n, asked, stopSPF), Count: n, Of: asked, Unknown: unknown, Worst: c.worst(),
		Remedy: "have the domains' owners add the delivery addresses to SPF, or set delivery = \"own\" for these users"}
	switch {
	case asked == 0:
		l.Text = "mail leaves from the customers' own addresses: SPF changes for nobody"
	case n > 0:
		l.Text = fmt.Sprintf("%s (%s of the messages) allow the customer's address and not the delivery addresses: %s",
			nouns(len(domains.n), "sender domain", "sender domains"), percent(n, asked), domains.text(worstListed))
	default:
		l.Text = "no sender domain loses its SPF by leaving from the delivery addresses"
	}
	return tooManyUnknown(l)
}

// tooManyUnknown says what the DNS did not answer, and gives no clean bill where that is much.
func tooManyUnknown(l api.GateLine) api.GateLine {
	if l.Unknown == 0 {
		return l
	}
	l.Text += fmt.Sprintf("; the DNS has not answered yet for %s", nouns(l.Unknown, "message", "messages"))
	if l.Verdict == api.GateOK && share(l.Unknown, l.Of) > lookUnknown {
		l.Verdict, l.Remedy = api.GateLook, "ask again in a minute: questions go on meanwhile; `sluice doctor` checks the DNS"
	}
	return l
}

func (f *figures) relays(dns *dnsAnswers) api.GateLine {
	c, asked, unknown, targets := f.concerned(), 0, 0, newTop[netip.Addr]()
	for i := range f.mails {
		m := &f.mails[i]
		if len(m.domains) == 0 {
			continue
		}
		asked++
		relayed, known := dns.relayed(m)
		if !known {
			unknown++
		}
		if relayed {
			c.add(m.user, m.target.String())
			targets.add(m.target, 1)
		}
	}
	n := c.users.total
	l := api.GateLine{Check: "relay", Verdict: weigh(n, asked, stopRelay), Count: n, Of: asked, Unknown: unknown, Worst: c.worst(),
		Text:   "every destination takes mail for its recipients",
		Remedy: "they may know customers by their address or ask for a password: exempt them ([[exempt]] with mode = \"pass\")"}
	if n > 0 {
		l.Text = fmt.Sprintf("%s (%s of the messages) are no mail exchanger of their recipients, as smart hosts and connectors: %s",
			nouns(len(targets.n), "destination", "destinations"), percent(n, asked), targets.text(worstListed))
	}
	return tooManyUnknown(l)
}

func (f *figures) handshakes(g *api.Gate) api.GateLine {
	l := api.GateLine{Check: "tls", Of: g.Enforced, Verdict: api.GateUnknown, Text: "not known before enforcement: until then clients see the destinations' own certificates; a canary shows it"}
	if g.Enforced == 0 {
		return l
	}
	c := f.concerned()
	for _, s := range f.flows {
		if s.obstacle == proxy.NoHandshake {
			c.add(s.user, s.target.String())
		}
	}
	n := c.users.total
	l.Count, l.Worst, l.Verdict = n, c.worst(), weigh(n, g.Enforced, stopTLS)
	l.Text, l.Remedy = "no client ended the handshake after our certificate", "give tls.certificate one that clients trust, or or let those pass who insist on their destination's: `sluice tls refusals`"
	if n > 0 {
		l.Text = fmt.Sprintf("%s of %d (%s) ended in the TLS handshake with our certificate", nouns(n, "connection", "connections"), g.Enforced, percent(n, g.Enforced))
	}
	return l
}

func (f *figures) caps() api.GateLine {
	c, refused := f.concerned(), 0
	for _, s := range f.flows {
		switch {
		case s.obstacle == proxy.AtCap:
			refused++
			c.add(s.user, s.source.String())
		case s.waited:
			c.add(s.user, s.source.String())
		}
	}
	would := f.wouldWait(c)
	n := c.users.total
	l := api.GateLine{Check: "caps", Count: n, Of: len(f.flows), Worst: c.worst(), Text: "no source had more sessions open than it may",
		Verdict: worse(weigh(n, len(f.flows), 1), weigh(refused+would, len(f.flows), stopAtCap)),
		Remedy:  "raise limits.sessions_per_source or sessions_per_pair of honest users; a short wait for the greeting harms nobody"}
	if n > 0 {
		l.Text = fmt.Sprintf("%s waited for the greeting, %d would have, %d got 421", nouns(n-would-refused, "connection", "connections"), would, refused)
	}
	return l
}
