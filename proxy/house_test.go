package proxy

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/filter/policy"
	"sluice/filter/sign"
	"sluice/intercept/flow"
	"sluice/proxy/auth"
	"sluice/proxy/cert"
	"sluice/proxy/smtp"
	"sluice/proxy/tlspolicy"
)

// keeper keeps messages in memory.
type keeper struct {
	mu   sync.Mutex
	all  []kept
	fail error
	full error
	dir  string // of large messages; "" takes none
}

type kept struct {
	from, login, text string
	to                []string
	user              uint32
	secure, required  bool
	withheld          *filter.Verdict
	as                sign.As
}

// Later takes everything but mail for elsewhere.example.
func (k *keeper) Later(_ context.Context, _ *flow.Flow, _ *smtp.Mail, domain string, _ bool) error {
	if domain == "elsewhere.example" {
		return errors.New("its destination is no mail exchanger of elsewhere.example")
	}
	return nil
}

func (k *keeper) Begin() (Draft, error) { return &draft{k}, k.full }

// draft is a message on its way to a keeper.
type draft struct{ k *keeper }

func (d *draft) OpenSpill() (smtp.Spill, error) {
	if d.k.dir == "" {
		return nil, errors.New("no large messages here")
	}
	return OpenSpill(d.k.dir)
}
func (d *draft) Abort()                                  {}
func (d *draft) Keep(ctx context.Context, m *Kept) error { return d.k.keep(ctx, m) }

func (k *keeper) keep(_ context.Context, m *Kept) error {
	b, err := io.ReadAll(io.NewSectionReader(m.Body, 0, m.Body.Size()))
	if err != nil {
		return err
	}
	x := kept{from: m.Mail.Address, login: m.Login, text: string(m.Trace) + string(b), user: m.Flow.User.ID, secure: m.Secure, required: m.Mail.RequireTLS, withheld: m.Withheld, as: m.As}
	for _, r := range m.Rcpts {
		x.to = append(x.to, r.Address)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fail == nil {
		k.all = append(k.all, x)
	}
	return k.fail
}

func (k *keeper) messages() []kept {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.all
}

// people know passwords: "secret" is everybody's.
type people map[string]Client

func (p people) Login(_ context.Context, _ netip.Addr, login, password string) (Client, error) {
	c, ok := p[login]
	switch {
	case login == "busy.example":
		return c, fmt.Errorf("%w: its server is away", auth.ErrBusy)
	case login == "shut.example":
		return c, auth.ErrShut
	case !ok || password != "secret":
		return c, auth.ErrWrong
	}
	return c, nil
}

var houseUser = flow.User{ID: 9, Name: "carol"}

// newHouse starts a smarthost at which the source address belongs to a user, 0 for nobody.
func newHouse(t *testing.T, source uint32, change ...func(*rig, *House)) (*rig, *keeper) {
	t.Helper()
	k := &keeper{}
	c, err := cert.New(cert.Options{Name: "smtp.gw.example"})
	must(t, err)
	h := &House{Name: "smtp.gw.example", TLS: c.Config(), Keeper: k, AnyFrom: true, Logins: people{
		"customer.example":     {User: houseUser, Login: "customer.example", Kind: auth.Domain},
		"bob@customer.example": {User: houseUser, Login: "bob@customer.example", Kind: auth.Mailbox},
	}, Stranger: policy.Default()}
	r := newRig(t, netip.AddrPort{}, func(r *rig) {
		for _, c := range change {
			c(r, h)
		}
		r.take = func(nc net.Conn) {
			f := r.flow(nc.RemoteAddr().(*net.TCPAddr).AddrPort())
			f.Target, f.User = nc.LocalAddr().(*net.TCPAddr).AddrPort(), flow.User{}
			if source != 0 {
				f.User = flow.User{ID: source, Name: "alice"}
			}
			r.srv.ServeHouse(context.Background(), nc, f, h, func() {})
		}
	})
	return r, k
}

func (r *rig) visit() *peer {
	p := r.connect()
	p.want("220 smtp.gw.example ESMTP")
	return p
}

// inTLS visits the smarthost and encrypts.
func (r *rig) inTLS() *peer {
	p := r.visit()
	p.cmd("EHLO client.example", "250")
	p.startTLS()
	p.cmd("EHLO client.example", "250")
	return p
}

func plain(login, password string) string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + login + "\x00" + password))
}

// knowsNobody is a Callout that knows nobody.
type knowsNobody struct{}

