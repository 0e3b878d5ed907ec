package api

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write openapi.json anew")

// fake is a gateway with one user, one flow, one lock and one message.
type fake struct {
	forgiven netip.Addr
	users    []User
	tail     chan *Message
	asked    Query
	who      string
}

func (f *fake) Status(context.Context) (*Status, error) {
	return &Status{Gateway: "gw.example", Users: len(f.users)}, nil
}
func (f *fake) Counters(context.Context) (*Counters, error) {
	return &Counters{Daemon: map[string]uint64{"flows": 1}}, nil
}
func (f *fake) Doctor(context.Context) ([]Finding, error) { return nil, errors.New("no doctor today") }
func (f *fake) Users(context.Context) ([]User, error)     { return f.users, nil }
func (f *fake) User(_ context.Context, name string) (*UserDetail, error) {
	for _, u := range f.users {
		if u.Name == name {
			return &UserDetail{User: u}, nil
		}
	}
	return nil, &Problem{Status: 404, Code: "no-such-user", What: "there is no user " + name, Remedy: "`sluice users list` shows all"}
}
func (f *fake) AddUser(_ context.Context, who string, n NewUser) (*User, error) {
	f.who = who
	u := User{ID: 7, Name: n.Name, Prefixes: n.Prefixes, Origin: "command"}
	f.users = append(f.users, u)
	return &u, nil
}
func (f *fake) RemoveUser(_ context.Context, _, name string) (*User, error) {
	return &User{Name: name}, nil
}
func (f *fake) Modes(context.Context) ([]Mode, error) {
	return []Mode{{Prefix: "192.0.2.0/24", Mode: "shadow"}}, nil
}
func (f *fake) Holding(_ context.Context, p netip.Prefix) (*Mode, error) {
	return &Mode{Prefix: p.String(), Mode: "shadow"}, nil
}
func (f *fake) SetMode(_ context.Context, who string, p netip.Prefix, r ModeRequest) (*Mode, error) {
	return &Mode{Prefix: p.String(), Mode: r.Mode, Percent: r.Percent, By: who, Reason: r.Reason}, nil
}
func (f *fake) RemoveMode(_ context.Context, _ string, p netip.Prefix, reason string) (*Mode, error) {
	return &Mode{Prefix: p.String(), Reason: reason}, nil
}
func (f *fake) Exemptions(context.Context) ([]Exemption, error) { return []Exemption{}, nil }
func (f *fake) Exempt(_ context.Context, _ string, p netip.Prefix, r ExemptRequest) (*Exemption, error) {
	return &Exemption{Prefix: p.String(), Mode: r.Mode}, nil
}
func (f *fake) RemoveExemption(_ context.Context, _ string, p netip.Prefix, port uint16, _ string) (*Exemption, error) {
	return &Exemption{Prefix: p.String(), Port: port}, nil
}
func (f *fake) Rollout(context.Context) (*Rollout, error) { return &Rollout{Fail: "open"}, nil }
func (f *fake) RollOut(_ context.Context, _ string, r RolloutRequest) (*RolloutStep, error) {
	return &RolloutStep{RolloutTarget: RolloutTarget{Target: r.Target}}, nil
}
func (f *fake) Import(_ context.Context, _ string, lines []ImportLine, replace bool, reason string) (*Imported, error) {
	return &Imported{Prefixes: len(lines)}, nil
}
func (f *fake) Flows() []Flow {
	return []Flow{{ID: "a1", User: "alice", State: "data"}, {ID: "a2", User: "bob"}}
}
func (f *fake) Locks(context.Context) ([]Lock, error) {
	return []Lock{{Ticket: "T1", User: "alice"}, {Ticket: "T2", User: "bob"}}, nil
}
func (f *fake) History(_ context.Context, user string, limit int) ([]Lock, error) {
	return make([]Lock, limit), nil
}
func (f *fake) Lock(_ context.Context, who string, r LockRequest) (*Lock, error) {
	return &Lock{Ticket: "T3", User: r.User, By: who, Reason: r.Reason}, nil
}
func (f *fake) Unlock(_ context.Context, _ string, r UnlockRequest) (*Lock, error) {
	return nil, &Problem{Status: 409, Code: "not-locked", What: r.User + " is not locked"}
}
func (f *fake) Replay(_ context.Context, q ReplayRequest) (*Replay, error) {
	return &Replay{Since: q.Since, Locks: []ReplayLock{}}, nil
}
func (f *fake) Undo(_ context.Context, who string, r UndoRequest) ([]Lock, error) {
	return []Lock{{Ticket: "T4", Check: r.Check, EndedBy: who}}, nil
}
func (f *fake) Find(_ context.Context, q Query) ([]*Message, error) {
	f.asked = q
	return nil, nil
}
func (f *fake) Gate(_ context.Context, q GateQuery) (*Gate, error) {
	return &Gate{Scope: q.User + q.Prefix.String(), Since: q.Since, Verdict: GateOK}, nil
}
func (f *fake) Tail(ctx context.Context, _ Query, take func(*Message) error) error {
	for {
		select {
		case m := <-f.tail:
			if m == nil {
				return errors.New("the log ended")
			}
			if err := take(m); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (f *fake) Observed(context.Context) (*ObserveReport, error) { return &ObserveReport{}, nil }

// shortDir is a folder for sockets, whose paths are short: t.TempDir may be too long.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "api")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// serve starts the API of f on a socket of its own.
func serve(t *testing.T, f *fake) *Client {
	t.Helper()
	path := filepath.Join(shortDir(t), "s")
	l, err := Listen(path, "")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(Backend{Overview: f, Users: f, UserEditor: f, Importer: f, Ruler: f, Roller: f, Flows: f, Locks: f, Locker: f, Log: f, Gates: f, Observe: f,
		StartTLS: f, Refusals: f, Logins: f, Models: f, Onward: f, MailQueue: f, Campaigns: f, Quarantine: f, Tokens: keys{f}}, slog.New(slog.DiscardHandler))
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), <-done); err != nil {
			t.Error(err)
		}
	})
	return NewClient(path)
}

