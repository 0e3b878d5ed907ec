//go:build labtest

package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// dkimKey is a key as `sluice dkim --json` shows it.
type dkimKey struct{ Domain, Selector, Type, State, Name, Record, DNS, Error string }

const aliceLetter = "From: Alice <a@alice.example>\r\nTo: b@sink.example\r\nSubject: Minutes of  the meeting\r\nDate: Sat, 21 Nov 2026 10:00:00 +0000\r\n\r\nDear all,\r\n\r\n  the minutes are below. \r\n\r\n"

// TestMailIsSigned (SIG1): with a key whose record is in the DNS, mail leaves signed, relayed at once or from the queue, and two
// verifiers find all signatures good, also behind a rotation and over a restart. Whatever cannot be signed goes on as it is.
func TestMailIsSigned(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, smarthostConfig)
	tools, err := l.Toolbox(ctx, HostInternet)
	if err != nil {
		t.Fatal(err)
	}
	x := &signing{t: t, l: l, g: g}
	x.sends(ctx, "off", aliceLetter, "")
	sluice(t, g, "users", "set", "alice", "dkim=unsigned", "from_domains=alice.example")
	if out := sluice(t, g, "users", "show", "alice"); !strings.Contains(out, "what carries no valid signature of its author's domain") {
		t.Error(out)
	}
	x.sends(ctx, "nokey", aliceLetter, "no: no key of alice.example is in use")

	keys := x.keys(ctx, "dkim", "generate", "alice.example", "--type", "both", "--selector", "one")
	x.states(keys, "one rsa waiting", "onee ed25519 waiting")
	x.sends(ctx, "waiting", aliceLetter, "no: no key of alice.example is in use")
	if err := l.PublishTXT(ctx, map[string]string{keys[0].Name: keys[0].Record, "onee.keys.provider.example": keys[1].Record}, map[string]string{keys[1].Name: "onee.keys.provider.example"}); err != nil {
		t.Fatal(err)
	}
	x.states(x.keys(ctx, "dkim", "show", "alice.example"), "one rsa signing", "onee ed25519 signing")
	x.sends(ctx, "both", aliceLetter, "alice.example (one onee)")
	x.handsIn(ctx, "queued", "alice.example (one onee)")
	x.sends(ctx, "large", aliceLetter+strings.Repeat("a line of a large message, \t of which there are many\r\n", 60_000), "alice.example (one onee)")

	next := x.keys(ctx, "dkim", "rotate", "alice.example", "--type", "rsa", "--selector", "two")
	x.states(x.keys(ctx, "dkim", "list"), "two rsa waiting", "one rsa signing", "onee ed25519 signing")
	x.sends(ctx, "rotating", aliceLetter, "alice.example (one onee)")
	if err := l.PublishTXT(ctx, map[string]string{next[0].Name: next[0].Record}, nil); err != nil {
		t.Fatal(err)
	}
	x.states(x.keys(ctx, "dkim", "show", "alice.example"), "two rsa signing", "one rsa retired", "onee ed25519 signing")
	if err := g.RestartSluiced(ctx); err != nil {
		t.Fatal(err)
	}
	x.sends(ctx, "rotated", aliceLetter, "alice.example (two onee)")

	before := slices.Clone(x.came)
	x.sends(ctx, "again", string(x.came[len(x.came)-1]), "") // it carries good signatures
	x.sends(ctx, "spoilt", strings.Replace(string(x.came[len(x.came)-1]), "Minutes", "Hours", 1), "alice.example (two onee)")
	x.sends(ctx, "foreign", strings.Replace(aliceLetter, "a@alice", "a@bob", 1), "no: bob.example is none of its user's domains")
	x.unreadable(ctx)
	sluice(t, g, "users", "set", "alice", "dkim=always", "dkim_selector=onee")
	x.sends(ctx, "onlyone", string(before[len(before)-1]), "alice.example (onee)")
	x.provided(ctx)
	x.removed(ctx)

	verdicts, err := judged(ctx, tools, before)
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range verdicts {
		if v != "dkimpy: good and good, OpenDKIM: good" {
			t.Errorf("message %d: %s", i, v)
		}
	}
	if len(before) != 5 {
		t.Errorf("%d signed messages were judged", len(before))
	}
}