func (knowsNobody) Ask(_ context.Context, _ uint32, _ string, rcpts []smtp.Rcpt) []Nobody {
	return slices.Repeat([]Nobody{{Code: 550, Enh: smtp.Enhanced{5, 1, 1}, Text: "nobody"}}, len(rcpts))
}

// TestASmarthostTakesREQUIRETLS within TLS: nobody is asked for the recipients then. What each domain asks for is the queue's to meet.
func TestASmarthostTakesREQUIRETLS(t *testing.T) {
	t.Parallel()
	terms := &fakeOnward{terms: map[string]*tlspolicy.Policy{"strict.example": {Level: tlspolicy.Encrypt}}}
	r, k := newHouse(t, houseUser.ID, func(r *rig, h *House) { r.cfg.Onward, h.Callout = terms, knowsNobody{} })
	p := r.visit()
	if offer := p.cmd("EHLO client.example", "250"); strings.Contains(offer, "REQUIRETLS") {
		t.Errorf("in plain text it offers %q", offer)
	}
	p.cmd("MAIL FROM:<a@customer.example> REQUIRETLS", "555 5.5.4")
	p.startTLS()
	if offer := p.cmd("EHLO client.example", "250"); !strings.Contains(offer, "REQUIRETLS") {
		t.Errorf("in TLS it offers %q", offer)
	}
	p.cmd("MAIL FROM:<a@customer.example>", "250")
	p.cmd("RCPT TO:<b@sink.example>", "550 5.1.1")
	p.cmd("RSET", "250")
	p.cmd("MAIL FROM:<a@customer.example> REQUIRETLS", "250")
	for _, domain := range []string{"sink", "strict", "unknown"} {
		p.cmd("RCPT TO:<b@"+domain+".example>", "250")
	}
	p.send(goodMail, "250 2.0.0 gw.example: kept as ")
	if all := k.messages(); len(all) != 1 || !all[0].required || len(all[0].to) != 3 {
		t.Errorf("kept is %+v", all)
	}
}

func TestASmarthostKeepsWhatACustomerHandsIn(t *testing.T) {
	t.Parallel()
	r, k := newHouse(t, 0)
	p := r.visit()
	offer := p.cmd("EHLO client.example", "250")
	if strings.Contains(offer, "AUTH") || !strings.Contains(offer, "STARTTLS") || strings.Contains(offer, "BINARYMIME") {
		t.Errorf("in plain text it offers %q", offer)
	}
	p.cmd("AUTH PLAIN "+plain("customer.example", "secret"), "538 5.7.11")
	p.startTLS()
	offer = p.cmd("EHLO client.example", "250")
	if !strings.Contains(offer, "AUTH PLAIN LOGIN") || strings.Contains(offer, "STARTTLS") {
		t.Errorf("in TLS it offers %q", offer)
	}
	p.cmd("AUTH PLAIN "+plain("customer.example", "secret"), "235 2.7.0")
	p.cmd("AUTH PLAIN "+plain("customer.example", "secret"), "503 5.5.1")
	p.cmd("MAIL FROM:<anybody@customer.example> SIZE=1000 AUTH=anybody@customer.example", "250")
	p.cmd("RCPT TO:<b@sink.example>", "250")
	p.cmd("RCPT TO:<c@other.example> NOTIFY=SUCCESS", "250")
	p.cmd("RCPT TO:<postmaster>", "553 5.1.3")
	p.send(goodMail, "250 2.0.0 gw.example: kept as ")
	p.cmd("QUIT", "221")
	p.closed()
	rec := r.log.wait(t, 1)[0]
	if rec.Status != Queued || rec.Flow.User != houseUser || len(rec.To) != 3 || rec.In.Version == "" || rec.Source.IsValid() {
		t.Errorf("logged %+v", rec)
	}
	all := k.messages()
	if len(all) != 1 || all[0].from != "anybody@customer.example" || strings.Join(all[0].to, " ") != "b@sink.example c@other.example" ||
		all[0].login != "customer.example" || all[0].user != 9 || !all[0].secure || !strings.Contains(all[0].text, "\r\n"+goodMail) ||
		!strings.HasPrefix(all[0].text, "Received: from client.example") || !strings.Contains(all[0].text, "with ESMTPSA") {
		t.Errorf("kept %+v", all)
	}
}