func TestRequests(t *testing.T) {
	t.Parallel()
	c := serve(t, &fake{users: []User{{ID: 3, Name: "192.0.2.66/32"}}})
	for _, tt := range []struct {
		method, path string
		in           any
		want         string // of the answer, or of the error
	}{
		{"GET", "/v1/status", nil, `"gateway":"gw.example"`},
		{"GET", "/v1/users", nil, `"name":"192.0.2.66/32"`},
		{"GET", "/v1/users/192.0.2.66/32", nil, `"id":3`},
		{"GET", "/v1/users/carol", nil, "there is no user carol; `sluice users list`"},
		{"POST", "/v1/users", NewUser{Name: "x"}, "at least one prefix"},
		{"POST", "/v1/users", map[string]string{"nmae": "x"}, `unknown field "nmae"`},
		{"DELETE", "/v1/users/bob", nil, `"name":"bob"`},
		{"GET", "/v1/modes", nil, `"mode":"shadow"`},
		{"GET", "/v1/modes/192.0.2.7", nil, `"prefix":"192.0.2.7/32"`},
		{"POST", "/v1/modes", ModeRequest{Prefix: "2001:db8::/32", Mode: "canary", Percent: 5, Reason: "r"}, `"percent":5`},
		{"POST", "/v1/modes", ModeRequest{Prefix: "2001:db8::/32", Mode: "canary", Reason: "r"}, "give percent, from 1 to 99"},
		{"POST", "/v1/modes", ModeRequest{Prefix: "2001:db8::/32", Mode: "pass", Percent: 5, Reason: "r"}, "belongs to mode canary only"},
		{"POST", "/v1/modes", ModeRequest{Prefix: "2001:db8::1/32", Mode: "pass", Reason: "r"}, "bits set behind its length"},
		{"POST", "/v1/modes", ModeRequest{Prefix: "::ffff:192.0.2.0/120", Mode: "pass", Reason: "r"}, "IPv4 written as IPv6"},
		{"POST", "/v1/modes", ModeRequest{Prefix: "192.0.2.0/24", Mode: "allow", Reason: "r"}, `"allow" is not a mode; use one of intercept, canary`},
		{"POST", "/v1/modes", ModeRequest{Prefix: "192.0.2.0/24", Mode: "pass"}, "needs a reason"},
		{"POST", "/v1/modes", ModeRequest{Prefix: "192.0.2.0/24", Mode: "pass", Reason: "two\nlines"}, "not one line"},
		{"POST", "/v1/modes", ModeRequest{Prefix: "192.0.2.0/24", Mode: "pass", Reason: "r", Until: new(time.Time)}, "has passed"},
		{"DELETE", "/v1/modes/192.0.2.0/24?reason=done", nil, `"reason":"done"`},
		{"POST", "/v1/exemptions", ExemptRequest{Prefix: "192.0.2.0/24", Mode: "canary", Reason: "r"}, "cannot be in mode canary"},
		{"POST", "/v1/exemptions", ExemptRequest{Prefix: "192.0.2.0/24", Mode: "pass", Reason: "r"}, `"mode":"pass"`},
		{"DELETE", "/v1/exemptions/192.0.2.0/24?port=2525", nil, `"port":2525`},
		{"DELETE", "/v1/exemptions/192.0.2.0/24?port=x", nil, "is not a port"},
		{"GET", "/v1/rollout", nil, `"fail":"open"`},
		{"POST", "/v1/rollout", RolloutRequest{Target: "all"}, `"target":"all"`},
		{"POST", "/v1/rollout", RolloutRequest{}, "name a target"},
		{"POST", "/v1/rollout", RolloutRequest{Target: "all", Force: true}, "force needs a reason"},
		{"POST", "/v1/rollout", RolloutRequest{Target: "all", Fail: "maybe"}, "is not a fail mode"},
		{"POST", "/v1/import", strings.NewReader("# x\n192.0.2.0/29,alice\n\n2001:db8::/64, bob , shadow\n192.0.2.9,bob\n"), `"prefixes":3`},
		{"POST", "/v1/import", strings.NewReader("192.0.2.0/29,alice\n192.0.2.1/29,bob\n"), "line 2: \"192.0.2.1/29\" has bits set behind its length"},
		{"POST", "/v1/import", strings.NewReader("192.0.2.0/29,alice\n192.0.2.0/29,bob\n"), "line 2: 192.0.2.0/29 stands on line 1 already"},
		{"POST", "/v1/import", strings.NewReader("192.0.2.0/29\n"), "is not prefix,user"},
		{"POST", "/v1/import", strings.NewReader("192.0.2.0/29,a,canary\n"), "a list can give"},
		{"POST", "/v1/import", strings.NewReader("::ffff:192.0.2.0/120,a\n"), "IPv4 written as IPv6"},
		{"POST", "/v1/import", strings.NewReader(strings.Repeat("x", 5000)), "line 1 could not be read"},
		{"GET", "/v1/flows?user=alice", nil, `[{"id":"a1"`},
		{"GET", "/v1/flows?usr=alice", nil, `no parameter "usr"; known here: user`},
		{"GET", "/v1/locks?user=bob", nil, `[{"ticket":"T2"`},
		{"GET", "/v1/locks?history=1&limit=0", nil, "is not a number from 1"},
		{"POST", "/v1/lock", LockRequest{User: "bob"}, "needs a reason"},
		{"POST", "/v1/lock", LockRequest{User: "bob", Reason: "x", Seconds: 700000}, "no time for a lock"},
		{"POST", "/v1/unlock", UnlockRequest{User: "bob"}, "bob is not locked"},
		{"POST", "/v1/replay", ReplayRequest{}, "a replay needs a moment to begin from"},
		{"POST", "/v1/undo", UndoRequest{Check: "content"}, "an undo needs a check and a moment"},
		{"GET", "/v1/log", nil, "[]"},
		{"GET", "/v1/log?status=gone", nil, `"gone" is not a status; use one of delivered`},
		{"GET", "/v1/log?since=yesterday", nil, "is not a time"},
		{"GET", "/v1/log?client=192.0.2.1/24", nil, "write 192.0.2.0/24"},
		{"GET", "/v1/doctor", nil, "no doctor today; the journal"},
		{"GET", "/v1/nothing", nil, "there is no GET /v1/nothing; GET /v1/openapi.json"},
		{"DELETE", "/v1/status", nil, "there is no DELETE /v1/status"},
	} {
		var raw jsonText
		err := c.Do(t.Context(), tt.method, tt.path, tt.in, &raw)
		got := string(raw)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, tt.want) {
			t.Errorf("%s %s: %s, want %s", tt.method, tt.path, got, tt.want)
		}
	}
}

