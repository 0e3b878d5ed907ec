package main

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/cmd/internal/api"
	"sluice/filter/policy"
	"sluice/filter/sign"
	"sluice/proxy/smtp"
)

// TestKeysOnDisk: keys are found again, files that others may read or that are no keys sign nothing, and nothing of this ends anything.
func TestKeysOnDisk(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "dkim")
	k := openDKIM(dir, slog.New(slog.DiscardHandler))
	for _, selector := range []string{"good", "open", "cut", "moved", "garbled"} {
		h, err := sign.NewHeld("alice.example", selector, sign.Ed25519, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if h.AtOnce = true; selector == "garbled" {
			h.Secret = []byte("no key")
		}
		if err := k.put(h); err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(filepath.Join(dir, h.Name())); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", selector, st, err)
		}
	}
	name := func(s string) string { return filepath.Join(dir, s+"._domainkey.alice.example") }
	for _, err := range []error{os.Chmod(name("open"), 0o640), os.Truncate(name("cut"), 20), os.Rename(name("moved"), name("other")), os.WriteFile(filepath.Join(dir, "notes"), nil, 0o600)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	k = openDKIM(dir, slog.New(slog.DiscardHandler))
	states := map[string]string{}
	for _, h := range k.ring.All() {
		states[h.Selector] = h.State()
	}
	if len(states) != 5 || states["good"] != sign.Signing || states["open"] != sign.Unreadable || states["cut"] != sign.Unreadable || states["other"] != sign.Unreadable {
		t.Errorf("there are %v", states)
	}
	var heard []string
	k.hear(func(key string, err error) { heard = append(heard, key) })
	s := dkimSigner{keys: k}
	for range 2 { // the second time nobody is told again
		_, _, _ = s.Signatures(nil, sign.As{Domain: "alice.example", Selector: "garbled"}, nil, time.Now())
	}
	if len(heard) != 4 || !slices.Contains(heard, "open._domainkey.alice.example") || heard[3] != "alice.example" {
		t.Errorf("alarms: %q", heard)
	}
	for selector, want := range map[string]string{"good": "good", "open": "", "cut": "", "garbled": "", "none": ""} {
		body := smtp.NewBody(&smtp.DataOptions{})
		if err := body.Append([]byte("From: a@alice.example\r\n\r\ntext\r\n")); err != nil {
			t.Fatal(err)
		}
		if err := body.Finish(); err != nil {
			t.Fatal(err)
		}
		fields, keys, why := s.Signatures(nil, sign.As{Domain: "alice.example", Selector: selector}, body, time.Now())
		if keys != want || (len(fields) > 0) != (want != "") || (why == "") != (want != "") {
			t.Errorf("%s: signed by %q: %s; %q", selector, keys, fields, why)
		}
		body.Release()
	}
}

