package sender

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/filter/policy"
)

// HelloPhases are the phases at which Hello is asked: what it says is weighed with what the content says.
var HelloPhases = []filter.Phase{filter.Data}

// What a doubtful name weighs, in points; content.Weights says what one adds. The mail servers of honest customers are often set up
// carelessly, which speaks against nobody; another's name is taken on purpose.
const (
	careless = 0.5
	borrowed = 3
)

// Names remembers what the DNS said.
type Names interface {
	// Remembered tells whether a host has an address. Nobody is asked: known is false where it is not at hand.
	Remembered(host string) (has, known bool)
}

// Hello looks at the name that a client gave itself (RFC 5321 4.1.1.1): it refuses nothing, and waits for nothing (FRM4).
type Hello struct {
	settings policy.Resolver
	names    Names
	ours     func(name string) bool
	lately   [looks]atomic.Pointer[looked] // by the name
}

// looks is how many names are remembered that were looked at within the last second, since a client says many messages by one.
const looks = 256

// looked is what is doubtful about a name by itself.
type looked struct {
	helo   string
	set    *policy.Sender
	login  bool
	at     time.Time
	name   string // in small letters
	host   bool   // it may be a host's
	points float64
	why    string
}

// NewHello returns the check by the settings of s; ours tells, of a name in small letters, whether it is the gateway's.
func NewHello(s policy.Resolver, n Names, ours func(name string) bool) *Hello {
	return &Hello{settings: s, names: n, ours: ours}
}

// Check implements filter.Check in phase data.
func (h *Hello) Check(_ context.Context, p filter.Phase, m *message.Message, hits []filter.Hit) []filter.Hit {
	if p != filter.Data || m.Helo == "" {
		return hits
	}
	s := h.settings.Settings(m.Flow.User.ID)
	if s == nil || !s.Sender.Hello {
		return hits
	}
	points, why := h.look(&s.Sender, m)
	if why == "" {
		return hits
	}
	return append(hits, filter.Hit{
		Code: "HELO", Weighs: true, Points: points, Text: "the name that the client gave itself is doubtful",
		Evidence: fmt.Sprintf("%.100q %s", m.Helo, why),
	})
}

// look says what is doubtful about a name, the worst first; "" where nothing is.
func (h *Hello) look(set *policy.Sender, m *message.Message) (points float64, why string) {
	place := uint32(0)
	for i := range len(m.Helo) {
		place = place*31 + uint32(m.Helo[i])
	}
	l := h.lately[place%looks].Load()
	if l == nil || l.helo != m.Helo || l.set != set || l.login != (m.Login != "") || m.Received.Sub(l.at).Abs() > time.Second {
		l = &looked{helo: strings.Clone(m.Helo), set: set, login: m.Login != "", at: m.Received}
		l.name = strings.ToLower(strings.TrimSuffix(l.helo, "."))
		l.host, l.points, l.why = h.alone(set, m, l.name)
		h.lately[place%looks].Store(l)
	}
	if l.host && l.points < borrowed && recipients(set, m, l.name) {
		return borrowed, "is the recipient's own domain"
	}
	return l.points, l.why
}

// alone says what is doubtful about a name whoever the recipients are. A name without a dot is what many a mail program
// and honest server says, and no more than that.
func (h *Hello) alone(set *policy.Sender, m *message.Message, name string) (host bool, points float64, why string) {
	if strings.HasPrefix(name, "[") {
		if literal(name) != nil {
			return false, careless, "is no IP address in brackets"
		}
		return false, 0, ""
	}
	if domain(name) != nil {
		if _, err := netip.ParseAddr(name); err == nil {
			return false, careless, "is an IP address without brackets"
		}
		return false, careless, "is no host name"
	}
	switch {
	case h.ours(name):
		return true, borrowed, "is this gateway's own name"
	case claims(set, m, name):
		return true, borrowed, "claims to be a well-known mail provider"
	case private(name):
		return true, careless, "is a name for a host's own use"
	case strings.Contains(name, "."):
		if has, known := h.names.Remembered(name); known && !has {
			return true, careless, "has no address in the DNS"
		}
	}
	return true, 0, ""
}

// recipients tells whether a name is the domain of a recipient, and not of the sender: whoever writes to his own people may be
// called as they are.
func recipients(set *policy.Sender, m *message.Message, name string) bool {
	for _, to := range m.Envelope.To {
		if !strings.EqualFold(to.Domain(), name) {
			continue
		}
		from := strings.ToLower(m.Envelope.From.Domain())
		return from != "" && !within(from, name) && !set.Domains.Has(name)
	}
	return false
}

// private tells whether a name means something on the host or in its own network alone (RFC 6761 6.3, RFC 6762 3).
func private(name string) bool {
	switch name[strings.LastIndexByte(name, '.')+1:] {
	case "localhost", "localdomain", "local", "lan", "internal":
		return true
	}
	return false
}

// providers are domains at which everybody may have a mailbox. None of them names its customers' hosts, as access providers do.
var providers = map[string]bool{
	"gmail.com": true, "googlemail.com": true, "google.com": true, "outlook.com": true, "hotmail.com": true, "live.com": true, "msn.com": true,
	"microsoft.com": true, "yahoo.com": true, "aol.com": true, "icloud.com": true, "apple.com": true, "gmx.de": true, "gmx.net": true,
	"gmx.com": true, "gmx.at": true, "gmx.ch": true, "web.de": true, "mail.ru": true, "yandex.ru": true, "yandex.com": true, "qq.com": true,
	"163.com": true, "126.com": true, "proton.me": true, "protonmail.com": true, "zoho.com": true, "fastmail.com": true, "laposte.net": true,
}

// claims tells whether a name is a provider's domain or below one, and who says it has not shown who he is, as a service does that
// hands in its customers' mail.
func claims(set *policy.Sender, m *message.Message, name string) bool {
	last := strings.LastIndexByte(name, '.')
	if last < 0 {
		return false
	}
	at := name[strings.LastIndexByte(name[:last], '.')+1:]
	return providers[at] && m.Login == "" && !set.Domains.Has(at)
}

// within tells whether a domain is another, or below it.
func within(domain, other string) bool {
	rest, ok := strings.CutSuffix(domain, other)
	return ok && (rest == "" || rest[len(rest)-1] == '.')
}