// signing sends mails and sees what comes.
type signing struct {
	t    *testing.T
	l    *Lab
	g    *Gateway
	came [][]byte // those that were signed
}

func (x *signing) keys(ctx context.Context, args ...string) (keys []dkimKey) {
	x.t.Helper()
	if err := sluiceJSON(ctx, x.g, &keys, args...); err != nil {
		x.t.Fatal(err)
	}
	return keys
}

func (x *signing) states(keys []dkimKey, want ...string) {
	x.t.Helper()
	var got []string
	for _, k := range keys {
		got = append(got, k.Selector+" "+k.Type+" "+k.State)
	}
	if !slices.Equal(got, want) {
		x.t.Fatalf("there are %q, want %q; %+v", got, want, keys)
	}
}

// sends sends a letter of alice's to somebody, and checks how it arrives and what the log says of it.
func (x *signing) sends(ctx context.Context, to, letter, signed string) {
	x.t.Helper()
	to += "@sink.example"
	if got := say(ctx, x.t, x.l, "alice", to, letter); !strings.HasPrefix(got, "250 ") {
		x.t.Fatalf("%s: %s", to, got)
	}
	x.arrives(ctx, to, letter, signed)
}

// handsIn does so at the smarthost, from where the queue delivers.
func (x *signing) handsIn(ctx context.Context, to, signed string) {
	x.t.Helper()
	to += "@sink.example"
	out, err := x.l.Swaks(ctx, "alice", "--server", "203.0.113.1:587", "--tls", "--from", "a@alice.example", "--to", to, "--ehlo", "mail.alice.example", "--h-From", "a@alice.example")
	if err != nil || out.Code != 0 {
		x.t.Fatalf("%v\n%s", err, out.Stdout)
	}
	x.arrives(ctx, to, "", signed)
}

func (x *signing) arrives(ctx context.Context, to, letter, signed string) {
	x.t.Helper()
	data := messageTo(ctx, x.t, x.l, to).Data
	by := !strings.HasPrefix(signed, "no: ") && signed != ""
	if n := bytes.Count(data[:len(data)-len(letter)], []byte("DKIM-Signature: v=1")); by && n != strings.Count(signed, " ") || !by && letter != "" && n != 0 {
		x.t.Errorf("%s has %d signatures, want %q: %.1500s", to, n, signed, data)
	}
	if letter != "" && !bytes.HasSuffix(data, []byte(letter)) {
		x.t.Errorf("%s is not as it was sent: %.1500s", to, data)
	}
	if top := map[bool]string{true: "DKIM-Signature: ", false: "Received: "}[by]; !bytes.HasPrefix(data, []byte(top)) {
		x.t.Errorf("%s does not begin with %s: %.300s", to, top, data)
	}
	var log []struct{ Signed string }
	if !eventually(ctx, func() bool {
		log = nil
		return sluiceJSON(ctx, x.g, &log, "log", "--to", to, "--status", "delivered") != nil || len(log) > 0
	}) || len(log) != 1 || log[0].Signed != signed {
		x.t.Errorf("%s: the log has %+v, want %q", to, log, signed)
	}
	if by {
		x.came = append(x.came, data)
	}
}

// unreadable: a key that others could read is not used, mail goes on without, and doctor says so until it is put right.
func (x *signing) unreadable(ctx context.Context) {
	x.t.Helper()
	file := filepath.Join(x.g.Dir, "state", "dkim", "two._domainkey.alice.example")
	reload := func(mode os.FileMode, want string) {
		x.t.Helper()
		if err := os.Chmod(file, mode); err != nil {
			x.t.Fatal(err)
		}
		if err := x.g.Reload(); err != nil {
			x.t.Fatal(err)
		}
		if !eventually(ctx, func() bool {
			return slices.ContainsFunc(x.keys(ctx, "dkim"), func(k dkimKey) bool { return k.Selector == "two" && k.State == want })
		}) {
			x.t.Fatalf("with mode %o there are %+v", mode, x.keys(ctx, "dkim"))
		}
	}
	sluice(x.t, x.g, "users", "set", "alice", "dkim_selector=two")
	reload(0o644, "unreadable")
	x.sends(ctx, "unreadable", aliceLetter, "no: could not read the key two._domainkey.alice.example: others may read it (mode 0644); chmod 600 it, and rotate the key")
	out, err := x.g.Sluice(ctx, "doctor")
	if err != nil || !strings.Contains(out.Stdout, "dkim key two._domainkey.alice.example") {
		x.t.Errorf("doctor says %s %v", out.Stdout, err)
	}
	reload(0o600, "signing")
	x.sends(ctx, "readable", aliceLetter, "alice.example (two)")
}

