package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// run0 runs a command that needs no gateway, with in as its standard input.
func run0(t *testing.T, in string, args ...string) (out, errs string, code int) {
	t.Helper()
	var o, e bytes.Buffer
	p := &program{screen: &screen{out: &o, now: time.Now, zone: time.UTC}}
	root := p.root()
	root.SetIn(strings.NewReader(in))
	root.SetArgs(args)
	root.SetOut(&o)
	root.SetErr(&e)
	if err := root.ExecuteContext(context.Background()); err != nil {
		return o.String(), err.Error(), 1
	}
	return o.String(), e.String(), 0
}

const goodMail = "From: Ann Miller <ann@example.org>\r\nTo: bob@example.net\r\nSubject: minutes of the meeting\r\nIn-Reply-To: <1@example.net>\r\n\r\n" +
	"Hi Bob,\r\n\r\nattached are the minutes; please send corrections by Friday.\r\nI have added my comments to the draft.\r\n\r\nBest, Ann\r\n"

const badMail = "From: \"PayPal Security\" <x@account-verify.example>\r\nTo: bob@example.net\r\nSubject: Your account has been suspended\r\nContent-Type: text/html\r\n\r\n" +
	"<p>Dear customer, we detected unusual activity. Verify your account within 24 hours or it will be closed.</p><a href=\"http://198.51.100.7/paypal.com/login\">Verify now</a>\r\n" +
	"<p>Congratulations, you have won a gift card. Click here to claim your prize. Viagra, Cialis, no prescription needed.</p>\r\n"

func TestClassify(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("d/good.eml", goodMail)
	write("d/sub/bad.eml", strings.ReplaceAll(badMail, "\r\n", "\n"))
	mbox := write("box", "From a@b Mon Jan  1 00:00:00 2027\n"+strings.ReplaceAll(goodMail, "\r\n", "\n")+">From here on\n\nFrom c@d Mon Jan  1 00:00:00 2027\n"+strings.ReplaceAll(badMail, "\r\n", "\n"))
	gtube := "Subject: x\n\nXJS*C4JDBQADN1.NSBN3*2IDNEN" + "*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X\n"

	out, errs, code := run0(t, gtube, "classify", "--json", filepath.Join(dir, "d"), mbox, "-")
	if code != 0 {
		t.Fatal(errs)
	}
	want := map[string]string{"d/good.eml": "clean", "d/sub/bad.eml": "phish", "box#1": "clean", "box#2": "phish", "-": "spam"}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != len(want) {
		t.Fatalf("%d lines:\n%s", len(lines), out)
	}
	for _, l := range lines {
		var c classified
		if err := json.Unmarshal([]byte(l), &c); err != nil {
			t.Fatalf("%v in %s", err, l)
		}
		name := strings.TrimPrefix(c.Path, dir+"/")
		if want[name] != c.Class || c.Microseconds <= 0 || c.Probability < 0 || c.Probability > 1 {
			t.Errorf("%s: %s, want %s", name, l, want[name])
		}
		if c.Class != "clean" && len(c.Hits) == 0 {
			t.Errorf("%s is %s without a reason", name, c.Class)
		}
	}
	if out, _, _ := run0(t, "", "classify", filepath.Join(dir, "d")); !strings.Contains(out, "PHISH-NAME: name PayPal Security") {
		t.Errorf("the table does not explain:\n%s", out)
	}
}

func TestClassifyRefuses(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "x.model")
	if err := os.WriteFile(file, []byte("no model"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		"PATH is missing":                        {"classify"},
		"no such file":                           {"classify", "/nonexistent/mail"},
		"no such file or directory":              {"classify", "--model", "/nonexistent/model", "-"},
		"it is no model of this version; build":  {"classify", "--model", file, "-"},
		"--unsure 0.9 and --spam 0.5 make no se": {"classify", "--unsure", "0.9", "--spam", "0.5", "-"},
		"--offline wants --ham":                  {"train", "--offline", "--ham", "/tmp"},
		"say spam or ham, and a PATH":            {"train"},
	} {
		if _, errs, code := run0(t, "x", args...); code == 0 || !strings.Contains(errs, want) {
			t.Errorf("%v: code %d, %q; want %q", args, code, errs, want)
		}
	}
}

func TestTrainOffline(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range 30 {
		for name, text := range map[string]string{
			"good/%d.eml": fmt.Sprintf("From: a@example.org\nSubject: herring %d\n\nThe boats of harbour %d came home with herring and cod.\n", i, i*7),
			"bad/%d.eml":  fmt.Sprintf("From: b@example.org\nSubject: turnip %d\n\nBuy turnip powder number %d, the doctor hates it, only today.\n", i, i*3),
		} {
			path := filepath.Join(dir, fmt.Sprintf(name, i))
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	file := filepath.Join(dir, "own.model")
	train := []string{"train", "--offline", "--ham", filepath.Join(dir, "good"), "--spam", filepath.Join(dir, "bad"), "--model", file}
	if out, errs, code := run0(t, "", train...); code != 0 || !strings.Contains(out, "30 good and 30 bad messages learnt") {
		t.Fatalf("code %d: %s%s", code, out, errs)
	}
	out, errs, _ := run0(t, "From: c@example.org\nSubject: turnip news\n\nturnip powder, the doctor hates it, buy only today\n", "classify", "--json", "--model", file, "-")
	var c classified
	if err := json.Unmarshal([]byte(out), &c); err != nil || c.Probability < 0.5 {
		t.Errorf("turnips are judged %s %s", out, errs)
	}
	few := append(train[:len(train)-3:len(train)-3], filepath.Join(dir, "good", "1.eml"), "--model", file)
	if _, errs, code := run0(t, "", few...); code == 0 || !strings.Contains(errs, "teach nothing; give more") {
		t.Errorf("one message made a model: %s", errs)
	}
}
