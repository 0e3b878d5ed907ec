package relay

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"sluice/proxy/smtp"
)

// OwnDialer connects from a customer's own address, which only the privileged helper may do. The connection is the
// caller's.
type OwnDialer interface {
	DialOwn(ctx context.Context, src netip.Addr, dst netip.AddrPort) (net.Conn, error)
}

// Options make a Dialer.
type Options struct {
	Timeouts Timeouts
	Own      OwnDialer // nil: delivery from customers' own addresses is not possible
	Servers  Servers   // may be nil: nothing is known of any server but what it shows
	// Roots are the authorities that are trusted where a certificate is looked at; nil are those of the system.
	Roots *x509.CertPool
	// Keep is how long a session stands idle for the user's next mail by the same route; 0: not at all.
	Keep time.Duration
	// Chunks sends small messages as one chunk (RFC 3030) to who can take that.
	Chunks bool
	// Leave is asked before a connection from one of our addresses, and may refuse, or wait until ctx ends; done is called when
	// it has ended. May be nil: any may leave.
	Leave func(ctx context.Context, source netip.Addr, target netip.AddrPort) (done func(), err error)
}

// Dialer opens onward sessions and remembers what destinations can do. It is safe for concurrent use.
type Dialer struct {
	timeouts Timeouts
	own      OwnDialer
	servers  Servers
	roots    *x509.CertPool
	tls      *tls.Config
	cache    cache
	shakes   shakes
	legs     Legs
	keep     time.Duration
	chunks   bool
	takers   takers
	leave    func(ctx context.Context, source netip.Addr, target netip.AddrPort) (done func(), err error)
	kept     keeper
}

// NewDialer returns a Dialer.
func NewDialer(o Options) *Dialer {
	return &Dialer{timeouts: o.Timeouts.orDefaults(), own: o.Own, servers: o.Servers, roots: o.Roots, tls: onward(), keep: o.Keep, chunks: o.Chunks, leave: o.Leave}
}

// Known returns what the destination of r can do as far as it was seen in the last ten minutes, and unless more could be seen
// of it by now.
func (d *Dialer) Known(r *Route) (Caps, bool) {
	if k := d.cache.get(r.place(), time.Now()); k != nil && !d.provable(&k.caps, r.Target) {
		return k.caps, true
	}
	return Caps{}, false
}

// Forget drops what is known of the destination of r.
func (d *Dialer) Forget(r *Route) { d.cache.drop(r.place()) }

func (r *Route) place() place { return place{r.Target, r.Source} }

func (d *Dialer) open(ctx context.Context, r Route, t *terms) (*Session, *Failure) {
	return d.lead(ctx, r, func(s *Session) *Failure { return s.start(d.tls, t) })
}

// lead connects and has start lead the session to where it can be used. Where the destination turns it away, sessions of ours
// that stand idle there may be why: they give way, and it is tried once more.
func (d *Dialer) lead(ctx context.Context, r Route, start func(*Session) *Failure) (*Session, *Failure) {
	s, f := d.leadOnce(ctx, r, start)
	if f != nil && f.Raw != nil && f.Code/100 == 4 && d.giveWay(ctx, r.Target.Addr(), time.Now()) {
		return d.leadOnce(ctx, r, start)
	}
	return s, f
}

func (d *Dialer) leadOnce(ctx context.Context, r Route, start func(*Session) *Failure) (*Session, *Failure) {
	done, f := d.mayLeave(ctx, &r)
	if f != nil {
		return nil, f
	}
	nc, f := d.connect(ctx, &r)
	if f != nil {
		done()
		return nil, f
	}
	s := &Session{route: r, done: done, timeouts: &d.timeouts, roots: d.roots, nc: nc, conn: smtp.NewConn(nc, smtp.Options{
		ReadTimeout:      d.timeouts.Greeting,
		WriteTimeout:     d.timeouts.Command,
		HandshakeTimeout: d.timeouts.Handshake,
	})}
	s.ask = s.stillThere
	stop := context.AfterFunc(ctx, s.Cut)
	f = start(s)
	if !stop() && f == nil {
		f = unreachable("the gateway is stopping", ctx.Err())
	}
	if f != nil {
		s.Close()
		return nil, f
	}
	s.conn.SetReadTimeout(d.timeouts.Command)
	s.conn.Idle()
	return s, nil
}

// mayLeave asks whether a connection may be made from one of our addresses.
func (d *Dialer) mayLeave(ctx context.Context, r *Route) (done func(), f *Failure) {
	if d.leave == nil || r.Own || !r.Source.IsValid() {
		return nothing, nil
	}
	done, err := d.leave(noWait, r.Source, r.Target)
	if err != nil { // those that stand idle give way first
		at := r.place()
		d.kept.end(0, func(w way) bool { return w.route.place() == at })
		done, err = d.leave(ctx, r.Source, r.Target)
	}
	if err != nil {
		return nil, &Failure{Code: 421, Enh: smtp.Enhanced{4, 3, 2}, Text: "the gateway cannot connect from its delivery address now", Close: true, Err: err}
	}
	return sync.OnceFunc(done), nil
}

func nothing() {}

// noWait is a context that has ended.
var noWait = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// dialTCP gives no connection as nil, which a nil *net.TCPConn is not. There is no name to look up and no second address to
// try, for which Dial has goroutines and contexts.
func dialTCP(ctx context.Context, d *net.Dialer, from, to netip.AddrPort) (net.Conn, error) {
	nc, err := d.DialTCP(ctx, "tcp", from, to)
	if err != nil {
		return nil, err
	}
	return nc, nil
}

// connect opens the TCP connection.
func (d *Dialer) connect(ctx context.Context, r *Route) (net.Conn, *Failure) {
	ctx, cancel := context.WithTimeout(ctx, d.timeouts.Connect)
	defer cancel()
	var nc net.Conn
	var err error
	switch {
	case !r.Own:
		nd := net.Dialer{
			KeepAlive: -1, // every wait has its own time-out
			Control:   leaveFrom,
		}
		nd.SetMultipathTCP(false)
		nc, err = dialTCP(ctx, &nd, netip.AddrPortFrom(r.Source, 0), r.Target)
	case d.own == nil:
		err = errors.New("delivery from customers' own addresses is not set up")
	default:
		nc, err = d.own.DialOwn(ctx, r.Source, r.Target)
	}
	if err == nil {
		return nc, nil
	}
	why := "could not be reached"
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		why = "refused the connection"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		why = "did not answer"
	}
	return nil, unreachable(fmt.Sprintf("the destination %v %s", r.Target.Addr(), why), err)
}