// provided: what her own domains cannot sign the provider's does, once there is one, with a key that was told to sign at once.
func (x *signing) provided(ctx context.Context) {
	x.t.Helper()
	x.states(x.keys(ctx, "dkim", "generate", "provider.example", "--type", "ed25519", "--selector", "p", "--at-once"), "p ed25519 signing")
	if err := x.g.Configure(smarthostConfig, "[dkim]\ndomain = \"provider.example\"\n"); err != nil {
		x.t.Fatal(err)
	}
	if err := x.g.Reload(); err != nil {
		x.t.Fatal(err)
	}
	n := 0
	if !eventually(ctx, func() bool { // from the first mail on that the reload does not overtake
		n++
		to := fmt.Sprintf("provided%d@sink.example", n)
		if got := say(ctx, x.t, x.l, "alice", to, strings.Replace(aliceLetter, "a@alice", "a@bob", 1)); !strings.HasPrefix(got, "250 ") {
			x.t.Fatal(got)
		}
		return bytes.HasPrefix(messageTo(ctx, x.t, x.l, to).Data, []byte("DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed; d=provider.example;"))
	}) {
		x.t.Error("the provider's domain does not sign")
	}
	x.sends(ctx, "stillhers", aliceLetter, "alice.example (onee)")
}

// removed: a user without a key sends as before; what makes no sense is refused with a word.
func (x *signing) removed(ctx context.Context) {
	x.t.Helper()
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"dkim", "generate", "alice.example"}, "has a key already"}, {[]string{"dkim", "rotate", "bob.example"}, "bob.example has no key"},
		{[]string{"dkim", "generate", "../etc"}, "is not a domain"}, {[]string{"dkim", "rotate", "alice.example", "--selector", "one"}, "already"},
		{[]string{"dkim", "rotate", "alice.example", "--type", "dsa"}, "not a type"}, {[]string{"dkim", "remove", "alice.example", "--selector", "x"}, "no key of the selector"},
		{[]string{"users", "set", "alice", "dkim=sometimes"}, "use off, unsigned or always"}, {[]string{"users", "set", "alice", "dkim_selector=a b"}, "no name in the DNS"},
	} {
		if out, err := x.g.Sluice(ctx, c.args...); err != nil || out.Code == 0 || !strings.Contains(out.Stderr, c.want) {
			x.t.Errorf("%q: %+v, %v", c.args, out, err)
		}
	}
	out := sluice(x.t, x.g, "dkim", "remove", "alice.example", "--reason", "the shop closes")
	if !strings.Contains(out, "3 keys of alice.example removed") {
		x.t.Error(out)
	}
	x.sends(ctx, "gone", aliceLetter, "provider.example (p)")
	sluice(x.t, x.g, "dkim", "remove", "provider.example")
	x.sends(ctx, "allgone", aliceLetter, "no: the key onee of alice.example is not in use")
	var acts []struct{ What, Subject, Detail string }
	if err := sluiceJSON(ctx, x.g, &acts, "audit"); err != nil {
		x.t.Fatal(err)
	}
	count := map[string]int{}
	for _, a := range acts {
		if a.Subject == "alice.example" {
			count[a.What]++
		}
		if strings.Contains(fmt.Sprint(a), "MII") || strings.Contains(fmt.Sprint(a), "MC4C") {
			x.t.Errorf("the audit log has a key: %+v", a)
		}
	}
	if count["dkim key made"] != 3 || count["dkim key signs"] != 3 || count["dkim key retired"] != 1 || count["dkim key removed"] != 3 {
		x.t.Errorf("the audit log has %v", count)
	}
}
