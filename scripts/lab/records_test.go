//go:build labtest

package lab

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// recordsConfig serves the API to tokens, too, and lets alice send six messages a day.
var recordsConfig = strings.NewReplacer("[api]\n", "[api]\nlisten = \"127.0.0.1:8460\"\n",
	`name = "{{.Name}}"`, `name = "{{.Name}}"{{if eq .Name "alice"}}
limits = { messages_per_day = 6 }{{end}}`).Replace(GatewayConfig)

// traceID is the id in the field that the gateway puts on top.
var traceID = regexp.MustCompile(`^Received: (?:[^\r\n]*\r?\n[ \t])*?[^\r\n]*\bid ([0-9a-v]{26})\b`)

// foundIsActedUpon states what is done about the one line of bob's GTUBE, and that its story has everything.
func foundIsActedUpon(ctx context.Context, t *testing.T, g *Gateway, send func(host, rcpt, body, want string)) {
	t.Helper()
	act := func(do, want string, more ...string) {
		t.Helper()
		if out := sluice(t, g, append([]string{"log", "--code", "GTUBE", "--do", do, "--reason", "spam by hand"}, more...)...); !strings.Contains(out, want) {
			t.Errorf("log --do %s: %q, want %q", do, out, want)
		}
	}
	if out, err := g.Sluice(ctx, "log", "--code", "GTUBE", "--do", "burn", "--reason", "x"); err != nil || out.Code != 1 || !strings.Contains(out.Stderr, `cannot "burn"`) {
		t.Errorf("log --do burn: %+v %v", out, err)
	}
	if out, err := g.Sluice(ctx, "log", "--code", "GTUBE", "--do", "lock"); err != nil || out.Code != 1 || !strings.Contains(out.Stderr, "needs a reason") {
		t.Errorf("log --do lock without a reason: %+v %v", out, err)
	}
	act("lock", "would lock bob\n", "--plan")
	send("bob", "b@sink.example", "planned", "250 ")
	act("lock", "lock bob\n")
	send("bob", "b@sink.example", "hello", "451 4.7.1")
	var story struct {
		Messages []struct{ Ticket, User string }
		Locks    []struct{ Ticket, Reason string }
		Codes    []struct{ Code, Title, URL string }
		Acts     []struct{ What, Detail string }
	}
	ticket := ticketOf(ctx, t, g)
	eventually(ctx, func() bool { return sluiceJSON(ctx, g, &story, "why", ticket) != nil || len(story.Messages) > 0 })
	if len(story.Messages) != 1 || story.Messages[0].User != "bob" || len(story.Locks) != 1 || story.Locks[0].Reason != "spam by hand" || len(story.Codes) == 0 || story.Codes[0].Title == "" ||
		len(story.Acts) == 0 || !strings.Contains(story.Acts[0].Detail, ticket) {
		t.Errorf("the story of %s is %+v", ticket, story)
	}
	if out := sluice(t, g, "why", ticket); !strings.Contains(out, "spam by hand") || !strings.Contains(out, "LOCKED: ") {
		t.Error(out)
	}
	if out, err := g.Sluice(ctx, "why", "nosuch.1"); err != nil || out.Code != 1 || !strings.Contains(out.Stderr, `nothing is known of "nosuch.1"`) {
		t.Errorf("why nosuch.1: %+v %v", out, err)
	}
	act("unlock", "unlock bob\n")
	act("unlock", "not done: bob: user bob is not locked")
	act("block", "block <a@bob.example> of bob\n")
	send("bob", "b@sink.example", "hello", "550 5.7.1")
	act("spam", "1 done, 0 not")
	act("release", "nothing of it is kept")
	if out := sluice(t, g, "audit"); !strings.Contains(out, "log block") || !strings.Contains(out, "message learnt") {
		t.Error(out)
	}
}

