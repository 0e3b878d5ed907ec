package public

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// desk knows one message and one lock.
type desk struct {
	appeals []Appeal
	unlocks []netip.Addr
	locked  error
	appeal  error
}

func (d *desk) Refused(_ context.Context, id string) (*Refusal, error) {
	if id != "abc.1" {
		return nil, ErrUnknown
	}
	state := ""
	if len(d.appeals) > 0 {
		state = "open"
	}
	return &Refusal{ID: id, Time: time.Unix(1_800_000_000, 0), Code: "SPAM", Recipients: 2, Appeal: state}, nil
}

func (d *desk) Appeal(_ context.Context, a Appeal) error {
	if d.appeal == nil {
		d.appeals = append(d.appeals, a)
	}
	return d.appeal
}

func (d *desk) Locked(_ context.Context, ticket string) (*Lock, error) {
	if d.locked != nil || len(d.unlocks) > 0 || ticket != "ABCD-EFGH" {
		if d.locked == nil {
			return nil, ErrOver
		}
		return nil, d.locked
	}
	return &Lock{Ticket: ticket, Whom: "alice <script>", Code: "SPAM", Reason: "sent 5 spam messages", Since: time.Unix(1_800_000_000, 0), Left: 2}, nil
}

func (d *desk) Unlock(_ context.Context, _ string, from netip.Addr) error {
	d.unlocks = append(d.unlocks, from)
	return nil
}

// world is a server with its desk and a clock that stands.
type world struct {
	*testing.T
	s     *Server
	d     *desk
	links *Links
	now   time.Time
}

