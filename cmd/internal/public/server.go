// Package public serves the pages that customers see: what a refusal's code means, a way to say that a message was no
// spam, and the button that ends a lock.
//
// Nothing here needs a script, and no GET changes anything: what scans links in mail must neither unlock nor appeal.
package public

import (
	"context"
	"embed"
	"errors"
	"html/template"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

//go:embed pages.html style.css
var files embed.FS

// Errors that a Desk answers with, beside failures of its own.
var (
	ErrUnknown   = errors.New("nothing is known of this")
	ErrOver      = errors.New("the lock has ended")
	ErrManual    = errors.New("a person set the lock")
	ErrNever     = errors.New("links end no lock here")
	ErrUsed      = errors.New("the links were used as often as allowed")
	ErrWithdrawn = errors.New("the right to unlock was withdrawn")
	ErrMany      = errors.New("there are many appeals of this sender")
)

// Refusal is what the sender of a refused message may see of it.
type Refusal struct {
	ID         string
	Time       time.Time
	Code       string
	Recipients int
	Appeal     string // "", "open", "approved" or "denied"
}

// Appeal says that a message was no spam.
type Appeal struct {
	Message string
	Text    string // what the sender says; bounded, any text
	From    netip.Addr
}

// Lock is what its user may see of a lock.
type Lock struct {
	Ticket, Whom, Code, Reason string
	Since, Until               time.Time // a zero Until: a person has to unlock
	Examples                   []Example
	Left                       int // unlocks by link that remain after this one
}

// Example is one message that led to a lock.
type Example struct {
	Time       time.Time
	From, Code string
}

// Desk knows of messages and locks, and does what the pages ask for. An error that is none of this package's is a failure
// of ours.
type Desk interface {
	Refused(ctx context.Context, message string) (*Refusal, error)
	Appeal(ctx context.Context, a Appeal) error
	Locked(ctx context.Context, ticket string) (*Lock, error)
	Unlock(ctx context.Context, ticket string, from netip.Addr) error
}

// Look is how pages present the provider. It may change while the server runs.
type Look struct {
	Brand   string // name of the provider
	Contact string // for questions: a mailbox, a telephone number
	// Proxies are the addresses whose X-Forwarded-For is believed.
	Proxies []netip.Prefix
}

// Mailbox tells whether the contact is one that a mail program can be opened for.
func (l Look) Mailbox() bool {
	return strings.Contains(l.Contact, "@") && !strings.ContainsAny(l.Contact, " <,?&")
}

// Options of New.
type Options struct {
	Pages fs.FS // the pages of the codes, CODE.md
	Links *Links
	Desk  Desk
	Look  func() Look
	Log   *slog.Logger
	Now   func() time.Time // may be nil
}

// Server answers on the connections that Serve is handed.
type Server struct {
	o        Options
	pages    []page
	html     *template.Template
	style    []byte
	http     http.Server
	conns    *handed
	reads    *rate
	writes   *rate
	mistakes *rate
	mux      *http.ServeMux
}

// The bounds of what one address may ask for.
const (
	mostReads    = 120 // pages in a minute
	mostWrites   = 20  // appeals and unlocks in an hour
	mostMistakes = 30  // links that are not ours, in an hour: nobody shall try them out
	mostText     = 4000
	mostConns    = 256
)

// New returns a server; Close ends it.
func New(o Options) (*Server, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Server{o: o, conns: newHanded(mostConns), reads: newRate(mostReads, time.Minute), writes: newRate(mostWrites, time.Hour), mistakes: newRate(mostMistakes, time.Hour)}
	var err error
	if s.pages, err = readPages(o.Pages); err != nil {
		return nil, err
	}
	if s.html, err = template.ParseFS(files, "pages.html"); err != nil {
		return nil, err
	}
	if s.style, err = files.ReadFile("style.css"); err != nil {
		return nil, err
	}
	s.mux = http.NewServeMux()
	s.mux.HandleFunc("GET /style.css", s.serveStyle)
	s.mux.HandleFunc("GET /{$}", s.serveIndex)
	s.mux.HandleFunc("GET /codes/{$}", s.serveIndex)
	s.mux.HandleFunc("GET /codes/{code}", s.serveCode)
	s.mux.HandleFunc("POST /codes/{code}", s.appeal)
	s.mux.HandleFunc("GET /unlock/{token}", s.showLock)
	s.mux.HandleFunc("POST /unlock/{token}", s.unlock)
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { s.say(w, r, http.StatusNotFound, s.words(r).NotFound) })
	s.http = http.Server{
		Handler: http.MaxBytesHandler(http.HandlerFunc(s.serve), 64<<10), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 20 * time.Second,
		WriteTimeout: 20 * time.Second, IdleTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
	}
	return s, nil
}

// Run serves until Close.
func (s *Server) Run() error {
	if err := s.http.Serve(s.conns); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Serve answers on one connection, encrypted or not, closes it and calls done.
func (s *Server) Serve(c net.Conn, done func()) { s.conns.hand(c, done) }

// Close lets requests finish for at most two seconds.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := s.http.Shutdown(ctx); err != nil {
		return s.http.Close()
	}
	return nil
}

// serve says what holds for every page, and bounds what one address may ask.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer") // links are secrets
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Robots-Tag", "noindex")
	h.Set("Cache-Control", "no-store")
	if !s.reads.allow(s.guest(r), s.o.Now()) {
		s.say(w, r, http.StatusTooManyRequests, s.words(r).TooMany)
		return
	}
	s.mux.ServeHTTP(w, r)
}

// guest is who asks: behind a proxy of ours, the address that it names last.
func (s *Server) guest(r *http.Request) netip.Addr {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.IPv4Unspecified()
	}
	from := at.Addr().Unmap()
	for _, p := range s.o.Look().Proxies {
		if !p.Contains(from) {
			continue
		}
		all := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
		if a, err := netip.ParseAddr(strings.TrimSpace(all[len(all)-1])); err == nil {
			return a.Unmap()
		}
		break
	}
	return from
}

func (s *Server) words(r *http.Request) *words { return wordsFor(r.Header.Get("Accept-Language")) }
