package delivery

import (
	"context"
	"errors"
	"fmt"

	"sluice/filter/reputation/replies"
	"sluice/proxy/pool"
	"sluice/proxy/relay"
	"sluice/proxy/smtp"
	"sluice/proxy/spool"
)

// try is one attempt at one delivery.
type try struct {
	q   *Queue
	l   *spool.Lease
	ln  *lane
	res Result
	// told holds the last word on each recipient; those that were not asked have no code.
	told    []Outcome
	asked   []int // indices of the recipients of the transaction
	rest    []int // of those for whom there is no room in it
	done    []int // of those of earlier ones, in this try or before it was interrupted
	through bool  // the last one went its whole way
	missed  string
	cut     bool       // our own end came before a destination was reached: it was no try
	hold    *hold      // of the worker; nil: none
	up      *Upstream  // by which the message goes; nil: none
	low     *smtp.Body // the message in 7 bits, once some destination needed it
}

// one tries one delivery, and tells whether the worker may go on with the next. Where dead is not empty nothing is tried,
// since the destination was just found so.
func (q *Queue) one(l *lane, id spool.ID, dead string, h *hold) (good bool) {
	if l.domain == reports {
		q.report(id)
		return true
	}
	end, ok := q.turnOf(l, id)
	if !ok {
		return true
	}
	if end != nil {
		defer end()
	}
	lease, err := q.s.Lease(id)
	if err != nil {
		q.unleased(id, err)
		return errors.Is(err, spool.ErrUnknown) || errors.Is(err, spool.ErrHeld)
	}
	if lease.State.Owed() {
		q.back(lease)
		q.report(id)
		return true
	}
	t := &try{q: q, l: lease, ln: l, hold: h}
	defer func() {
		if cause := recover(); cause != nil {
			q.panicked(lease, cause)
			good = false
		}
	}()
	t.begin()
	if dead != "" {
		t.all(ours(451, smtp.Enhanced{4, 4, 1}, dead))
	} else {
		t.deliver()
	}
	if t.cut {
		if err := lease.Return(); err != nil {
			q.alarm(err)
		}
		return false
	}
	t.settle()
	if t.missed != "" {
		q.missed(l, t.missed)
		q.overdue(l, t.missed)
		return false
	}
	return true
}

func (q *Queue) alarm(err error) {
	if q.o.Alarm != nil {
		q.o.Alarm(err)
	}
}

func (t *try) begin() {
	e := &t.l.Envelope
	t.res = Result{Delivery: t.l.ID, Envelope: e, Size: t.l.Size, At: t.q.o.Now(), Tries: t.l.State.Attempts + 1}
	for i, r := range e.Rcpts {
		if t.l.Open(i) {
			t.asked = append(t.asked, i)
		}
		t.told = append(t.told, Outcome{Rcpt: r})
	}
	t.resume()
}

// all gives every open recipient the same answer.
func (t *try) all(r spool.Reply) {
	for _, i := range t.asked {
		t.told[i].Reply, t.told[i].Fate = r, fateOf(r.Code)
	}
	t.res.Note = r.Text
}

func fateOf(code int) Fate {
	switch code / 100 {
	case 2:
		return Delivered
	case 5:
		return Failed
	}
	return Deferred
}

// deliver goes through the ways there are until one leads to an answer.
func (t *try) deliver() {
	env := &t.l.Envelope
	r, err := t.q.route(t.q.ctx, env, t.ln.domain)
	if t.cut = err != nil && t.q.ctx.Err() != nil; t.cut {
		return
	}
	if err != nil {
		var n *nowhere
		if !errors.As(err, &n) {
			n = &nowhere{ours(451, smtp.Enhanced{4, 4, 3}, err.Error())}
		}
		t.all(n.Reply)
		if n.Code/100 == 4 {
			t.missed = n.Text
		}
		return
	}
	t.q.join(t.ln, r.site)
	body, err := t.l.Body()
	if err != nil {
		t.unreadable(err)
		return
	}
	defer body.Release()
	defer func() { t.low.Release() }()
	waived := !env.RequireTLS && waivesTLS(body.Header())
	tried, unkept, open := 0, false, r.hindered // open: why it is not known yet whether another way would do
	for i := 0; i < len(r.ways); i++ {
		w := &r.ways[i]
		s, err := t.q.open(t.q.ctx, &call{Mail{env.User, env.Client, env.From, env.Class, t.ln.domain}, t.rcpts(true), waived, t.hold}, w)
		if errors.Is(err, errNoAddress) {
			continue
		}
		tried++
		if t.cut = err != nil && t.q.ctx.Err() != nil && len(t.done) == 0; t.cut {
			return
		}
		if err != nil {
			f := asFailure(err)
			t.all(spool.Reply{Code: temporary(f.Code), Enh: f.Enh, Text: f.Text, Host: hostIf(f.Raw != nil, w.host)})
			t.missed, t.res.Host, t.res.Target, open = f.Error(), w.host, w.target, err
			continue
		}
		t.missed = ""
		used := s.Begun() > 0
		switch t.transfer(s, w, body) {
		case answered:
			if !t.further() {
				return
			}
			if r := t.keep(); r.Code != 0 {
				t.all(r)
				return
			}
			i--
		case lost:
			if used { // a session that stood from before has ended meanwhile, which says nothing of the host
				i--
				continue
			}
			open = errors.New(t.missed)
		case notNow:
			open = errors.New(t.res.Note)
		case unproven:
			unkept = true
		}
	}
	if unkept {
		t.unkept(open)
		return
	}
	if tried == 0 || t.told[t.asked[0]].Reply.Code == 0 {
		t.all(ours(451, smtp.Enhanced{4, 4, 4}, "the gateway has no delivery address of the family that "+t.ln.domain+" has"))
		t.missed = t.res.Note
	}
}

