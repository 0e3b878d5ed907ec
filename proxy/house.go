package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"

	"sluice/filter"
	"sluice/filter/policy"
	"sluice/filter/sign"
	"sluice/intercept/flow"
	"sluice/proxy/auth"
	"sluice/proxy/smtp"
)

// House is a smarthost's listener: customers hand in their mail there, for whatever destination, under a name that they
// have in their settings (AUT1). Nobody is asked while they wait; what is taken is kept first, and delivered by the queue.
type House struct {
	Name     string      // in the greeting
	TLS      *tls.Config // may be nil: neither STARTTLS nor AUTH
	Implicit bool        // TLS from the first byte on
	Sessions int         // of one source at once (AUT8); 10
	Logins   Logins      // may be nil: only sources that need none
	Keeper   Keeper
	AnyFrom  bool // whoever logs in may write as anybody in the message's From field (FRM1)
	// Callout tells of recipients whom their servers do not know; may be nil (FRM2).
	Callout Callout
	// Tenants are the customers whose mail a service at an address hands in without a login; may be nil.
	Tenants func(netip.Addr) []Tenant
	Roots   *x509.CertPool // that such a service's certificate is verified by; nil: the system's
	// Stranger are the settings of sessions that nobody answers for yet.
	Stranger policy.Settings
}

// Logins tells who a client is. The error is one of package auth's.
type Logins interface {
	Login(ctx context.Context, from netip.Addr, login, password string) (Client, error)
}

// Callout asks recipients' servers whether they know them, on behalf of a user and a sender. It returns a reply for each,
// of class 5 where there is nobody, else without a code.
type Callout interface {
	Ask(ctx context.Context, user uint32, from string, rcpts []smtp.Rcpt) []Nobody
}

// Nobody is why there is nobody of a recipient's name; no code: there may be somebody.
type Nobody struct {
	Code int
	Enh  smtp.Enhanced
	Text string
	Host string // who said so; "" is the DNS
}

// Client is who logged in.
type Client struct {
	User  flow.User // who answers for what is sent
	Login string    // the domain, or the mailbox
	Kind  auth.Kind
}

// nobody is who has not logged in.
var nobody Client

// mayUse tells whether the client may give an address as the sender of a message (FRM1). Notices have none.
func (c *Client) mayUse(sender string) bool {
	if sender == "" || c.Login == "" {
		return true
	}
	if c.Kind == auth.Mailbox {
		return strings.EqualFold(sender, c.Login)
	}
	return strings.EqualFold(sender[strings.LastIndexByte(sender, '@')+1:], c.Login)
}

// Keeper takes messages that are to be delivered. Its errors, and those of a draft, are ErrNoRoom where there is no room,
// and else any.
type Keeper interface {
	Begin() (Draft, error)
}

// Draft is a message on its way to the disk. It serves one goroutine.
type Draft interface {
	// OpenSpill opens the file for what is beyond memory.
	OpenSpill() (smtp.Spill, error)
	// Keep returns nil once the message is on disk.
	Keep(ctx context.Context, m *Kept) error
	// Abort drops what was not kept; it may be called at any time.
	Abort()
}

// ErrNoRoom is a keeper's: the client hears 452 and keeps its message.
var ErrNoRoom = errors.New("there is no room for messages")

// Kept is a message that is to be kept. Nothing in it may be used once Keep returned.
type Kept struct {
	ID   string // as the log has it
	Flow *flow.Flow
	// HandedIn tells that it came by a smarthost, whose client hears 250 in any case.
	HandedIn bool
	// Withheld is what the filter said of a message that is not to leave before somebody releases it; nil: it may at once.
	Withheld *filter.Verdict
	Login    string // "" where none was needed
	Mail     *smtp.Mail
	Rcpts    []smtp.Rcpt
	Trace    []byte // our trace field, to be put before the message
	Body     *smtp.Body
	At       time.Time
	Secure   bool // the client's leg was encrypted
	Risky    bool // it may leave through the pool of risky mail alone
	// Forwarded tells that its user only passes it on, so that it leaves through the pool of such mail where there is one.
	Forwarded bool
	As        sign.As // who signs it when it is delivered; zero: nobody
	Group     uint64  // the same for all copies of a message; 0 where nothing is known of copies
}

// ServeHouse leads the session of a smarthost on nc to its end, as ServeConn does. The flow's user is who has the source
// address, if its mail is taken without a login; else he is nobody.
func (s *Server) ServeHouse(ctx context.Context, nc net.Conn, f *flow.Flow, h *House, done func()) {
	ss := newSession(s, nc, f)
	ss.house = h
	s.serve(ctx, ss, ss.greetHouse, done)
}

// greetHouse lets the session of a smarthost in and greets.
func (s *session) greetHouse() bool {
	h := s.house
	if s.user = s.srv.cfg.Policy.Settings(s.flow.User.ID); s.user == nil || s.flow.User.ID == 0 {
		s.user = &h.Stranger
	}
	if h.Implicit {
		if err := s.conn.ServerTLS(h.TLS); err != nil {
			s.note = "TLS handshake with the client failed: " + err.Error()
			s.block, s.gone = NoHandshake, true
			return false
		}
		s.secure.Store(true)
	}
	if s.srv.cfg.Gate != nil {
		most := h.Sessions
		if most <= 0 {
			most = houseSessions
		}
		now, cancel := context.WithCancel(&s.ctx)
		cancel() // whoever has a smarthost in his settings was told its bounds: nobody waits for a place
		r, err := s.srv.cfg.Gate.Enter(now, s.flow.Client.Addr(), s.flow.Target.Addr(), most, 0)
		if err != nil {
			s.block = AtCap
			return s.leave(crowded)
		}
		s.gate = r
	}
	if !s.passes() {
		return false
	}
	s.conn.WriteReply(220, smtp.Enhanced{}, h.Name+" ESMTP Sluice")
	return true
}