// TestWhoSigns: the author's domain if it is the user's and has a key, else the provider's, else nobody.
func TestWhoSigns(t *testing.T) {
	t.Parallel()
	k := openDKIM(filepath.Join(t.TempDir(), "dkim"), slog.New(slog.DiscardHandler))
	for domain, atOnce := range map[string]bool{"alice.example": true, "waiting.example": false, "provider.example": true} {
		h, err := sign.NewHeld(domain, "s", sign.Ed25519, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		h.AtOnce = atOnce
		if err := k.put(h); err != nil {
			t.Fatal(err)
		}
	}
	domains := policy.Domains{"alice.example", "nokey.example", "waiting.example"}
	u := &policy.Settings{Sender: policy.Sender{Domains: &domains}, Signing: policy.Signing{DKIM: policy.DKIMAlways}}
	provider := ""
	s := dkimSigner{keys: k, provider: func() string { return provider }}
	as := func(text string) (string, string) {
		body := smtp.NewBody(&smtp.DataOptions{Binary: true})
		defer body.Release()
		if body.Append([]byte(text)) != nil || body.Finish() != nil {
			t.Fatalf("%q is no message", text)
		}
		a, author, why := s.As(t.Context(), u, "", body)
		if author != (a.Domain == "alice.example") {
			t.Errorf("%q: %v is the author's: %t", text, a, author)
		}
		return a.Domain, why
	}
	for _, c := range []struct{ text, domain, fallback, why string }{
		{"From: a@alice.example\r\n\r\nx\r\n", "alice.example", "alice.example", ""},
		{"From: a@bob.example\r\n\r\nx\r\n", "", "provider.example", "bob.example is none of its user's domains"},
		{"From: a@nokey.example\r\n\r\nx\r\n", "", "provider.example", "no key of nokey.example is in use"},
		{"From: a@waiting.example\r\n\r\nx\r\n", "", "provider.example", "no key of waiting.example is in use"},
		{"From: a@alice.example, b@alice.example\r\n\r\nx\r\n", "", "", "it has not one author"},
		{"Subject: x\r\n\r\nx\r\n", "", "", "there is no From field"},
		{"From: a@alice.example\r\n\r\nx\nb\r\n", "", "", "it is binary"},
	} {
		for p, want := range map[string]string{"": c.domain, "provider.example": c.fallback} {
			provider = p
			if got, why := as(c.text); got != want || got == "" && why != c.why {
				t.Errorf("%q with %q: signed by %q (%s), want %q (%s)", c.text, p, got, why, want, c.why)
			}
		}
	}
	if !s.Expected(u, "", "x@alice.example") || s.Expected(u, "", "x@bob.example") || s.Expected(u, "", "x@waiting.example") || s.Expected(u, "", "") {
		t.Error("what is expected is not what comes")
	}
}

// TestRotation: what signs at once retires what was there, and what nothing needs any more goes.
func TestRotation(t *testing.T) {
	t.Parallel()
	g := newGateway(t, user)
	g.start()
	defer g.end()
	b, d, ctx := backend{g.daemon}, g.daemon, t.Context()
	made := func(r api.DKIMRequest, want ...string) {
		t.Helper()
		keys, err := b.MakeDKIM(ctx, "test", r)
		var got []string
		for _, k := range keys {
			got = append(got, k.Selector+" "+k.Type+" "+k.State)
			if !strings.HasPrefix(k.Record, "v=DKIM1; k="+k.Type+"; p=") {
				t.Errorf("the record %q", k.Record)
			}
		}
		if slices.Sort(got); err != nil || !slices.Equal(got, want) {
			t.Fatalf("%+v makes %q, %v; want %q", r, got, err, want)
		}
	}
	day := "s" + time.Now().UTC().Format("20060102")
	made(api.DKIMRequest{Domain: "Alice.Example.", Type: "both", AtOnce: true}, day+" rsa signing", day+"e ed25519 signing")
	made(api.DKIMRequest{Domain: "alice.example", Rotate: true}, day+"-2 rsa waiting", day+"-2e ed25519 waiting")
	made(api.DKIMRequest{Domain: "alice.example", Rotate: true, Type: "ed25519", Selector: "own", AtOnce: true}, "own ed25519 signing")
	states := func() (out []string) {
		for _, h := range d.dkim.ring.Of("alice.example") {
			out = append(out, h.Selector+" "+h.State())
		}
		slices.Sort(out)
		return out
	}
	// The waiting one of the same type gave way, too; the RSA key goes on.
	if got, want := states(), []string{"own signing", day + " signing", day + "-2 waiting", day + "-2e retired", day + "e retired"}; !slices.Equal(got, want) {
		t.Errorf("there are %q, want %q", got, want)
	}
	for _, h := range d.dkim.ring.Of("alice.example") { // so that nobody is asked
		d.dkim.note(h, time.Now().Add(300*24*time.Hour), nil)
	}
	d.tendKeys(ctx, time.Now().Add(6*24*time.Hour))
	if len(states()) != 5 {
		t.Errorf("a retired key went early: %q", states())
	}
	for _, h := range d.dkim.ring.Of("alice.example") {
		if h.State() == sign.Waiting {
			if err := d.dkim.remove(h); err != nil {
				t.Fatal(err)
			}
		}
	}
	d.tendKeys(ctx, time.Now().Add(8*24*time.Hour))
	if got := states(); len(got) != 2 {
		t.Errorf("in the end there are %q", got)
	}
	if files, err := os.ReadDir(d.dkim.dir); err != nil || len(files) != 2 {
		t.Errorf("files %v, %v", files, err)
	}
	if _, err := b.RemoveDKIM(ctx, "test", "alice.example", "", "closed"); err != nil || d.dkim.ring.Has("alice.example") {
		t.Errorf("not removed: %v", err)
	}
}

// TestUnreadableKeyIsTold: a program of the operator's hears of it.
func TestUnreadableKeyIsTold(t *testing.T) {
	t.Parallel()
	hook, told := webhook(t)
	g := newGateway(t, user+hook)
	g.start()
	defer g.end()
	g.daemon.dkim.unreadable("s._domainkey.alice.example", errors.New("others may read it"))
	select {
	case e := <-told:
		if e.Type != "alarm" || e.Key != "s._domainkey.alice.example" || e.Error != "others may read it" || e.Gateway == "" {
			t.Errorf("told: %+v", e)
		}
	case <-time.After(20 * time.Second):
		t.Error("nobody is told")
	}
}