// jsonText keeps an answer as it came.
type jsonText []byte

func (j *jsonText) UnmarshalJSON(b []byte) error { *j = append((*j)[:0], b...); return nil }

func TestQueryReachesTheLog(t *testing.T) {
	t.Parallel()
	f := &fake{}
	c := serve(t, f)
	want := Query{User: "alice", Status: "refused", ID: "a.1", Ticket: "T", From: "a.example", To: "b@b.example", Limit: 7,
		Client: netip.MustParsePrefix("192.0.2.0/24"), Since: time.Unix(1e9, 0).UTC(), Until: time.Unix(2e9, 0).UTC()}
	if err := c.Do(t.Context(), "GET", "/v1/log?"+want.Values().Encode(), nil, nil); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(f.asked, want) {
		t.Errorf("the log was asked %+v, want %+v", f.asked, want)
	}
}

func TestOperatorIsNamed(t *testing.T) {
	t.Parallel()
	f := &fake{}
	c := serve(t, f)
	if err := c.Do(t.Context(), "POST", "/v1/users", NewUser{Name: "x", Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}}, nil); err != nil {
		t.Fatal(err)
	}
	if f.who == "" || f.who == "unknown" {
		t.Errorf("the act was by %q, want the account of this test", f.who)
	}
}

func TestFollow(t *testing.T) {
	t.Parallel()
	f := &fake{tail: make(chan *Message, 3)}
	c := serve(t, f)
	f.tail <- &Message{ID: "a.1"}
	f.tail <- &Message{ID: "a.2"}
	f.tail <- nil
	var got []string
	err := c.Follow(t.Context(), Query{}, func(m *Message) error { got = append(got, m.ID); return nil })
	if err == nil || !strings.Contains(err.Error(), "the log ended") {
		t.Errorf("the stream's end was told as %v", err)
	}
	if strings.Join(got, " ") != "a.1 a.2" {
		t.Errorf("followed %v", got)
	}
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	dead := filepath.Join(dir, "dead")
	if err := os.WriteFile(dead, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "absent"): "systemctl start sluiced",
		dead:                         "systemctl status sluiced",
	} {
		err := NewClient(path).Do(t.Context(), "GET", "/v1/status", nil, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
	}
}

