//go:build labtest

package lab

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// freshHost makes the gateway's host one that has only the programs: nothing in the kernel, no state, no log, no configuration.
func freshHost(ctx context.Context, t *testing.T, g *Gateway) {
	t.Helper()
	if err := g.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if out, err := g.Cleanup(ctx); err != nil || out.Code != 0 {
		t.Fatalf("cleanup: %+v %v", out, err)
	}
	for _, dir := range []string{"state", "log", "intercept/state", "run"} {
		if err := os.RemoveAll(filepath.Join(g.Dir, dir)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(g.Config); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"intercept/state", "run", "log"} { // as systemd does
		if err := os.MkdirAll(filepath.Join(g.Dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(filepath.Join(g.Dir, dir), daemonID, daemonID); err != nil {
			t.Fatal(err)
		}
	}
}

// TestBackupMovesAGateway (OPS1): what a gateway is goes into one file and comes back on a fresh host: the same keys sign, the same locks
// and rules are in force, the same login and token open. A file that is damaged changes nothing.
func TestBackupMovesAGateway(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, smarthostConfig+"[tls]\nca_domains = [\"alice.example\"]\n")
	refused := func(want string, args ...string) {
		t.Helper()
		out, err := g.Sluice(ctx, args...)
		if err != nil || out.Code == 0 || !strings.Contains(out.Stderr, want) {
			t.Errorf("sluice %v: %+v, %v, want %q", args, out, err, want)
		}
	}
	x := &signing{t: t, l: l, g: g}
	sluice(t, g, "users", "set", "alice", "dkim=unsigned", "from_domains=alice.example")
	keys := x.keys(ctx, "dkim", "generate", "alice.example", "--type", "both", "--selector", "one")
	if err := l.PublishTXT(ctx, map[string]string{keys[0].Name: keys[0].Record, keys[1].Name: keys[1].Record}, nil); err != nil {
		t.Fatal(err)
	}
	x.states(x.keys(ctx, "dkim", "show", "alice.example"), "one rsa signing", "onee ed25519 signing")
	x.sends(ctx, "before", aliceLetter, "alice.example (one onee)")
	var login struct{ Password string }
	if err := json.Unmarshal([]byte(sluice(t, g, "login", "add", "bob.example", "--user", "bob", "--json")), &login); err != nil {
		t.Fatal(err)
	}
	var token struct{ Secret string }
	if err := sluiceJSON(ctx, g, &token, "token", "add", "monitoring", "--scope", "read"); err != nil {
		t.Fatal(err)
	}
	sluice(t, g, "lock", "mallory", "--reason", "stolen")
	sluice(t, g, "mode", "set", "192.0.2.50", "reject", "--reason", "nobody is there")
	sluice(t, g, "users", "set", "bob", "messages_per_day=7")
	told := func() (all []string) {
		t.Helper()
		for _, args := range [][]string{{"locks", "--json"}, {"mode", "show", "192.0.2.50"}, {"settings", "export"}, {"tls", "ca"}, {"login"}} {
			all = append(all, sluice(t, g, args...))
		}
		for _, k := range keys {
			key, err := os.ReadFile(filepath.Join(g.Dir, "state", "dkim", k.Name))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, string(key))
		}
		return all
	}
	was := told()

	file := filepath.Join(t.TempDir(), "gw.sluice")
	out := sluice(t, g, "backup", file)
	for _, want := range []string{"configuration and the files that it names", "keys that sign mail (DKIM)", "mail that waits (spool)", "It has private keys"} {
		if !strings.Contains(out, want) {
			t.Errorf("backup says nothing of %q: %s", want, out)
		}
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the backup's mode: %v, %v", st, err)
	}
	refused("is there already", "backup", file)
	refused("stop sluiced", "restore", file, "--replace")
	if err := g.Sluiced.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	refused("--replace moves it aside", "restore", file)
	freshHost(ctx, t, g)

	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	half := filepath.Join(t.TempDir(), "half.sluice")
	if err := os.WriteFile(half, b[:len(b)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	refused("is damaged: its end is missing; nothing of it is used", "restore", half)
	for _, path := range []string{g.Config, filepath.Join(g.Dir, "state")} {
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("a damaged backup left %s: %v", path, err)
		}
	}
	if out := sluice(t, g, "restore", "--check", file); !strings.Contains(out, "is whole: a backup of gw.example") {
		t.Error(out)
	}
	if out := sluice(t, g, "restore", file); !strings.Contains(out, "gw.example is restored in "+filepath.Join(g.Dir, "state")) || !strings.Contains(out, g.Config+" is put back") {
		t.Error(out)
	}
	if err := g.StartIntercept(ctx); err != nil {
		t.Fatal(err)
	}
	if err := g.StartSluiced(ctx); err != nil {
		t.Fatal(err)
	}
	if is := told(); !slices.Equal(is, was) {
		t.Errorf("it was\n%s\nand is\n%s", strings.Join(was, "\n"), strings.Join(is, "\n"))
	}
	x.sends(ctx, "after", aliceLetter, "alice.example (one onee)")
	tools, err := l.Toolbox(ctx, HostInternet)
	if err != nil {
		t.Fatal(err)
	}
	verdicts, err := judged(ctx, tools, x.came)
	if want := "dkimpy: good and good, OpenDKIM: good"; err != nil || !slices.Equal(verdicts, []string{want, want}) {
		t.Errorf("the signatures before and after: %q, %v", verdicts, err)
	}
	if got := say(ctx, t, l, "mallory", "m@sink.example", "Subject: x\r\n\r\nhello\r\n"); !strings.HasPrefix(got, "451 4.7.1 gw.example: [LOCKED]") {
		t.Errorf("who is locked hears %q", got)
	}
	sent, err := l.Swaks(ctx, "bob", "--server", "203.0.113.1:587", "--tls", "--auth-user", "bob.example", "--auth-password", login.Password, "--from", "b@bob.example", "--to", "c@sink.example", "--ehlo", "mail.bob.example", "--h-From", "b@bob.example")
	if err != nil || sent.Code != 0 {
		t.Errorf("bob logs in as before: %v\n%s", err, sent.Stdout)
	}
	status, err := l.Exec(ctx, HostGateway, "env", "SLUICE_TOKEN="+token.Secret, g.bin("sluice"), "--socket", g.Socket, "status")
	if err != nil || status.Code != 0 {
		t.Errorf("the token opens nothing: %+v %v", status, err)
	}

	sluice(t, g, "unlock", "mallory", "--reason", "later")
	sluice(t, g, "mode", "remove", "192.0.2.50", "--reason", "later")
	if err := g.Sluiced.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if err := g.Configure(smarthostConfig, "# of this host\n"); err != nil {
		t.Fatal(err)
	}
	if out := sluice(t, g, "restore", "--replace", file); !strings.Contains(out, "What stood there is in ") || !strings.Contains(out, g.Config+" differs from the backup's, and stays as it is") {
		t.Error(out)
	}
	if err := g.StartSluiced(ctx); err != nil {
		t.Fatal(err)
	}
	if out := sluice(t, g, "locks"); !strings.Contains(out, "mallory") {
		t.Errorf("the lock is not back: %s", out)
	}
	if out := sluice(t, g, "mode", "show", "192.0.2.50"); !strings.Contains(out, "reject") {
		t.Errorf("the rule is not back: %s", out)
	}
	if got := say(ctx, t, l, "mallory", "n@sink.example", "Subject: x\r\n\r\nhello\r\n"); !strings.HasPrefix(got, "451 4.7.1 gw.example: [LOCKED]") {
		t.Errorf("who is locked again hears %q", got)
	}
}