// houseSessions is how many sessions a source may have at once at a smarthost, unless told (AUT8).
const houseSessions = 10

// stranger tells whether nobody answers for the session.
func (s *session) stranger() bool { return s.house != nil && s.flow.User.ID == 0 && !s.unclaimed() }

// houseSkills is what a smarthost can do by itself. What a destination lacks later is the queue's to translate or to
// report (DEL3).
const houseSkills = smtp.ExtSize | smtp.Ext8BitMIME | smtp.ExtSMTPUTF8 | smtp.ExtDSN | smtp.ExtEnhanced | smtp.ExtPipelining | smtp.ExtChunking

// offerHouse offers what a smarthost can do. AUTH is for encrypted sessions alone (AUT2), as is REQUIRETLS (RFC 8689 2).
func (s *session) offerHouse() {
	s.offer = smtp.Extensions{Set: houseSkills, Size: s.maxSize()}
	if s.secure.Load() {
		s.offer.Set |= smtp.ExtRequireTLS
	}
	switch {
	case s.house.TLS == nil || s.who.Login != "":
	case !s.secure.Load():
		s.offer.Set |= smtp.ExtStartTLS
	case s.house.Logins != nil:
		s.offer.Set |= smtp.ExtAuth
		s.offer.Auth = auth.Mechanisms
	}
}

// The answers of a smarthost about mail.
var (
	strangerNo = answer{550, smtp.Enhanced{5, 7, 1}, "no relaying for you: log in first"}
	noDomain   = answer{553, smtp.Enhanced{5, 1, 3}, "the recipient's address has no domain"}
	noRoom     = answer{452, smtp.Enhanced{4, 3, 1}, "there is no room for messages now, try again later"}
	notKept    = answer{451, smtp.Enhanced{4, 3, 0}, "the message could not be kept, try again later"}
)

// houseMail answers MAIL at a smarthost as far as it differs; true when it is answered.
func (s *session) houseMail(mail *smtp.Mail) bool {
	if s.byTenant() {
		return s.tenantMail(mail)
	}
	if s.stranger() { // he hears at RCPT that this is no open relay, and no check is troubled with him
		s.begin(mail)
		s.conn.WriteRaw(s.set.fixed.senderOK)
		return true
	}
	if s.who.mayUse(mail.Address) {
		return false
	}
	s.refuseSender(mail, "SENDER", "whoever logs in as "+s.who.Login+" may not send as <"+brief(mail.Address)+">")
	return true
}

// refuseSender answers MAIL of somebody who may not send as the sender.
func (s *session) refuseSender(mail *smtp.Mail, code, text string) {
	s.begin(mail)
	s.say(answer{550, smtp.Enhanced{5, 7, 1}, coded(s.set, code, text, "")})
	s.finish(ending{status: Refused})
}

// houseRcpt refuses a recipient at a smarthost before any check; true when it did.
func (s *session) houseRcpt(r *smtp.Rcpt, refuse func(answer)) bool {
	switch {
	case s.stranger():
		refuse(strangerNo)
		s.noteRcpt(r.Address, strangerNo.code, s.set.Name+": "+strangerNo.text)
		s.noise() // his recipients bring no mail
		return true
	case strings.LastIndexByte(r.Address, '@') < 1 || strings.HasSuffix(r.Address, "@"):
		refuse(noDomain)
		s.noteRcpt(r.Address, noDomain.code, s.set.Name+": "+noDomain.text)
		return true
	}
	return false
}

// answerAsked answers the recipients of this batch at a smarthost.
func (s *session) answerAsked() {
	t := &s.tx
	var said []Nobody
	// Whoever is locked learns nothing, and who asks for REQUIRETLS has his recipients named to nobody whom that does not bind.
	if c := s.house.Callout; c != nil && !s.unclaimed() && t.ticket == "" && !t.mail.RequireTLS {
		said = c.Ask(&s.ctx, s.flow.User.ID, t.mail.Address, t.asked)
	}
	for i := range t.asked {
		if i < len(said) && said[i].Code != 0 {
			a := said[i].answer()
			s.say(a)
			s.noteRcpt(t.asked[i].Address, a.code, s.set.Name+": "+a.text)
			continue
		}
		s.noteOne(i)
	}
	t.seen()
}

// answer is what the client hears.
func (n *Nobody) answer() answer {
	text := "there is no such recipient: "
	if n.Host != "" {
		text += brief(n.Host) + " said: "
	}
	return answer{n.Code, n.Enh, text + brief(n.Text)}
}

// beginDraft makes room for a message that comes now; false when there is none, which is then answered.
func (s *session) beginDraft() bool {
	d, err := s.house.Keeper.Begin()
	if err != nil {
		e := ending{status: Deferred, note: err.Error()}
		s.sayUnkept(err)
		s.finish(e)
		return false
	}
	s.draft = d
	return true
}

// dropDraft gives up what was not kept.
func (s *session) dropDraft() {
	if s.draft != nil {
		s.draft.Abort()
		s.draft = nil
	}
}

func (s *session) sayUnkept(err error) {
	if errors.Is(err, ErrNoRoom) {
		s.say(noRoom)
		return
	}
	s.say(notKept)
}