func TestASmarthostThatIsEncryptedFromTheFirstByte(t *testing.T) {
	t.Parallel()
	r, k := newHouse(t, 0, func(_ *rig, h *House) { h.Implicit = true })
	p := r.connect()
	p.handshake()
	p.want("220 smtp.gw.example")
	p.cmd("EHLO client.example", "250")
	p.cmd("STARTTLS", "503 5.5.1")
	p.cmd("AUTH LOGIN", "334 VXNlcm5hbWU6")
	p.cmd(base64.StdEncoding.EncodeToString([]byte("bob@customer.example")), "334 UGFzc3dvcmQ6")
	p.cmd(base64.StdEncoding.EncodeToString([]byte("secret")), "235 2.7.0")
	p.cmd("MAIL FROM:<bob@customer.example>", "250")
	p.cmd("RCPT TO:<b@sink.example>", "250")
	p.write("BDAT 6\r\nA: b\r\n")
	p.want("250")
	p.write("BDAT 10 LAST\r\n\r\nhow is\r\n")
	p.want("250 2.0.0")
	if all := k.messages(); len(all) != 1 || !strings.HasSuffix(all[0].text, "\r\nA: b\r\n\r\nhow is\r\n") || all[0].login != "bob@customer.example" {
		t.Errorf("kept %+v", all)
	}
}

func TestOnlyOnesOwnSenders(t *testing.T) {
	t.Parallel()
	r, k := newHouse(t, 0)
	for login, senders := range map[string]map[string]string{
		"customer.example":     {"x@customer.example": "250", "x@CUSTOMER.example": "250", "": "250", "x@other.example": "550 5.7.1", "x@sub.customer.example": "550 5.7.1", "customer.example": "550 5.7.1"},
		"bob@customer.example": {"Bob@customer.example": "250", "": "250", "x@customer.example": "550 5.7.1"},
	} {
		p := r.inTLS()
		p.cmd("AUTH PLAIN "+plain(login, "secret"), "235")
		for sender, want := range senders {
			if sender == "customer.example" {
				want = "5"
			}
			p.cmd("MAIL FROM:<"+sender+">", want)
			p.cmd("RSET", "250")
		}
	}
	if len(k.messages()) != 0 {
		t.Error("something was kept")
	}
}

// TestNoOpenRelay: whoever is nobody here gets nothing relayed, however the recipient is written.
func TestNoOpenRelay(t *testing.T) {
	t.Parallel()
	r, k := newHouse(t, 0)
	for _, secure := range []bool{false, true} {
		for _, rcpt := range []string{
			"b@sink.example", "b%sink.example@smtp.gw.example", "b%sink.example@[127.0.0.1]", "@smtp.gw.example:b@sink.example", `"b@sink.example"`,
			`"b%sink.example"@smtp.gw.example`, "b@sink.example@smtp.gw.example", "b@[198.51.100.7]", "sink.example!b@smtp.gw.example", "b@smtp.gw.example",
			"postmaster", "b@customer.example", `"b@sink.example"@customer.example`,
		} {
			p := r.visit()
			p.cmd("EHLO client.example", "250")
			if secure {
				p.startTLS()
				p.cmd("EHLO client.example", "250")
			}
			p.cmd("MAIL FROM:<x@customer.example>", "250")
			p.cmd("RCPT TO:<"+rcpt+">", "5")
			p.cmd("DATA", "5")
			p.cmd("QUIT", "221")
			p.closed()
		}
	}
	if len(k.messages()) != 0 {
		t.Errorf("kept %+v", k.messages())
	}
}

func TestAnAddressThatNeedsNoLogin(t *testing.T) {
	t.Parallel()
	r, k := newHouse(t, 7)
	p := r.visit()
	p.cmd("EHLO client.example", "250")
	p.envelope()
	p.send(goodMail, "250 2.0.0")
	p.cmd("QUIT", "221")
	p.closed()
	if all := k.messages(); len(all) != 1 || all[0].user != 7 || all[0].login != "" || all[0].secure || !strings.Contains(all[0].text, "with ESMTP ") {
		t.Errorf("kept %+v", all)
	}
}

