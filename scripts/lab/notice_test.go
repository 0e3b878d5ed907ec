//go:build labtest

package lab

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime/quotedprintable"
	"net"
	"net/http"
	"net/mail"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// noticeConfig is the usual gateway with its own pages, a desk, a webhook on the gateway itself, and alice as somebody who can
// be written to, in German.
func noticeConfig(t *testing.T, l *Lab) string {
	t.Helper()
	secret := filepath.Join(l.Dir(), "hook.secret")
	if err := os.WriteFile(secret, []byte(hookSecret+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(GatewayConfig, "help_url = \"https://gw.example/mail/\"\n", "brand = \"Provider Mail\"\n", 1)
	text = strings.Replace(text, `name = "{{.Name}}"`, `name = "{{.Name}}"{{if eq .Name "alice"}}
contact = "owner@sink.example"
language = "de"{{end}}`, 1)
	return text + fmt.Sprintf(`
[public]
listen = ["203.0.113.1:443"]
url = "https://pages.gw.example"
[notice]
desk = "desk@sink.example"
[[webhook]]
name = "panel"
url = "http://127.0.0.1:8099/hook"
secret_file = %q
`, secret)
}

const hookSecret = "0123456789abcdef0123"

// hookSeen is what the webhook hears.
type hookSeen struct {
	Type, ID, Gateway string
	Lock              struct{ Ticket, User, Code string }
	Appeal            struct{ ID, User string }
}

// panel is a webhook's server on the gateway.
type panel struct {
	mu    sync.Mutex
	fail  bool
	tried []string // ids, those that failed too
	heard chan hookSeen
	bad   []string
}

func (p *panel) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	p.mu.Lock()
	defer p.mu.Unlock()
	id := r.Header.Get("Webhook-Id")
	p.tried = append(p.tried, id)
	m := hmac.New(sha256.New, []byte(hookSecret))
	fmt.Fprintf(m, "%s.%s.%s", id, r.Header.Get("Webhook-Timestamp"), body)
	if r.Header.Get("Webhook-Signature") != "v1,"+base64.StdEncoding.EncodeToString(m.Sum(nil)) {
		p.bad = append(p.bad, id)
	}
	if p.fail {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	var h hookSeen
	if err := json.Unmarshal(body, &h); err != nil {
		p.bad = append(p.bad, string(body))
	}
	p.heard <- h
}

// down has the server fail, or not.
func (p *panel) down(is bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail = is
}

func startPanel(t *testing.T, l *Lab) *panel {
	t.Helper()
	ln, err := l.Listen(HostGateway, "127.0.0.1:8099")
	if err != nil {
		t.Fatal(err)
	}
	p := &panel{heard: make(chan hookSeen, 100)}
	srv := &http.Server{Handler: p}
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close() })
	return p
}

// hears waits for an event of a kind, whatever comes before it.
func (p *panel) hears(ctx context.Context, t *testing.T, kind string) hookSeen {
	t.Helper()
	for {
		select {
		case h := <-p.heard:
			if h.Type == kind {
				return h
			}
		case <-ctx.Done():
			t.Fatalf("the webhook hears no %q", kind)
		}
	}
}

