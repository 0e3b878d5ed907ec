package notify

import (
	"context"
	"errors"
	"io"
	"mime"
	"mime/quotedprintable"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestTextsOfLocks(t *testing.T) {
	t.Parallel()
	texts, err := LoadTexts("")
	if err != nil {
		t.Fatal(err)
	}
	if got := texts.Languages(Locked); !slices.Equal(got, []string{"de", "en", "fr"}) {
		t.Errorf("languages are %v", got)
	}
	for lang, want := range map[string]string{"de": "Versand gesperrt: alice", "fr": "Envoi bloqué : alice", "EN": "Sending is locked: alice", "nl": "Sending is locked: alice"} {
		v := sample()
		subject, text, err := texts.Write(Locked, lang, v)
		if err != nil || !strings.HasPrefix(subject, want) {
			t.Errorf("%s: %q %v", lang, subject, err)
		}
		for _, must := range []string{v.Ticket, v.Unlock, v.Page, v.Contact, "2027-01-15 08:00 UTC", "a@customer.example", "web1"} {
			if !strings.Contains(text, must) {
				t.Errorf("%s: %q is missing in\n%s", lang, must, text)
			}
		}
	}
	v := sample()
	v.Unlock, v.Reason = "", "line one\nFrom: forged"
	_, text, err := texts.Write(Locked, "en", v)
	if err != nil || strings.Contains(text, "ended here") || strings.Contains(text, "\nFrom: forged") {
		t.Errorf("without a link, with a stranger's line: %v\n%s", err, text)
	}
}

func TestTextsOfTheOperator(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("locked.nl.txt", "Subject: Geblokkeerd {{.Ticket}}\r\n\r\nHallo {{.User}}\r\n")
	texts, err := LoadTexts(dir)
	if err != nil {
		t.Fatal(err)
	}
	subject, text, err := texts.Write(Locked, "nl", sample())
	if err != nil || subject != "Geblokkeerd ABCD-EFGH" || text != "Hallo alice\n" {
		t.Errorf("%q %q %v", subject, text, err)
	}
	for name, c := range map[string]struct{ text, want string }{
		"locked.xx.txt": {"Subject: {{.Nobody}}\n\nx\n", "filled in"},
		"locked.yy.txt": {"Subject: {{if}}\n\nx\n", "no template"},
		"locked.zz.txt": {"no subject\n\nx\n", "has to begin"},
		"lokced.en.txt": {"Subject: x\n\nx\n", "not known for what"},
	} {
		write(name, c.text)
		if _, err := LoadTexts(dir); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v, want the file's name and %q", name, err, c.want)
		}
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := LoadTexts(filepath.Join(dir, "gone")); err == nil {
		t.Error("a folder that is not there is taken")
	}
}

func TestMailIsAutomaticAndASCII(t *testing.T) {
	t.Parallel()
	m := Mail{Gateway: "gw.example", From: "postmaster@gw.example", ReplyTo: "abuse@gw.example", To: "a@x.example\r\nBcc: b@y.example", ID: "n1", Date: time.Unix(1_800_000_000, 0), Subject: "Gesperrt: Müller", Text: "Grüße\nzweite Zeile\n.\n"}
	b := m.Bytes()
	if strings.ContainsFunc(string(b), func(r rune) bool { return r > 126 }) || strings.Contains(strings.ReplaceAll(string(b), "\r\n", ""), "\n") {
		t.Errorf("not ASCII with CRLF: %q", b)
	}
	got, err := mail.ReadMessage(strings.NewReader(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(quotedprintable.NewReader(got.Body))
	if err != nil || strings.ReplaceAll(string(text), "\r\n", "\n") != m.Text {
		t.Errorf("text %q %v", text, err)
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(got.Header.Get("Subject"))
	if err != nil || subject != m.Subject || got.Header.Get("Auto-Submitted") != "auto-generated" || got.Header.Get("Bcc") != "" {
		t.Errorf("subject %q %v, header %v", subject, err, got.Header)
	}
}

// shelf is a journal in memory.
type shelf struct {
	mu  sync.Mutex
	cs  []Call
	err error
}

func (s *shelf) AddCalls(cs ...Call) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cs = append(s.cs, cs...)
	return s.err
}

func (s *shelf) DueCalls(hook string, now time.Time, most int) (due []Call, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.cs {
		if c.Hook == hook && !now.Before(c.Next) && len(due) < most {
			due = append(due, c)
		}
	}
	return due, s.err
}

func (s *shelf) CountCalls() (map[string]int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := map[string]int{}
	for _, c := range s.cs {
		n[c.Hook]++
	}
	return n, s.err
}

func (s *shelf) CallTried(c Call) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.cs {
		if s.cs[i].ID == c.ID && s.cs[i].Hook == c.Hook {
			s.cs[i] = c
		}
	}
	return s.err
}

func (s *shelf) DropCall(hook, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cs = slices.DeleteFunc(s.cs, func(c Call) bool { return c.Hook == hook && c.ID == id })
	return s.err
}

// bell is an endpoint's server that fails so many times first.
type bell struct {
	mu     sync.Mutex
	fail   int
	status int
	ids    []string
	bodies []string
	bad    []string // signatures that do not fit
	rung   chan string
}

func (b *bell) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	b.mu.Lock()
	defer b.mu.Unlock()
	id := r.Header.Get("Webhook-Id")
	if r.Header.Get("Webhook-Signature") != Signature([]byte("secret"), id, r.Header.Get("Webhook-Timestamp"), body) {
		b.bad = append(b.bad, id)
	}
	b.ids = append(b.ids, id)
	if b.fail > 0 {
		b.fail--
		w.WriteHeader(b.status)
		return
	}
	b.bodies = append(b.bodies, string(body))
	b.rung <- string(body)
}

func hooksFor(t *testing.T, s *shelf, o HookOptions, ends ...Endpoint) (h *Hooks, alarms chan error) {
	t.Helper()
	alarms = make(chan error, 100)
	o.Journal, o.Alarm, o.Agent = s, func(err error) { alarms <- err }, "sluiced test"
	o.First, o.Longest, o.Poll = time.Millisecond, 5*time.Millisecond, time.Millisecond
	h = NewHooks(o)
	h.Configure(ends)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { h.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return h, alarms
}

func heard(t *testing.T, b *bell) string {
	t.Helper()
	select {
	case got := <-b.rung:
		return got
	case <-time.After(30 * time.Second):
		t.Fatal("nothing is heard")
		return ""
	}
}

// TestHooksTryAgain: what fails comes again with the same id and a signature that fits; a dead endpoint is alarmed once, and
// does not delay another.
func TestHooksTryAgain(t *testing.T) {
	t.Parallel()
	slow := &bell{fail: deadAfter + 2, status: 500, rung: make(chan string, 10)}
	quick := &bell{rung: make(chan string, 10)}
	one, two := httptest.NewServer(slow), httptest.NewServer(quick)
	defer one.Close()
	defer two.Close()
	s := &shelf{}
	h, alarms := hooksFor(t, s, HookOptions{}, Endpoint{Name: "slow", URL: one.URL, Secret: []byte("secret")}, Endpoint{Name: "quick", URL: two.URL, Secret: []byte("secret"), Kinds: []string{"lock"}})
	for _, e := range []struct{ kind, body string }{{"lock", "1"}, {"unlock", "2"}} {
		if err := h.Tell(e.kind, "evt"+e.body, []byte(e.body)); err != nil {
			t.Fatal(err)
		}
	}
	if got := heard(t, quick); got != "1" {
		t.Errorf("quick hears %q", got)
	}
	got := []string{heard(t, slow), heard(t, slow)}
	if slices.Sort(got); !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("slow hears %q", got)
	}
	slow.mu.Lock()
	defer slow.mu.Unlock()
	seen := map[string]bool{}
	for _, id := range slow.ids {
		seen[id] = true
	}
	if len(seen) != 2 || len(slow.ids) != deadAfter+4 || len(slow.bad)+len(quick.bad) > 0 {
		t.Errorf("ids %q, wrong signatures %q", slow.ids, slow.bad)
	}
	if len(alarms) != 1 {
		t.Errorf("%d alarms, want one", len(alarms))
	}
	if err := <-alarms; !strings.Contains(err.Error(), "slow is dead") {
		t.Errorf("alarm: %v", err)
	}
}

// TestHooksSurviveARestart: what one process could not tell, the next one does.
func TestHooksSurviveARestart(t *testing.T) {
	t.Parallel()
	s := &shelf{}
	first := NewHooks(HookOptions{Journal: s})
	first.Configure([]Endpoint{{Name: "panel", URL: "http://127.0.0.1:1/"}})
	if err := first.Tell("lock", "evt1", []byte("x")); err != nil {
		t.Fatal(err)
	}
	b := &bell{rung: make(chan string, 1)}
	srv := httptest.NewServer(b)
	defer srv.Close()
	hooksFor(t, s, HookOptions{}, Endpoint{Name: "panel", URL: srv.URL, Secret: []byte("secret")})
	if got := heard(t, b); got != "x" {
		t.Errorf("heard %q", got)
	}
}

func TestHooksGiveUp(t *testing.T) {
	t.Parallel()
	gone := &bell{fail: 1000, status: http.StatusGone, rung: make(chan string, 1)}
	srv := httptest.NewServer(gone)
	defer srv.Close()
	s := &shelf{}
	h, alarms := hooksFor(t, s, HookOptions{}, Endpoint{Name: "old", URL: srv.URL})
	if err := h.Tell("lock", "evt1", []byte("x")); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-alarms:
		if !strings.Contains(err.Error(), "old was not told") {
			t.Errorf("alarm: %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("no alarm")
	}
	other := &shelf{}
	for i := range mostWaiting {
		other.cs = append(other.cs, Call{ID: string(rune(i)), Hook: "full"})
	}
	full := NewHooks(HookOptions{Journal: other, Alarm: func(err error) { alarms <- err }})
	full.Configure([]Endpoint{{Name: "full"}})
	if err := full.Tell("lock", "evt1", nil); err != nil {
		t.Fatal(err)
	}
	if err := <-alarms; !strings.Contains(err.Error(), "told no more") {
		t.Errorf("alarm: %v", err)
	}
	other.err = errors.New("the disk is gone")
	if err := full.Tell("lock", "evt1", nil); err == nil {
		t.Error("an event that is on no disk was taken")
	}
}
