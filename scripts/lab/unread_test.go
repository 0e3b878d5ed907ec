//go:build labtest

package lab

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite"
)

// unread is what passes for clients that refuse the certificate.
type unread struct {
	t *testing.T
	l *Lab
	g *Gateway
}

// passes tells whether a host's STARTTLS leads to the destination itself, and gives the session.
func (u *unread) passes(ctx context.Context, host, to string) (*Client, bool) {
	u.t.Helper()
	c, st, err := underTLS(ctx, u.t, u.l, host, to, anyCertificate)
	if err != nil {
		u.t.Fatal(err)
	}
	return c, whose(st) == "mx.selfsigned.example"
}

// want is passes, and ends the session.
func (u *unread) want(ctx context.Context, when, host, to string, want bool) {
	u.t.Helper()
	c, passed := u.passes(ctx, host, to)
	if passed != want {
		u.t.Errorf("%s: the STARTTLS of %s to %s passes unread: %v", when, host, to, passed)
	}
	if err := c.Quit(); err != nil {
		u.t.Error(err)
	}
}

// later moves the clock on for what the store has of refusals, while sluiced is away.
func (u *unread) later(ctx context.Context, by time.Duration) {
	u.t.Helper()
	if err := u.g.Sluiced.Stop(ctx); err != nil {
		u.t.Fatal(err)
	}
	db, err := sql.Open("sqlite", filepath.Join(u.g.Dir, "state", "sluice.db"))
	if err != nil {
		u.t.Fatal(err)
	}
	for _, field := range []string{"First", "Last", "Learnt", "Grant.Since", "Grant.Until"} {
		if _, err := db.ExecContext(ctx, `UPDATE refusals SET entry = json_set(entry, '$.'||?1, strftime('%Y-%m-%dT%H:%M:%fZ', entry->>('$.'||?1), ?2))
			WHERE entry->>('$.'||?1) > '0002'`, field, fmt.Sprintf("-%d hours", by/time.Hour)); err != nil {
			u.t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		u.t.Fatal(err)
	}
	if err := u.g.StartSluiced(ctx); err != nil {
		u.t.Fatal(err)
	}
}

// TestWhatPassesUnreadIsBounded: of what a person lets pass unread 50 MB an hour go on from one source, to all destinations
// together, and not for longer than allowed, a week at most, over restarts; an operator hears of each end, and every byte is
// counted.
func TestWhatPassesUnreadIsBounded(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	u := &unread{t, l, startGateway(t, l, "")}
	const to, to6 = "198.51.100.21:25", "[2001:db8:100::21]:25"
	allow := func(source, destination string, more ...string) {
		t.Helper()
		sluice(t, u.g, append([]string{"tls", "refusals", "allow", source, destination, "--reason", "ticket 4711"}, more...)...)
	}
	allow("192.0.2.10", "198.51.100.21")
	allow("192.0.2.20", "198.51.100.21")
	allow("2001:db8:1::10", "2001:db8:100::21", "--for", "7d")
	if out, err := u.g.Sluice(ctx, "tls", "refusals", "allow", "192.0.2.30", "198.51.100.21", "--reason", "x", "--for", "8d"); err != nil || out.Code != 2 || !strings.Contains(out.Stderr, "at most 7d") {
		t.Errorf("for longer than a week: %v %+v", err, out)
	}

	c, passed := u.passes(ctx, "alice", to)
	if !passed {
		t.Fatal("what was allowed does not pass")
	}
	large := append(letter("alice", "large"), bytes.Repeat([]byte(strings.Repeat("x", 70)+"\r\n"), 1<<20)...)
	if _, r, err := c.Send("a@alice.example", []string{"large@selfsigned.example"}, large[:40<<20]); err != nil || r.Code != 250 {
		t.Errorf("40 MB: %v, %v", r, err)
	}
	if _, r, err := c.Send("a@alice.example", []string{"larger@selfsigned.example"}, large[:20<<20]); err == nil {
		t.Fatalf("20 MB more: %v", r)
	}
	if err := u.g.Sluiced.WaitLog(ctx, "has used up what may pass unread in an hour"); err != nil {
		t.Error(err)
	}
	u.want(ctx, "with nothing left", "alice", to, false)
	u.want(ctx, "from another source", "bob", to, true)
	u.want(ctx, "from the other family", "alice", to6, true)
	if all := l.Sink("selfsigned").Messages(); len(all) != 1 || all[0].Recipients()[0] != "large@selfsigned.example" {
		t.Errorf("%d messages arrived", len(all))
	}
	u.counted(ctx)

	open, passed := u.passes(ctx, "bob", to)
	if !passed {
		t.Fatal("bob's does not pass")
	}
	allow("192.0.2.20", "198.51.100.21", "--for", "1s") // in place of what was allowed
	if err := u.g.Sluiced.WaitLog(ctx, "mail of a client passes unread no more"); err != nil {
		t.Error(err)
	}
	u.want(ctx, "when the time is over", "bob", to, false)
	if r, err := open.Cmd("NOOP"); err == nil {
		t.Errorf("in the midst of a session the time is over: NOOP is answered %s", r)
	}
	u.later(ctx, 7*24*time.Hour-2*time.Hour)
	u.want(ctx, "two hours before the end of a week", "alice", to6, true)
	u.later(ctx, 2*time.Hour)
	u.want(ctx, "after a week", "alice", to6, false)
	if out := sluice(t, u.g, "tls", "refusals"); strings.Contains(out, "until ") {
		t.Errorf("after a week sluice tls refusals shows\n%s", out)
	}
}

// counted: alice's two messages stand in the log, in what is left of her hour, and in the status, as bytes that nobody read.
func (u *unread) counted(ctx context.Context) {
	u.t.Helper()
	var lines []struct {
		Out int64 `json:"unread_out"`
	}
	if err := sluiceJSON(ctx, u.g, &lines, "log", "--user", "alice", "--where", "class=opaque"); err != nil {
		u.t.Fatal(err)
	}
	var most int64
	for _, x := range lines {
		most = max(most, x.Out)
	}
	if least := int64(49 << 20); most < least || most > 50<<20 {
		u.t.Errorf("the log has %d bytes, %+v", most, lines)
	}
	var left []struct {
		Source             string
		Bytes, Connections int
	}
	if err := sluiceJSON(ctx, u.g, &left, "tls", "refusals"); err != nil {
		u.t.Fatal(err)
	}
	for _, x := range left {
		if spent := x.Source == "192.0.2.10"; spent != (x.Bytes == 0) || x.Connections != 29 {
			u.t.Errorf("left of the hour: %+v", x)
		}
	}
	var st struct {
		Unread struct {
			Flows    int
			BytesOut int64 `json:"bytes_out"`
		}
	}
	if err := sluiceJSON(ctx, u.g, &st, "status"); err != nil || st.Unread.Flows != 3 || st.Unread.BytesOut < most {
		u.t.Errorf("status: %+v, %v", st, err)
	}
}