// visit asks for a page from the internet; a form that is not nil is posted.
func visit(ctx context.Context, t *testing.T, l *Lab, link string, form url.Values) (int, string) {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // self-made
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return l.Dial(ctx, HostInternet, "", "203.0.113.1:443")
		}}}
	method, body := http.MethodGet, ""
	if form != nil {
		method, body = http.MethodPost, form.Encode()
	}
	r, err := http.NewRequestWithContext(ctx, method, link, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// noticeRead is a notice as its reader sees it.
func noticeRead(t *testing.T, m *Message) (subject, text string) {
	t.Helper()
	got, err := mail.ReadMessage(strings.NewReader(string(m.Data)))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(quotedprintable.NewReader(got.Body))
	if err != nil {
		t.Fatal(err)
	}
	if m.Sender() != "" || got.Header.Get("Auto-Submitted") != "auto-generated" || got.Header.Get("From") != "<postmaster@gw.example>" {
		t.Errorf("a notice from <%s>: %v", m.Sender(), got.Header)
	}
	return got.Header.Get("Subject"), string(b)
}

// lettersTo waits until n messages have arrived for a mailbox, and returns all that have.
func lettersTo(ctx context.Context, t *testing.T, l *Lab, rcpt string, n int) (all []*Message) {
	t.Helper()
	_, err := l.Sink("sink").WaitMatch(ctx, func(ms []*Message) bool {
		all = nil
		for _, m := range ms {
			if slices.Contains(m.Rcpts, "TO:<"+rcpt+">") {
				all = append(all, m)
			}
		}
		return len(all) >= n
	})
	if err != nil {
		t.Fatalf("%d of %d letters arrive for %s: %v", len(all), n, rcpt, err)
	}
	return all
}

// eicar is the test file for virus scanners, in two parts so that this file is none.
const eicar = `X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-` + `ANTIVIRUS-TEST-FILE!$H+H*`

var unlockLink = regexp.MustCompile(`https://pages\.gw\.example/unlock/\S+`)

// evidenceOf states that the bundle of a lock holds the message that it rests on, and that nobody reads that on the disk.
func evidenceOf(ctx context.Context, t *testing.T, g *Gateway, ticket string) {
	t.Helper()
	files := map[string]string{}
	if !eventually(ctx, func() bool {
		out, err := g.Sluice(ctx, "lock", "evidence", ticket, "-o", "-")
		if err != nil || out.Code != 0 {
			t.Fatalf("evidence: %+v %v", out, err)
		}
		z, err := gzip.NewReader(strings.NewReader(out.Stdout))
		if err != nil {
			t.Fatal(err)
		}
		r := tar.NewReader(z)
		for {
			h, err := r.Next()
			if err == io.EOF {
				break
			}
			b, rerr := io.ReadAll(r)
			if err != nil || rerr != nil {
				t.Fatal(err, rerr)
			}
			name := strings.TrimPrefix(h.Name, ticket+"/")
			if strings.HasPrefix(name, "samples/") {
				name = "sample"
			}
			files[name] = string(b)
		}
		return files["sample"] != "" && files["flows.json"] != "" // they come a moment behind the lock
	}) {
		t.Fatalf("the bundle holds %q", slices.Collect(maps.Keys(files)))
	}
	if !strings.Contains(files["sample"], eicar) || !strings.Contains(files["lock.json"], `"EICAR"`) || !strings.Contains(files["timeline.jsonl"], "a@alice.example") || !strings.Contains(files["flows.json"], `"user":"alice"`) {
		t.Errorf("the bundle holds %q", files)
	}
	kept, _ := filepath.Glob(filepath.Join(g.Dir, "state", "samples", "*"))
	if len(kept) != 1 {
		t.Errorf("samples on disk: %q", kept)
	}
	for _, f := range kept {
		if b, err := os.ReadFile(f); err != nil || strings.Contains(string(b), "EICAR") {
			t.Errorf("%s can be read: %v", f, err)
		}
	}
	if out := sluice(t, g, "audit"); !strings.Contains(out, "evidence read") {
		t.Errorf("audit: %s", out)
	}
}

// TestLockIsTold: one mail for each lock, to the user's contact in his language, else to his account's, else to the desk; a signed call of a webhook,
// which is told again over a kill until it answers. The link in the mail opens a page, which unlocks by its button alone, once;
// who is locked again soon after has no link any more, until a person says so.
// What the lock rests on can be fetched. An account is locked as one.
func TestLockIsTold(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	p := startPanel(t, l)
	g := startGatewayWith(t, l, noticeConfig(t, l))
	virus := func() string {
		return say(ctx, t, l, "alice", "u@sink.example", "Subject: invoice\r\n\r\n"+eicar+"\r\n")
	}
	if got := virus(); !strings.HasPrefix(got, "550 5.7.1 gw.example: [EICAR]") || !strings.Contains(got, "; see https://pages.gw.example/codes/EICAR?m=") {
		t.Errorf("alice hears %q", got)
	}
	lock := p.hears(ctx, t, "lock")
	if lock.Lock.User != "alice" || lock.Lock.Code != "EICAR" || lock.Lock.Ticket != ticketOf(ctx, t, g) || lock.Gateway != "gw.example" {
		t.Errorf("the webhook hears %+v", lock)
	}
	evidenceOf(ctx, t, g, lock.Lock.Ticket)
	subject, text := noticeRead(t, lettersTo(ctx, t, l, "owner@sink.example", 1)[0])
	link := unlockLink.FindString(text)
	if !strings.Contains(subject, "Versand") || !strings.Contains(text, lock.Lock.Ticket) || !strings.Contains(text, "a@alice.example") || link == "" {
		t.Fatalf("the notice is %q:\n%s", subject, text)
	}
	for range 3 { // as scanners of links do
		if code, body := visit(ctx, t, l, link, nil); code != 200 || !strings.Contains(body, lock.Lock.Ticket) || !strings.Contains(body, `<form method="post">`) {
			t.Errorf("the page: %d\n%s", code, body)
		}
	}
	if ticketOf(ctx, t, g) != lock.Lock.Ticket {
		t.Error("a GET has ended the lock")
	}
	if code, body := visit(ctx, t, l, link[:len(link)-1]+"!", url.Values{}); code != 404 {
		t.Errorf("a forged link: %d %s", code, body)
	}
	if code, body := visit(ctx, t, l, link, url.Values{}); code != 200 || !strings.Contains(body, "Sending is unlocked") {
		t.Errorf("the button: %d\n%s", code, body)
	}
	if h := p.hears(ctx, t, "unlock"); h.Lock.Ticket != lock.Lock.Ticket {
		t.Errorf("the webhook hears %+v", h)
	}
	if out := sluice(t, g, "locks"); !strings.Contains(out, "nobody is locked") {
		t.Errorf("locks: %s", out)
	}
	if code, _ := visit(ctx, t, l, link, url.Values{}); code != 410 {
		t.Errorf("the button once more: %d", code)
	}

	virus()
	again := p.hears(ctx, t, "lock")
	if _, text := noticeRead(t, lettersTo(ctx, t, l, "owner@sink.example", 2)[1]); unlockLink.MatchString(text) || !strings.Contains(text, again.Lock.Ticket) {
		t.Errorf("who went on has a link still:\n%s", text)
	}
	if out := sluice(t, g, "unlock", "alice", "--reset"); !strings.Contains(out, "user alice is unlocked") {
		t.Errorf("unlock: %s", out)
	}

	sluice(t, g, "accounts", "set", "account", "house", "--contact", "house@sink.example")
	for _, host := range []string{"alice", "mallory"} {
		sluice(t, g, "users", "join", host, "house")
	}
	if out := sluice(t, g, "lock", "--account", "house", "--plan-only"); !strings.Contains(out, "2 users would be locked") || !strings.Contains(sluice(t, g, "locks"), "nobody is locked") {
		t.Errorf("the plan of an account's lock: %s", out)
	}
	if out := sluice(t, g, "lock", "--account", "house", "--reason", "stolen"); !strings.Contains(out, "2 users locked") {
		t.Errorf("the lock of an account: %s", out)
	}
	for host, want := range map[string]string{"alice": "451 4.7.1 gw.example: [LOCKED]", "mallory": "451 4.7.1 gw.example: [LOCKED]", "bob": "250 "} {
		if got := say(ctx, t, l, host, "u@sink.example", "Subject: good\r\n\r\ngood\r\n"); !strings.HasPrefix(got, want) {
			t.Errorf("under the account's lock %s hears %q", host, got)
		}
	}
	if out := sluice(t, g, "unlock", "--account", "house"); !strings.Contains(out, "2 users unlocked") || !strings.Contains(sluice(t, g, "locks"), "nobody is locked") {
		t.Errorf("the end of an account's lock: %s", out)
	}

	p.down(true)
	sluice(t, g, "lock", "bob", "--reason", "a report by telephone")
	bob := "lock_" + ticketOf(ctx, t, g)
	if !eventually(ctx, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return slices.Contains(p.tried, bob)
	}) {
		t.Fatal("the webhook is not called")
	}
	// A kill while a notice leaves would have it arrive twice.
	lettersTo(ctx, t, l, "desk@sink.example", 1)
	untilQueue(ctx, t, g, "the notices do not leave", func(q map[string]queued) bool { return len(q) == 0 })
	if err := g.Sluiced.Kill(); err != nil {
		t.Fatal(err)
	}
	p.down(false)
	if err := g.StartSluiced(ctx); err != nil {
		t.Fatal(err)
	}
	h := p.hears(ctx, t, "lock")
	for h.Lock.User != "bob" { // those of the account's lock come before
		h = p.hears(ctx, t, "lock")
	}
	if h.ID != bob {
		t.Errorf("after a kill the webhook hears %+v", h)
	}
	if _, text := noticeRead(t, lettersTo(ctx, t, l, "house@sink.example", 1)[0]); !strings.Contains(text, "mallory") { // alice has a contact of her own
		t.Errorf("the account's contact reads:\n%s", text)
	}
	told := 0
	for _, m := range lettersTo(ctx, t, l, "desk@sink.example", 1) {
		_, text := noticeRead(t, m)
		if strings.Contains(text, "a report by telephone") && strings.Contains(text, "https://pages.gw.example/codes/LOCKED") && !unlockLink.MatchString(text) {
			told++
		}
	}
	if told != 1 {
		t.Errorf("%d notices of one lock", told)
	}
	if p.mu.Lock(); len(p.bad) > 0 {
		t.Errorf("calls that are not signed well: %q", p.bad)
	}
	p.mu.Unlock()
}
