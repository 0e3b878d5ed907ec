//go:build labtest

package lab

import (
	"net/url"
	"regexp"
	"strings"
	"testing"
)

var appealLink = regexp.MustCompile(`https://pages\.gw\.example/codes/[A-Z]+\?m=\S+`)

// appealSeen is an appeal as `sluice appeal --json` shows it.
type appealSeen struct {
	ID, User, State, Text, Held, Did string
	Evidence                         struct{ From, Code string }
}

// TestAppeal: from the page that a refusal links to its sender says that it was no spam; the desk is told, with the evidence.
// Approved, a held copy is delivered and learnt, and what was not held may be sent again; denied, nothing changes. Links that
// are not ours do nothing, and nobody appeals twice.
func TestAppeal(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	p := startPanel(t, l)
	g := startGatewayWith(t, l, noticeConfig(t, l)+"\n[content]\nlearned = \"always\"\n")
	sluice(t, g, "users", "set", "bob", "content_on_spam=quarantine")
	// linkOf sends spam, which is refused, and returns the link in the answer with the form's hidden value.
	linkOf := func(host, rcpt, mail, code string) (link string, form url.Values) {
		t.Helper()
		got := say(ctx, t, l, host, rcpt, mail)
		if link = appealLink.FindString(got); !strings.HasPrefix(got, "550 5.7.1 gw.example: ["+code+"]") || link == "" {
			t.Fatalf("%s hears %q", host, got)
		}
		u, err := url.Parse(link)
		if err != nil {
			t.Fatal(err)
		}
		return link, url.Values{"m": {u.Query().Get("m")}, "text": {host + " says: a pharmacy with a licence"}}
	}
	appeal := func(host, rcpt, mail, code string) appealSeen {
		t.Helper()
		link, form := linkOf(host, rcpt, mail, code)
		if status, body := visit(ctx, t, l, link, nil); status != 200 || !strings.Contains(body, "This is not spam") || !strings.Contains(body, "What to do") {
			t.Errorf("the page: %d\n%s", status, body)
		}
		if status, body := visit(ctx, t, l, link, form); status != 200 || !strings.Contains(body, "Thank you") {
			t.Errorf("the appeal: %d\n%s", status, body)
		}
		if status, body := visit(ctx, t, l, link, form); status != 200 || strings.Contains(body, "Thank you") {
			t.Errorf("the same appeal again: %d\n%s", status, body)
		}
		h := p.hears(ctx, t, "appeal")
		var a appealSeen
		if err := sluiceJSON(ctx, g, &a, "appeal", "show", h.Appeal.ID); err != nil {
			t.Fatal(err)
		}
		if a.User != host || a.State != "open" || a.Text != form.Get("text") || a.Evidence.From != "a@"+host+".example" || a.Evidence.Code != code {
			t.Errorf("the appeal is %+v", a)
		}
		return a
	}
	link, form := linkOf("alice", "first@sink.example", pillMail, "SPAM")
	form.Set("m", form.Get("m")+"0")
	if code, _ := visit(ctx, t, l, link, form); code != 404 {
		t.Errorf("a forged link: %d", code)
	}

	c := appeal("mallory", "phish@sink.example", phishMail, "PHISH")
	if out := sluice(t, g, "appeal", "deny", c.ID, "--reason", "it is no bank"); !strings.Contains(out, "is denied") {
		t.Errorf("deny: %s", out)
	}
	if got := say(ctx, t, l, "mallory", "phish@sink.example", phishMail); !strings.HasPrefix(got, "550 ") {
		t.Errorf("mallory tries again and hears %q", got)
	}
	b := appeal("bob", "held@sink.example", pillMail, "SPAM")
	if b.Held == "" {
		t.Errorf("no copy is held: %+v", b)
	}
	if out := sluice(t, g, "appeal", "approve", b.ID, "--reason", "they have one"); !strings.Contains(out, "released "+b.Held+", 1 learnt") {
		t.Errorf("approve: %s", out)
	}
	lettersTo(ctx, t, l, "held@sink.example", 1)
	if out, err := g.Sluice(ctx, "appeal", "deny", b.ID, "--reason", "x"); err != nil || out.Code == 0 || !strings.Contains(out.Stderr, "was approved before") {
		t.Errorf("decided twice: %+v %v", out, err)
	}
	a := appeal("alice", "again@sink.example", phishMail, "PHISH")
	if a.Held != "" {
		t.Errorf("a copy of what was refused is held: %+v", a)
	}
	if out := sluice(t, g, "appeal", "approve", a.ID, "--reason", "they have one"); !strings.Contains(out, "<a@alice.example> may send again without the check learned") || !strings.Contains(out, "; 1 learnt") {
		t.Errorf("approve: %s", out)
	}
	if got := say(ctx, t, l, "alice", "again@sink.example", phishMail); !strings.HasPrefix(got, "250 ") {
		t.Errorf("alice tries again and hears %q", got)
	}
	if n := len(lettersTo(ctx, t, l, "desk@sink.example", 3)); n != 3 {
		t.Errorf("the desk gets %d letters about 3 appeals", n)
	}
	if out := sluice(t, g, "status"); !strings.Contains(out, "2 of 5 messages stopped in 30 days") || !strings.Contains(out, "0 appeals wait") {
		t.Errorf("status: %s", out)
	}
	if out := sluice(t, g, "audit"); !strings.Contains(out, "appeal approved") || !strings.Contains(out, "appeal denied") {
		t.Errorf("audit: %s", out)
	}
}