func TestListenTakesOver(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	path := filepath.Join(dir, "s")
	old, err := Listen(path, "")
	if err != nil {
		t.Fatal(err)
	}
	l, err := Listen(path, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatalf("the old one took the new one's name away: %v", err)
	}
	if fi.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, want 0660", fi.Mode().Perm())
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(filepath.Join(dir, "no", "folder"), ""); err == nil || !strings.Contains(err.Error(), "does its folder exist") {
		t.Errorf("a missing folder was told as %v", err)
	}
}

// TestRequestsReachWhoServesNow: a client that spoke to a process finds the one that took over from it, while the older one still serves.
func TestRequestsReachWhoServesNow(t *testing.T) {
	t.Parallel()
	path := filepath.Join(shortDir(t), "s")
	c := NewClient(path)
	for _, want := range []string{"older", "newer"} {
		l, err := Listen(path, "")
		if err != nil {
			t.Fatal(err)
		}
		s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, "%q", want) })}
		go func() { _ = s.Serve(l) }()
		defer s.Close()
		var got string
		if err := c.Do(t.Context(), "POST", "/v1/lock", nil, &got); err != nil || got != want {
			t.Errorf("%q answered (%v), want the %s one", got, err, want)
		}
	}
}

func TestOpenAPI(t *testing.T) {
	got, err := describe((&Server{}).routes())
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("openapi.json", got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(got, openAPI) {
		t.Error("openapi.json does not describe the routes; run `make generate`")
	}
	c := serve(t, &fake{})
	res, err := c.send(t.Context(), "GET", "/v1/openapi.json", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if served, err := io.ReadAll(res.Body); err != nil || !bytes.Equal(served, got) {
		t.Errorf("the served description differs (%v)", err)
	}
}