func TestWrongLogins(t *testing.T) {
	t.Parallel()
	r, _ := newHouse(t, 0)
	p := r.inTLS()
	for _, tc := range []struct{ line, want string }{
		{"AUTH", "504 5.5.4"}, {"AUTH CRAM-MD5", "504 5.5.4"}, {"AUTH PLAIN not-base64", "501 5.5.2"}, {"AUTH PLAIN " + plain("busy.example", "x"), "454 4.7.0"},
	} {
		p.cmd(tc.line, tc.want)
	}
	p.cmd("AUTH LOGIN", "334")
	p.cmd("*", "501 5.7.0")
	p.cmd("AUTH PLAIN", "334 ")
	p.cmd(plain("customer.example", "secret"), "235")

	p = r.inTLS()
	p.cmd("AUTH PLAIN "+plain("customer.example", "wrong"), "535 5.7.8")
	p.cmd("AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("boss\x00customer.example\x00secret")), "535 5.7.8")
	p.cmd("AUTH PLAIN "+plain("nobody.example", "secret"), "535 5.7.8")
	p.want("421 4.7.0")
	p.closed()

	p = r.inTLS()
	p.cmd("AUTH PLAIN "+plain("shut.example", "x"), "421 4.7.0")
	p.closed()
	for _, rec := range r.log.wait(t, 2) {
		if strings.Contains(fmt.Sprintf("%+v", rec), "secret") {
			t.Errorf("a password is in the log: %+v", rec)
		}
	}
}

func TestWhatCannotBeKeptIsNotTaken(t *testing.T) {
	t.Parallel()
	for want, fail := range map[string]error{"452 4.3.1": fmt.Errorf("%w on this disk", ErrNoRoom), "451 4.3.0": errors.New("it burns")} {
		r, k := newHouse(t, 7)
		k.fail = fail
		p := r.visit()
		p.cmd("EHLO client.example", "250")
		p.envelope()
		p.send(goodMail, want)
		p.cmd("QUIT", "221")
		p.closed()
		k.full = fail
		p = r.visit()
		p.cmd("EHLO client.example", "250")
		p.envelope()
		p.cmd("DATA", want)
		for _, rec := range r.log.wait(t, 2) {
			if rec.Status != Deferred || rec.Note != fail.Error() {
				t.Errorf("logged %+v", rec)
			}
		}
	}
}

func TestTheFilterAtASmarthost(t *testing.T) {
	t.Parallel()
	var asked sync.Map
	bad := filter.Step{Name: "test", Phases: []filter.Phase{filter.Data}, Check: checkFunc(func(_ context.Context, _ filter.Phase, m *message.Message, hits []filter.Hit) []filter.Hit {
		asked.Store(m.Flow.User.ID, true)
		if strings.Contains(string(m.Data), "spam") {
			hits = append(hits, filter.Hit{Check: "test", Code: "SPAM", Class: filter.Spam, Action: filter.Reject, Text: "this is spam"})
		}
		return hits
	})}
	r, k := newHouse(t, 0, func(r *rig, _ *House) { r.cfg.Settings.Pipeline = filter.NewPipeline(bad) })
	p := r.inTLS()
	p.cmd("AUTH PLAIN "+plain("customer.example", "secret"), "235")
	p.cmd("MAIL FROM:<x@customer.example>", "250")
	p.cmd("RCPT TO:<b@sink.example>", "250")
	p.send("Subject: spam\r\n\r\nspam\r\n", "550 5.7.1 gw.example: [SPAM]")
	r.locks.lock("T-1")
	p.cmd("MAIL FROM:<x@customer.example>", "421") // what was open before the lock ends
	p.closed()
	if _, ok := asked.Load(houseUser.ID); !ok || len(k.messages()) != 0 {
		t.Errorf("the filter did not see the user, or %+v was kept", k.messages())
	}
	p = r.inTLS()
	p.cmd("AUTH PLAIN "+plain("customer.example", "secret"), "235")
	p.cmd("MAIL FROM:<x@customer.example>", "250")
	p.cmd("RCPT TO:<b@sink.example>", "250")
	p.send(goodMail, "451 4.7.1 gw.example: [LOCKED]")
}

func TestSessionsOfOneSourceAtASmarthost(t *testing.T) {
	t.Parallel()
	r, _ := newHouse(t, 7, func(r *rig, h *House) { h.Sessions, r.cfg.Gate = 2, &countedGate{} })
	a, b := r.visit(), r.visit()
	c := r.connect()
	c.want("421 4.7.0 gw.example: Too many concurrent SMTP connections from this IP address; please try again later")
	c.closed()
	a.cmd("QUIT", "221")
	a.closed()
	b.cmd("QUIT", "221")
	b.closed()
}

// countedGate lets perSource sessions in and has nobody wait.
type countedGate struct {
	mu sync.Mutex
	n  int
}

func (g *countedGate) Enter(ctx context.Context, _, _ netip.Addr, perSource, _ int) (func(), error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.n >= perSource {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	g.n++
	return func() { g.mu.Lock(); g.n--; g.mu.Unlock() }, nil
}