func hostIf(said bool, host string) string {
	if said {
		return host
	}
	return ""
}

// temporary makes a refusal before the envelope was heard one for now: it is about this gateway or that server, not about
// the message.
func temporary(code int) int {
	if code/100 == 5 {
		return 450
	}
	return code
}

// unreadable sets a delivery aside whose message cannot be read.
func (t *try) unreadable(err error) {
	t.all(ours(451, smtp.Enhanced{4, 3, 0}, "the message cannot be read: "+err.Error()))
	if errors.Is(err, spool.ErrDamaged) {
		if serr := t.l.SetAside(err); serr != nil {
			t.q.alarm(serr)
		}
		t.l = nil
	}
}

var errNoAddress = errors.New("no delivery address of that family")

// call is what a session is opened for.
type call struct {
	Mail
	rcpts  []smtp.Rcpt
	waived bool  // its sender would rather have it arrive than protected
	hold   *hold // the worker's; nil: there is none
}

// open opens a session by one of the ways, or takes one that stands.
func (q *Queue) open(ctx context.Context, c *call, w *way) (*relay.Session, error) {
	rt := relay.Route{Target: w.target, Helo: q.o.Name}
	if q.o.Choose != nil {
		d, ok := q.o.Choose(&c.Mail, w.target.Addr())
		switch {
		case d.Why == pool.Spent:
			return nil, &relay.Failure{Code: 451, Enh: smtp.Enhanced{4, 3, 2}, Text: d.Why.String()}
		case !ok:
			return nil, errNoAddress
		case d.IP.IsValid():
			rt.Source, rt.Helo, rt.Own = d.IP, d.Helo, d.Own
		}
	}
	terms := w.policy
	if c.waived && w.up == nil {
		terms = nil // what the operator asks for holds all the same
	}
	if q.o.Terms != nil && w.up == nil {
		set, err := q.o.Terms(ctx, c.User, w.target, c.Domain)
		if err != nil {
			return nil, err
		}
		if set != nil && !terms.Must() {
			terms = set
		}
	}
	if s := c.hold.take(c, &rt, w.up, terms); s != nil {
		return s, nil
	}
	if w.up == nil || w.up.User == "" { // a session that logged in is another user's to nobody
		if s := q.o.Dialer.Take(c.User, rt); s != nil {
			if s.Meets(terms) == nil && s.Fits(c.rcpts) {
				return s, nil
			}
			s.Close()
		}
	}
	s, err := q.o.Dialer.OpenUnder(ctx, rt, terms)
	if err == nil && w.up != nil && w.up.User != "" {
		if err = login(s, w.up); err != nil {
			s.Close()
		}
	}
	return s, err
}

func asFailure(err error) *relay.Failure {
	var f *relay.Failure
	if errors.As(err, &f) {
		return f
	}
	return &relay.Failure{Code: 451, Enh: smtp.Enhanced{4, 4, 3}, Text: err.Error()}
}

// slow notes when a destination says that it is too much for now: replies of class 4 that speak of the sender's rate or
// reputation rather than of the recipient (RFC 3463 X.3.2, X.4.5, X.7.x), or 421. Greylisting is about one mail.
func (t *try) slow() {
	for _, i := range t.asked {
		r := &t.told[i].Reply
		if t.told[i].Fate != Deferred || r.Host == "" {
			continue
		}
		e := r.Enh
		switch meaning(replies.Anywhere, r) {
		case replies.Rate, replies.Blocked:
		case replies.Greylist:
			continue
		default:
			if r.Code != 421 && !(e[0] == 4 && (e[1] == 7 || e[1] == 3 && e[2] == 2 || e[1] == 4 && e[2] == 5)) {
				continue
			}
		}
		t.missed = fmt.Sprintf("%d %s", r.Code, r.Text)
	}
}

// end keeps the session for the next message, or ends it.
func (t *try) end(s *relay.Session, good bool) {
	if t.missed == "" {
		t.q.reached(t.ln)
	}
	s.Abandon()
	again := good && s.Begun() < t.q.perWay(t.ln)
	if again && t.hold.put(t.l.Envelope.User, s, t.up) {
		return
	}
	if again && (t.up == nil || t.up.User == "") && t.q.o.Dialer.Keep(t.l.Envelope.User, s) {
		return
	}
	if good {
		s.Quit()
	}
	s.Close()
}

// Gone is asked right before the message leaves; from here on it may arrive without our knowing.
func (t *try) Gone() bool {
	return t.l.Noted() != nil // the spool is bad: what comes of it could not be written
}
