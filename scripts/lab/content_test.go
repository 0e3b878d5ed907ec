//go:build labtest

package lab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// bobUnblocked is the usual configuration where bob's spam is only told of.
var bobUnblocked = strings.Replace(GatewayConfig, `name = "{{.Name}}"`, `name = "{{.Name}}"{{if eq .Name "bob"}}
content = { block_spam = false }{{end}}`, 1)

const pillMail = "From: Canadian Pharmacy <sales@pills.example>\r\nSubject: Viagra 80% OFF, no prescription needed\r\n\r\n" +
	"Buy Viagra, Cialis and Levitra online, no prescription needed. Lowest prices, worldwide delivery.\r\n" +
	"Click here to order now: http://pills.example/ Free pills with every order, 100% money back guarantee!\r\nTo be removed click here.\r\n"

const phishMail = "From: \"PayPal Security\" <service@account-check.example>\r\nSubject: Your account has been suspended\r\nContent-Type: text/html\r\n\r\n" +
	"<p>Dear customer, we detected unusual activity. Verify your account within 24 hours or it will be closed permanently.</p>\r\n" +
	"<a href=\"http://198.51.100.99/paypal.com/login\">Verify now</a><p>Confirm your password immediately to restore access.</p>\r\n"

const minutesMail = "From: Alice Miller <a@alice.example>\r\nTo: x@sink.example\r\nSubject: Re: minutes of the meeting\r\nIn-Reply-To: <1@sink.example>\r\n\r\n" +
	"Hi Tom,\r\n\r\nattached are the minutes; please send corrections by Friday.\r\nI have added my comments to the draft.\r\n\r\nBest, Alice\r\n"

// TestContentFilter: what is spam or phishing by its words is refused with its code, or told of only, by the user's
// setting; what is taught holds over a restart, and can be taken back.
func TestContentFilter(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, bobUnblocked+"\n[content]\nlearned = \"always\"\n")
	for _, c := range []struct{ host, rcpt, mail, want string }{
		{"alice", "minutes@sink.example", minutesMail, "250 "},
		{"alice", "pills@sink.example", pillMail, "550 5.7.1 gw.example: [SPAM]"},
		{"alice", "phish@sink.example", phishMail, "550 5.7.1 gw.example: [PHISH]"},
		{"bob", "told@sink.example", pillMail, "250 "},
	} {
		if got := say(ctx, t, l, c.host, c.rcpt, c.mail); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s to %s hears %q, want %q", c.host, c.rcpt, got, c.want)
		}
	}
	messageTo(ctx, t, l, "minutes@sink.example")
	messageTo(ctx, t, l, "told@sink.example")
	var log []struct {
		User, Status, Class string
		Hits                []struct{ Code, Action, Evidence string }
	}
	if err := sluiceJSON(ctx, g, &log, "log"); err != nil {
		t.Fatal(err)
	}
	told := false
	for _, m := range log {
		for _, h := range m.Hits {
			told = told || m.User == "bob" && m.Status == "delivered" && m.Class == "spam" && h.Code == "SPAM" && strings.Contains(h.Evidence, "block_spam is off")
			if h.Code == "LEARNED" && !strings.Contains(h.Evidence, "subject") && !strings.Contains(h.Evidence, "text") {
				t.Errorf("not explained: %+v", h)
			}
		}
	}
	if !told {
		t.Errorf("the log does not say what would have been done with bob's mail: %+v", log)
	}

	file := filepath.Join(t.TempDir(), "turnips.eml")
	if err := os.WriteFile(file, []byte("From: x@turnips.example\r\nSubject: turnips\r\n\r\nour turnips are the best in the county\r\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := sluice(t, g, "train", "spam", file); !strings.Contains(out, "1 message learnt as spam") {
		t.Errorf("train: %s", out)
	}
	if out := sluice(t, g, "train", "spam", file); !strings.Contains(out, "0 messages learnt as spam, 0 of them changed the model; 1 passed over") {
		t.Errorf("train again: %s", out)
	}
	if err := g.RestartSluiced(ctx); err != nil {
		t.Fatal(err)
	}
	var model struct{ Lessons int }
	if err := sluiceJSON(ctx, g, &model, "model"); err != nil {
		t.Fatal(err)
	}
	if model.Lessons != 1 {
		t.Errorf("after a restart there are %d lessons", model.Lessons)
	}
	if out := sluice(t, g, "untrain", file); !strings.Contains(out, "1 message unlearnt") {
		t.Errorf("untrain: %s", out)
	}
	other := filepath.Join(t.TempDir(), "other.model")
	sluice(t, g, "model", "export", other)
	if out := sluice(t, g, "model", "import", other); !strings.Contains(out, "refuses at once") || !strings.Contains(out, "`sluice model shadow` compares them") {
		t.Errorf("import: %s", out)
	}
	if got := say(ctx, t, l, "bob", "beside@sink.example", pillMail); !strings.HasPrefix(got, "250 ") {
		t.Errorf("beside a shadow bob hears %q", got)
	}
	if err := g.RestartSluiced(ctx); err != nil {
		t.Fatal(err)
	}
	if out := sluice(t, g, "model", "shadow"); !strings.Contains(out, "judged     1 message") || !strings.Contains(out, "spam       1 by both, 0 by it alone, 0 by the one in use alone") {
		t.Errorf("the comparison after a restart: %s", out)
	}
	if out := sluice(t, g, "model", "list"); !strings.Contains(out, "shadow") || !strings.Contains(out, "before") {
		t.Errorf("models: %s", out)
	}
	if out := sluice(t, g, "model", "use"); strings.Contains(out, "compares them") {
		t.Errorf("use: %s", out)
	}
	if out, err := g.Sluice(ctx, "model", "use"); err != nil || out.Code == 0 || !strings.Contains(out.Stderr, "no model in shadow") {
		t.Errorf("used twice: %+v, %v", out, err)
	}
	if out := sluice(t, g, "model", "back"); !strings.Contains(out, "shipped") {
		t.Errorf("back: %s", out)
	}
	if out, err := g.Sluice(ctx, "model", "import", file); err != nil || out.Code == 0 || !strings.Contains(out.Stderr, "the one in use stays") {
		t.Errorf("a message was taken for a model: %+v, %v", out, err)
	}
}
