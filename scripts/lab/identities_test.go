//go:build labtest

package lab

import (
	"strings"
	"testing"
)

// identityConfig has alice's servers tell whom a message is of.
var identityConfig = strings.Replace(GatewayConfig, `name = "{{.Name}}"`, `name = "{{.Name}}"{{if eq .Name "alice"}}
identity = { method = "header", headers = ["X-AuthUser", "Received"], hosts = ["web1.alice.example"], remove = true }{{end}}`, 1)

// TestIdentities: what alice's servers say of a message's sender is believed once, named in log and list, and not sent on
// unless it is signed; what nobody trusts is neither believed nor touched.
func TestIdentities(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, identityConfig)
	n := 0
	for _, c := range []struct{ host, name, header, body, identity, want string }{
		{"alice", "told", "X-AuthUser: shop\r\n", "hello\r\n", "shop", "250 "},
		{"alice", "signed", "DKIM-Signature: v=1; d=alice.example; h=from:x-authuser; b=x\r\nX-AuthUser: shop\r\n", "hello\r\n", "shop", "250 "},
		{"alice", "twice", "X-AuthUser: shop\r\nX-AuthUser: boss\r\n", "hello\r\n", "", "250 "},
		{"alice", "trace", "Received: by web1.alice.example (Postfix, from userid 33)\r\n\tid 4F2C81A0B; Sun, 22 Nov 2026 08:00:00 +0000\r\n", "hello\r\n", "userid 33", "250 "},
		{"alice", "stranger", "Received: by elsewhere.example (Postfix, from userid 33)\r\n\tid 4F2C81A0B; Sun, 22 Nov 2026 08:00:00 +0000\r\n", "hello\r\n", "", "250 "},
		{"alice", "bad", "X-AuthUser: shop\r\n", gtubeLine + "\r\n", "shop", "550 5.7.1"},
		{"bob", "untrusted", "X-AuthUser: shop\r\n", "hello\r\n", "", "250 "},
		{"bob", "another", "X-AuthUser: office\r\n", "hello\r\n", "", "250 "},
	} {
		rcpt := c.name + "@sink.example"
		x, err := l.Hello(ctx, c.host, "", "198.51.100.20:25")
		if err != nil {
			t.Fatal(err)
		}
		_, last, err := x.Send("a@"+c.host+".example", []string{rcpt}, []byte(c.header+"Subject: "+c.name+"\r\n\r\n"+c.body))
		if err != nil || !strings.HasPrefix(last.String(), c.want) {
			t.Fatalf("%s: %v, %v", c.name, last, err)
		}
		x.Close()
		if strings.HasPrefix(c.want, "250") {
			n++
			m := messageTo(ctx, t, l, rcpt)
			if gone := !strings.Contains(string(m.Data), c.header); gone != (c.name == "told") {
				t.Errorf("%s: the field is gone: %t\n%.400s", c.name, gone, m.Data)
			}
		}
		var log []struct{ Identity, Status string }
		eventually(ctx, func() bool { // the client hears its answer first
			log = nil
			return sluiceJSON(ctx, g, &log, "log", "--to", rcpt) != nil || len(log) > 0
		})
		if len(log) != 1 || log[0].Identity != c.identity {
			t.Errorf("%s: the log has %+v, want the identity %q", c.name, log, c.identity)
		}
	}
	type entry struct {
		User, Identity, Code     string
		Messages, Refused, Score int
	}
	shown := func() map[string]entry {
		t.Helper()
		var all []entry
		if err := sluiceJSON(ctx, g, &all, "identities", "alice"); err != nil {
			t.Fatal(err)
		}
		m := map[string]entry{}
		for _, e := range all {
			m[e.Identity] = e
		}
		return m
	}
	want := entry{User: "alice", Identity: "shop", Code: "GTUBE", Messages: 3, Refused: 1, Score: 6}
	if all := shown(); len(all) != 2 || all["shop"] != want || all["userid 33"].Messages != 1 || all["userid 33"].Score != 0 {
		t.Errorf("listed are %+v", all)
	}
	suggested := map[string]string{}
	for _, user := range []string{"bob", "dave"} {
		suggested[user] = sluice(t, g, "identities", "suggest", user)
	}
	if err := g.RestartSluiced(ctx); err != nil {
		t.Fatal(err)
	}
	if all := shown(); all["shop"] != want {
		t.Errorf("behind a restart: %+v", all)
	}
	var found []struct{ ID string }
	if err := sluiceJSON(ctx, g, &found, "log", "--identity", "shop"); err != nil || len(found) != 3 {
		t.Errorf("the log finds %d messages of shop, %v", len(found), err)
	}
	for user, want := range map[string]string{"bob": "suggested, for 100.0 % of 2 messages: sluice users set bob 'identity=header' 'identity.headers=X-AuthUser'", "dave": "no mail of dave was seen"} {
		if got := suggested[user]; !strings.Contains(got, want) {
			t.Errorf("suggested for %s is %q, want %q", user, got, want)
		}
	}
	sluice(t, g, "users", "set", "bob", "identity=header", "identity.headers=X-AuthUser")
	sluice(t, g, "identities", "lock", "alice", "shop", "--reason", "web shop broken into")
	for header, want := range map[string]string{"X-AuthUser: shop\r\n": "451 4.7.1", "X-AuthUser: office\r\n": "250 "} {
		x, err := l.Hello(ctx, "alice", "", "198.51.100.20:25")
		if err != nil {
			t.Fatal(err)
		}
		if _, last, err := x.Send("a@alice.example", []string{"locked@sink.example"}, []byte(header+"Subject: x\r\n\r\nhello\r\n")); err != nil || !strings.HasPrefix(last.String(), want) {
			t.Errorf("while shop is locked, %q hears %v, %v", header, last, err)
		}
		x.Close()
	}
	if out := sluice(t, g, "identities", "alice", "--json"); !strings.Contains(out, "web shop broken into") {
		t.Errorf("the lock is not listed: %s", out)
	}
	sluice(t, g, "identities", "unlock", "alice", "shop")
	if out := sluice(t, g, "identities", "reset", "alice", "shop", "--reason", "repaired"); !strings.Contains(out, "begins anew") {
		t.Error(out)
	}
	if all := shown(); all["shop"].Messages != 0 || all["shop"].Score != 0 {
		t.Errorf("behind a reset: %+v", all)
	}
	if out, err := g.Sluice(ctx, "identities", "reset", "alice", "nobody"); err != nil || out.Code != 1 || !strings.Contains(out.Stderr, `has no identity "nobody"`) {
		t.Errorf("%+v, %v", out, err)
	}
}

const gtubeLine = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