// TestRecordsOfAProvider: what is known of messages is found by any field, saved, exported and acted upon; addresses have a
// history; a plan bounds its accounts; programs do with tokens what their scopes allow; and what a killed sluiced had
// counted, logged and been told is there afterwards.
func TestRecordsOfAProvider(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, recordsConfig)
	refused := func(want string, args ...string) {
		t.Helper()
		out, err := g.Sluice(ctx, args...)
		if err != nil || out.Code == 0 || !strings.Contains(out.Stderr, want) {
			t.Errorf("sluice %v: %+v, %v, want %q", args, out, err, want)
		}
	}
	send := func(host, rcpt, body, want string) {
		t.Helper()
		c, err := l.Hello(ctx, host, "", "198.51.100.20:25")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		rcpts, last, err := c.Send("a@"+host+".example", []string{rcpt}, []byte("Subject: x\r\n\r\n"+body+"\r\n"))
		if err != nil {
			t.Fatal(err)
		}
		if len(rcpts) > 0 && rcpts[0].Code != 250 {
			last = rcpts[0]
		}
		if !strings.HasPrefix(last.String(), want) {
			t.Errorf("%s to %s hears %q, want %q", host, rcpt, last, want)
		}
	}
	found := func(n int, args ...string) string {
		t.Helper()
		var ms []struct{ ID, User, Status, Holder string }
		eventually(ctx, func() bool {
			ms = nil
			return sluiceJSON(ctx, g, &ms, append([]string{"log"}, args...)...) != nil || len(ms) >= n
		})
		if len(ms) != n {
			t.Errorf("log %v finds %+v, want %d", args, ms, n)
			return ""
		}
		return fmt.Sprint(ms)
	}

	// The message log.
	for i := range 5 {
		send("alice", fmt.Sprintf("r%d@sink.example", i), "hello", "250 ")
	}
	send("bob", "b@sink.example", gtubeLine, "550 5.7.1")
	silent, err := l.Dial(ctx, "dave", "", "198.51.100.20:25") // a session that becomes no message
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(silent).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	silent.Close()
	found(1, "--code", "GTUBE")
	found(1, "--where", "hits~gtube", "--target", "198.51.100.20", "--since", "1h")
	found(1, "--where", "to=r3@sink.example", "--where", "user=alice")
	found(0, "--where", "size>1000000", "--limit", "5")
	refused("asks for no member", "log", "--where", "nothing=1")
	for _, c := range l.Customers() {
		if c.Name == "dave" && c.V4.IsValid() {
			found(1, "--client", c.V4.String(), "--status", "no-message")
		}
	}
	sluice(t, g, "log", "save", "spam today", "--code", "GTUBE", "--since", "1d")
	found(1, "--saved", "spam today")
	refused(`no search "nope"`, "log", "--saved", "nope")
	table, err := csv.NewReader(strings.NewReader(sluice(t, g, "log", "--user", "alice", "--csv"))).ReadAll()
	if err != nil || len(table) != 6 || table[0][0] != "time" || table[1][2] != "alice" || table[1][7] != "delivered" {
		t.Errorf("exported is %q, %v", table, err)
	}
	trace := traceID.FindSubmatch(lettersTo(ctx, t, l, "r3@sink.example", 1)[0].Data)
	if trace == nil {
		t.Fatal("the mail has no trace field")
	}
	var origin struct {
		Messages []struct{ User string }
	}
	if err := sluiceJSON(ctx, g, &origin, "why", string(trace[1])); err != nil || len(origin.Messages) != 1 || origin.Messages[0].User != "alice" {
		t.Errorf("why %s: %+v %v", trace[1], origin, err)
	}
	foundIsActedUpon(ctx, t, g, send)

	// Who held an address.
	sluice(t, g, "users", "add", "tenant", "203.0.113.64/28")
	sluice(t, g, "users", "remove", "tenant")
	sluice(t, g, "users", "add", "heir", "203.0.113.64/28")
	if out := sluice(t, g, "holder", "203.0.113.70"); !strings.Contains(out, "tenant") || !strings.Contains(out, "heir") {
		t.Error(out)
	}
	sluice(t, g, "holder", "tell", "203.0.113.64/28", "old customer", "--until", "2026-02-01T00:00:00Z")
	if out := sluice(t, g, "holder", "203.0.113.70", "--at", "2026-01-15T00:00:00Z"); !strings.Contains(out, "old customer") || strings.Contains(out, "heir") {
		t.Error(out)
	}
	refused("held it within that time", "holder", "tell", "203.0.113.64/28", "nobody", "--until", "2026-01-01T00:00:00Z")
	for _, c := range l.Customers() {
		if c.Name == "alice" && c.V4.IsValid() {
			sluice(t, g, "holder", "tell", c.V4.String(), "alice's tenant", "--since", "2h")
		}
	}
	if got := found(1, "--to", "r3@sink.example"); !strings.Contains(got, "alice's tenant") {
		t.Errorf("the log line is of %s", got)
	}

	// A plan bounds its accounts.
	sluice(t, g, "accounts", "set", "plan", "small", "--users", "1")
	sluice(t, g, "accounts", "set", "account", "house", "--plan", "small")
	sluice(t, g, "users", "join", "mallory", "house")
	refused("account house would have 2 users, and its plan small allows 1", "users", "join", "dave", "house")
	sluice(t, g, "accounts", "set", "plan", "small", "--users", "2")
	sluice(t, g, "users", "join", "dave", "house")
	refused("allows 1", "accounts", "set", "plan", "small", "--users", "1")

	// Tokens.
	var made struct{ ID, Secret string }
	if err := sluiceJSON(ctx, g, &made, "token", "add", "monitoring", "--scope", "read"); err != nil {
		t.Fatal(err)
	}
	with := func(token string, args ...string) Output {
		t.Helper()
		out, err := l.Exec(ctx, HostGateway, append([]string{"env", "SLUICE_TOKEN=" + token, g.bin("sluice"), "--socket", g.Socket}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	over := func(token, path string) (int, string) {
		t.Helper()
		c, err := l.Dial(ctx, HostGateway, "", "127.0.0.1:8460")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: sluice\r\nAuthorization: Bearer %s\r\nConnection: close\r\n\r\n", path, token)
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
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
	if out := with(made.Secret, "users"); out.Code != 0 || !strings.Contains(out.Stdout, "alice") {
		t.Errorf("with scope read: %+v", out)
	}
	if out := with(made.Secret, "lock", "alice", "--reason", "x"); out.Code != 1 || !strings.Contains(out.Stderr, "the token monitoring has no scope locks") {
		t.Errorf("locking with scope read: %+v", out)
	}
	for _, c := range []struct {
		token, path string
		status      int
	}{{made.Secret, "/v1/status", 200}, {made.Secret, "/v1/log", 403}, {made.Secret + "x", "/v1/status", 401}, {"", "/v1/status", 401}} {
		if status, body := over(c.token, c.path); status != c.status || !json.Valid([]byte(body)) {
			t.Errorf("%s over TCP: %d %.200s, want %d", c.path, status, body, c.status)
		}
	}
	if out := sluice(t, g, "token"); !strings.Contains(out, "monitoring") || strings.Contains(out, "never") {
		t.Errorf("the token was used:\n%s", out)
	}
	if b, err := os.ReadFile(g.Dir + "/state/sluice.db-wal"); err == nil && strings.Contains(string(b), made.Secret[len(made.Secret)-20:]) {
		t.Error("the secret stands in the database")
	}
	sluice(t, g, "token", "revoke", made.ID)
	if status, _ := over(made.Secret, "/v1/status"); status != 401 {
		t.Errorf("with a revoked token: %d", status)
	}
	if out := sluice(t, g, "audit"); !strings.Contains(out, "token made") || !strings.Contains(out, "token revoked") || !strings.Contains(out, "holder told") {
		t.Error(out)
	}

	// A kill: what is older than a second is not forgotten.
	send("alice", "last@sink.example", "hello", "250 ")
	waitKept(ctx, t, g)
	if err := g.Sluiced.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := g.StartSluiced(ctx); err != nil {
		t.Fatal(err)
	}
	send("alice", "more@sink.example", "hello", "451 4.7.1 gw.example: [RATE-MSG] this sender has reached its limit of 6 messages per day")
	send("bob", "b@sink.example", "hello", "550 5.7.1")
	found(1, "--to", "last@sink.example")
	found(1, "--saved", "spam today")
}

// waitKept waits until sluiced has written down what was counted by now: it does so each second where something changed.
func waitKept(ctx context.Context, t *testing.T, g *Gateway) {
	t.Helper()
	newest := func() (n uint64) {
		for _, name := range []string{"counts.0", "counts.1"} {
			if b, err := os.ReadFile(filepath.Join(g.Dir, "state", name)); err == nil && len(b) >= 8 {
				n = max(n, binary.LittleEndian.Uint64(b))
			}
		}
		return n
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second) // seldom, it stands there already
	defer cancel()
	was := newest()
	eventually(ctx, func() bool { return newest() > was })
}