func newWorld(t *testing.T, look Look) *world {
	t.Helper()
	t.Parallel()
	w := &world{T: t, d: &desk{}, links: NewLinks("https://mail.provider.example/", make([]byte, KeySize)), now: time.Unix(1_800_000_600, 0)}
	var err error
	w.s, err = New(Options{
		Pages: fstest.MapFS{
			"SPAM.md":  {Data: []byte("# SPAM: looks like spam\n\nWords <b>and</b> `links`.\n\n**What to do.** Tell us,\nplease.\n")},
			"VIRUS.md": {Data: []byte("# VIRUS: a virus\n\nBad.\n")},
		},
		Links: w.links, Desk: w.d, Look: func() Look { return look }, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return w.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// ask makes one request and returns status and body; form nil is GET.
func (w *world) ask(path string, form url.Values, header ...string) (int, string) {
	w.Helper()
	path = strings.TrimPrefix(path, "https://mail.provider.example")
	r := httptest.NewRequest(http.MethodGet, path, nil)
	if form != nil {
		r = httptest.NewRequest(http.MethodPost, path, strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	r.RemoteAddr = "192.0.2.7:1234"
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	rec := httptest.NewRecorder()
	w.s.serve(rec, r)
	if csp := rec.Header().Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || rec.Header().Get("Referrer-Policy") != "no-referrer" {
		w.Errorf("%s has no protection: %v", path, rec.Header())
	}
	return rec.Code, rec.Body.String()
}

func (w *world) want(what string, code, wantCode int, body string, texts ...string) {
	w.Helper()
	if code != wantCode {
		w.Errorf("%s: status %d, want %d", what, code, wantCode)
	}
	for _, text := range texts {
		if !strings.Contains(body, text) {
			w.Errorf("%s: %q is missing in\n%s", what, text, body)
		}
	}
	if strings.Contains(body, "<script") {
		w.Errorf("%s: a script, which nothing here needs", what)
	}
}

func TestPagesOfCodes(t *testing.T) {
	w := newWorld(t, Look{Brand: "Provider <Mail>", Contact: "abuse@provider.example"})
	code, body := w.ask("/", nil)
	w.want("index", code, 200, body, `href="/codes/SPAM"`, `href="/codes/VIRUS"`, "Provider &lt;Mail&gt;", `<a href="mailto:abuse@provider.example">`, `<html lang="en">`)
	code, body = w.ask("/codes/?q=LINKS+spam", nil)
	if w.want("search", code, 200, body, `href="/codes/SPAM"`); strings.Contains(body, "VIRUS") {
		t.Error("the search finds what has not its words")
	}
	code, body = w.ask("/codes/?q=%22%3Cscript%3E", nil)
	w.want("nothing found", code, 200, body, "No code fits", "&lt;script&gt;")
	code, body = w.ask("/codes/spam", nil)
	if w.want("a code", code, 200, body, "<code>SPAM</code>: looks like spam", "Words &lt;b&gt;and&lt;/b&gt; <code>links</code>", "<strong>What to do.</strong> Tell us, please."); strings.Contains(body, "<form") {
		t.Error("a page that knows no message has a form")
	}
	code, body = w.ask("/codes/NOPE", nil)
	w.want("no such code", code, 404, body, "no such page")
	code, body = w.ask("/codes/", nil, "Accept-Language", "nl, de-AT;q=0.9, en;q=0.5")
	w.want("in German", code, 200, body, `<html lang="de">`, "Warum wurde meine E-Mail abgelehnt?")
}

func TestContactThatIsNoMailbox(t *testing.T) {
	w := newWorld(t, Look{Contact: "030 0123456, abuse@provider.example"})
	code, body := w.ask("/", nil)
	if w.want("index", code, 200, body, "030 0123456, abuse@provider.example"); strings.Contains(body, "mailto:") {
		t.Error("a telephone number is a link for mail")
	}
}

func TestAppeal(t *testing.T) {
	w := newWorld(t, Look{})
	page := w.links.Page("SPAM", "abc.1")
	code, body := w.ask(page, nil)
	w.want("the page", code, 200, body, "This is not spam", "abc.1", "to 2 recipients")
	if len(w.d.appeals) != 0 {
		t.Error("a GET appeals")
	}
	u, _ := url.Parse(page)
	m := u.Query().Get("m")
	for _, bad := range []string{"abc.1", "abc.1-0000000000", "abc.2-" + m[len(m)-10:], m + "x", "-"} {
		code, body = w.ask("/codes/SPAM", url.Values{"m": {bad}})
		w.want("forged "+bad, code, 404, body, "not one of ours")
	}
	code, body = w.ask("/codes/SPAM", url.Values{"m": {m}, "text": {strings.Repeat("x", mostText+1)}})
	w.want("too long", code, 413, body)
	code, body = w.ask("/codes/SPAM", url.Values{"m": {m}, "text": {" a letter <b> to my aunt "}})
	w.want("appeal", code, 200, body, "Thank you")
	code, body = w.ask("/codes/SPAM", url.Values{"m": {m}, "text": {"again"}})
	w.want("again", code, 200, body, "need not send it again")
	if len(w.d.appeals) != 1 || w.d.appeals[0].Text != "a letter <b> to my aunt" || w.d.appeals[0].Message != "abc.1" {
		t.Errorf("appeals: %+v", w.d.appeals)
	}
	other, _ := url.Parse(w.links.Page("SPAM", "gone.1"))
	code, body = w.ask(other.RequestURI(), nil)
	w.want("a message of long ago", code, 200, body, "Nothing is known of this message")
	w.d.appeals, w.d.appeal = nil, ErrMany
	code, body = w.ask("/codes/SPAM", url.Values{"m": {m}})
	w.want("too many of one sender", code, 429, body, "many reports of this sender")
}

func TestUnlock(t *testing.T) {
	w := newWorld(t, Look{Contact: "abuse@provider.example"})
	link := w.links.Unlock("ABCD-EFGH", w.now.Add(time.Hour))
	for range 3 {
		code, body := w.ask(link, nil)
		w.want("the page", code, 200, body, "alice &lt;script&gt;", "sent 5 spam messages", "ABCD-EFGH", `<form method="post">`, "unlock now")
	}
	if len(w.d.unlocks) != 0 {
		t.Fatal("a GET unlocks")
	}
	for _, bad := range []string{"/unlock/ABCD-EFGH", link[:len(link)-1] + "!", strings.Replace(link, "ABCD", "ABCE", 1)} {
		code, body := w.ask(bad, url.Values{})
		w.want("forged "+bad, code, 404, body, "not one of ours")
	}
	code, body := w.ask(w.links.Unlock("ABCD-EFGH", w.now), url.Values{})
	w.want("expired", code, 410, body, "time is over")
	code, body = w.ask(link, url.Values{})
	w.want("unlock", code, 200, body, "Sending is unlocked")
	code, body = w.ask(link, url.Values{})
	w.want("once more", code, 410, body, "ended already")
	if len(w.d.unlocks) != 1 || w.d.unlocks[0] != netip.MustParseAddr("192.0.2.7") {
		t.Errorf("unlocks: %v", w.d.unlocks)
	}
	for _, c := range []struct {
		err  error
		text string
	}{{ErrManual, "A person set this lock"}, {ErrUsed, "as often as allowed"}, {ErrWithdrawn, "used before"}, {ErrNever, "cannot be ended by a link"}} {
		w.d.locked = c.err
		code, body = w.ask(link, url.Values{})
		w.want(c.text, code, 410, body, c.text, "abuse@provider.example")
	}
	if len(w.d.unlocks) != 1 {
		t.Errorf("unlocks: %v", w.d.unlocks)
	}
}

func TestBoundsOfGuests(t *testing.T) {
	w := newWorld(t, Look{Proxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	last := 0
	for range mostMistakes + 1 {
		last, _ = w.ask("/unlock/x.y.z", nil)
	}
	if last != http.StatusTooManyRequests {
		t.Errorf("whoever tries links hears %d, want 429", last)
	}
	link := w.links.Unlock("ABCD-EFGH", w.now.Add(time.Hour))
	if code, _ := w.ask(link, nil); code != 200 {
		t.Errorf("the right link is then %d", code)
	}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = "127.0.0.1:1"
	r.Header.Set("X-Forwarded-For", "203.0.113.9, 2001:db8::5")
	if got := w.s.guest(r); got != netip.MustParseAddr("2001:db8::5") {
		t.Errorf("behind our proxy the guest is %v", got)
	}
	r.RemoteAddr = "192.0.2.1:1"
	if got := w.s.guest(r); got != netip.MustParseAddr("192.0.2.1") {
		t.Errorf("a stranger who claims to be a proxy is %v", got)
	}
	one := newRate(2, time.Minute)
	a, b := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	if !one.allow(a, w.now) || !one.allow(b, w.now) || one.allow(a, w.now) || !one.allow(netip.MustParseAddr("2001:db8:0:1::1"), w.now) {
		t.Error("a /64 is not one guest")
	}
	if !one.allow(a, w.now.Add(31*time.Second)) {
		t.Error("half a minute later nothing is allowed")
	}
}

// TestServesHandedConnections: what is handed in is answered and given back; after Close nothing is.
func TestServesHandedConnections(t *testing.T) {
	w := newWorld(t, Look{})
	ran := make(chan error, 1)
	go func() { ran <- w.s.Run() }()
	here, there := net.Pipe()
	done := make(chan struct{})
	go w.s.Serve(there, func() { close(done) })
	go func() {
		_, _ = io.WriteString(here, "GET /codes/VIRUS HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	}()
	all, err := io.ReadAll(here)
	if err != nil || !strings.HasPrefix(string(all), "HTTP/1.1 200 OK") || !strings.Contains(string(all), "a virus") {
		t.Errorf("%q %v", all, err)
	}
	<-done
	if err := w.s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ran; err != nil {
		t.Error(err)
	}
	_, there = net.Pipe()
	late := make(chan struct{})
	w.s.Serve(there, func() { close(late) })
	<-late
}

func TestPagesThatAreWrong(t *testing.T) {
	t.Parallel()
	_, err := readPages(fstest.MapFS{"SPAM.md": {Data: []byte("# VIRUS: x\n")}})
	if err == nil || !strings.Contains(err.Error(), "SPAM.md") {
		t.Errorf("a page with another's heading: %v", err)
	}
	if got := string(paragraphs("a ** b `c")); got != "<p>a ** b `c</p>\n" {
		t.Errorf("marks without their other half: %q", got)
	}
}
