package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"sluice/cmd/internal/api"
)

var now = time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)

var inHalfAnHour = now.Add(30 * time.Minute)

// fake is a gateway in the middle of a lively day.
type fake struct{}

func (fake) Status(context.Context) (*api.Status, error) {
	return &api.Status{
		Gateway: "gw1.provider.example", Version: "1.0.0", PID: 4711, Started: now.Add(-50 * time.Hour), Accepting: true,
		Queue: api.Queue{Waiting: 2, Limit: 4096}, Flows: 118, Waiting: 3, Users: 2, Locks: 1,
		Helper: api.Helper{Connected: true, Version: "1.0.0", PID: 4700, Path: "tcx", PathReason: "self-test passed", Heartbeat: "alive", HeartbeatAgeMS: 12,
			Interfaces: []api.Interface{{Name: "cust0", Role: "customer", Path: "tcx"}, {Name: "cust1", Role: "customer", Error: "foreign program first"}, {Name: "up0", Role: "uplink", Path: "tcx"}},
			Bypasses: []api.Bypass{{Since: now.Add(-time.Minute), Until: &inHalfAnHour, Reason: "the proxy is stuck", By: "uid 0, pid 812"},
				{Prefix: "192.0.2.64/26", Since: now.Add(-time.Hour), Reason: "ticket 4711", By: "uid 0, pid 4"}},
			Sources: 4, Locks: 1, Problems: []string{"net.core.somaxconn is 128"}},
		Messages:  map[string]uint64{"delivered": 120334, "refused": 41, "deferred": 7},
		Addresses: []api.Address{{Address: netip.MustParseAddr("203.0.113.17"), Helo: "out1.provider.example", Weight: 1}},
		Config:    api.Config{File: "/etc/sluice/sluice.toml", Loaded: now.Add(-90 * time.Minute), Error: "/etc/sluice/sluice.toml:7: lock.tmie: there is no such key"},
		Spool:     api.Spool{Deliveries: 17, Held: 2, Bytes: 3 << 20},
		DNSLists: []api.DNSList{{Name: "zen", Zone: "zen.dnslist.example", Of: "source", State: "good", Asked: 4711, Listed: 3, Refused: 2},
			{Name: "uri", Zone: "uri.dnslist.example", Of: "link", State: "out", Error: "it lists everything: invalid.uri.dnslist.example has the address 127.0.0.1"}},
		Webhooks: []api.Webhook{{Name: "panel", URL: "https://panel.example/", Waiting: 3, Dead: true, Failures: 7, Since: &now, Error: "it answered 500 Internal Server Error"}, {Name: "desk", URL: "https://desk.example/", Heard: 41}},
		Wrong:    api.FalsePositives{Days: 30, Stopped: 41_000, Wrong: 3, Rate: 3.0 / 41_000, Open: 2},
		Plugins: []api.Plugin{{Name: "av", Kind: "clamd", Asked: 120000, Objected: 12, Failed: 31, Deferred: 30, Unseen: 4, Micros: 8200,
			Instances: []api.PluginInstance{{Address: "unix:/run/clamav/clamd.ctl", State: "alive"}, {Address: "198.51.100.9:3310", State: "dead", Error: "connection refused"}}}},
		Log: api.LogStats{Records: 120400, Bytes: 31 << 20}, Unread: api.Unread{Flows: 41, BytesOut: 5 << 20, BytesIn: 90 << 10},
		Onward: api.OnwardTLS{Encrypted: 90210, Plain: 812, Avoided: 9, Unmet: 3, Broken: 1, DANE: api.Met{OK: 5012, Failed: 2}, Enforced: api.Met{OK: 40000}, Testing: api.Met{Failed: 11}},
	}, nil
}
func (fake) Counters(context.Context) (*api.Counters, error) {
	return &api.Counters{Daemon: map[string]uint64{"accepted": 5, "accept_failed": 0}, Kernel: map[string]uint64{"assigned": 5}}, nil
}
func (fake) Doctor(context.Context) ([]api.Finding, error) {
	return []api.Finding{{Check: "heartbeat", State: api.OK, Text: "alive, 12 ms old"}, {Check: "interface cust1", State: api.Fail, Text: "not attached", Remedy: "look at it"}}, nil
}

var alice = api.User{ID: 1, Name: "alice", Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/29"), netip.MustParsePrefix("2001:db8:1::/64")},
	Contact: "alice@customer.example", Origin: "config", Mode: "intercept", Fail: "closed", Flows: 2, Forwarded: &api.Forwarded{Messages: 12, Sent: 9, Bad: 3}}

func (fake) Users(context.Context) ([]api.User, error) {
	return []api.User{alice, {ID: 9, Name: "192.0.2.66/32", Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.66/32")}, Origin: "template", Mode: "intercept", Fail: "open", Locked: true, Ticket: "K7QX-2M4T"}}, nil
}
func (fake) User(_ context.Context, name string) (*api.UserDetail, error) {
	if name != "alice" && name != "192.0.2.66/32" {
		return nil, &api.Problem{Status: 404, Code: "no-such-user", What: `there is no user "` + name + `"`, Remedy: "`sluice users` lists all"}
	}
	return &api.UserDetail{User: alice, Unlocks: 1, Kernel: map[string]uint64{"syn": 210, "intercepted": 200, "syn_limited": 10},
		Settings: api.Settings{Delivery: "managed", OnwardTLS: "opportunistic", MessagesPerHour: 5000, MessageSize: 50 << 20, SessionsPerSource: 100, SessionsPerPair: 20, ConnectionsPerSecond: 100,
			LockAutomatic: true, LockSpamCount: 5, LockSpamShare: 0.2, LockWindow: 600, LockTime: 3600, LockMaxUnlocks: 3, LockExplained: 10, StartTLS: "pass", StartTLSReason: "contract 12"}}, nil
}
func (fake) AddUser(_ context.Context, _ string, n api.NewUser) (*api.User, error) {
	return &api.User{Name: n.Name, Prefixes: n.Prefixes}, nil
}
func (fake) RemoveUser(_ context.Context, _, name string) (*api.User, error) {
	return &api.User{Name: name}, nil
}
func (fake) Modes(context.Context) ([]api.Mode, error) {
	until := now.Add(time.Hour)
	return []api.Mode{{Prefix: "192.0.2.0/24", Mode: "canary", Percent: 5, Origin: "run-time", Reason: "roll-out, ticket 4711", By: "root", Since: &now, Until: &until},
		{Prefix: "192.0.2.0/24", Mode: "shadow", Origin: "config", Reason: "roll-out", Beaten: true}, {Mode: "observe", Origin: "default", Reason: "intercept.default_mode"}}, nil
}
func (f fake) Holding(_ context.Context, p netip.Prefix) (*api.Mode, error) {
	ms, err := f.Modes(context.Background())
	ms[0].User, ms[0].Canary = "alice", "shadow"
	return &ms[0], err
}
func (fake) SetMode(_ context.Context, who string, p netip.Prefix, r api.ModeRequest) (*api.Mode, error) {
	if r.Mode == "pass" {
		return nil, &api.Problem{Status: 403, Code: "ceiling", What: "could not set " + p.String() + " to mode pass", Remedy: "name the prefix in intercept.runtime_loosen to allow less"}
	}
	return &api.Mode{Prefix: p.String(), Mode: r.Mode, Percent: r.Percent, Until: r.Until, Origin: "run-time", By: who, Since: &now, Reason: r.Reason}, nil
}
func (fake) RemoveMode(context.Context, string, netip.Prefix, string) (*api.Mode, error) {
	return &api.Mode{Mode: "observe", Origin: "default", Reason: "intercept.default_mode"}, nil
}
func (fake) Exemptions(context.Context) ([]api.Exemption, error) {
	return []api.Exemption{{Prefix: "198.51.100.7/32", Port: 25, Mode: "pass", Origin: "run-time", Reason: "their filter", By: "root", Since: &now}}, nil
}
func (fake) Exempt(_ context.Context, _ string, p netip.Prefix, r api.ExemptRequest) (*api.Exemption, error) {
	return &api.Exemption{Prefix: p.String(), Port: r.Port, Mode: r.Mode, Reason: r.Reason}, nil
}
func (fake) RemoveExemption(_ context.Context, _ string, p netip.Prefix, port uint16, _ string) (*api.Exemption, error) {
	return &api.Exemption{Prefix: p.String(), Port: port, Mode: "pass"}, nil
}
func (fake) Rollout(context.Context) (*api.Rollout, error) {
	return &api.Rollout{Fail: "open", Targets: []api.RolloutTarget{{Target: "all", Stage: "observe", Next: "shadow", Back: "off", Origin: "default", Inside: 1},
		{Target: "192.0.2.0/24", Stage: "canary 5%", Next: "canary 25%", Back: "canary 1%", Origin: "run-time"}}}, nil
}
func (fake) RollOut(_ context.Context, _ string, r api.RolloutRequest) (*api.RolloutStep, error) {
	if r.Target == "all" && !r.Force && !r.Back {
		return nil, &api.Problem{Status: 409, Code: "gate", What: "the gate before shadow says stop: relay: 5 of 9 messages", Remedy: "--force --reason WHY"}
	}
	return &api.RolloutStep{RolloutTarget: api.RolloutTarget{Target: r.Target, Stage: "shadow", Next: "canary 1%", Inside: 2}, From: "observe"}, nil
}
func (fake) Import(_ context.Context, _ string, lines []api.ImportLine, replace bool, _ string) (*api.Imported, error) {
	return &api.Imported{Users: 1, Prefixes: len(lines), Added: 1, Seconds: 2.34}, nil
}
func (fake) Flows() []api.Flow {
	return []api.Flow{{ID: "k3f9a2", User: "alice", Client: netip.MustParseAddrPort("192.0.2.3:41022"), Target: netip.MustParseAddrPort("198.51.100.20:25"),
		Helo: "mail.\x1b[31mred", State: "data", Since: now.Add(-3 * time.Second), Messages: 2, TLS: true}}
}

func lock() api.Lock {
	until := now.Add(40 * time.Minute)
	return api.Lock{Ticket: "K7QX-2M4T", User: "192.0.2.66/32", Prefix: netip.MustParsePrefix("192.0.2.66/32"), Code: "GTUBE", Reason: "5 bad messages of 5 in 10 minutes", By: "sluice", Automatic: true,
		Since: now.Add(-20 * time.Minute), Until: &until, Evidence: []api.Evidence{{Message: "k3f9a9.1", Time: now.Add(-20 * time.Minute), Code: "GTUBE", Text: "test text at byte 100"}}}
}
func (fake) Locks(context.Context) ([]api.Lock, error) { return []api.Lock{lock()}, nil }
func (fake) History(context.Context, string, int) ([]api.Lock, error) {
	old := lock()
	ended := now.Add(-24 * time.Hour)
	old.Ticket, old.By, old.Ended, old.EndedBy, old.EndedWhy, old.Since = "A2BC-9XYZ", "root", &ended, "time", "its time was over", now.Add(-25*time.Hour)
	return []api.Lock{lock(), old}, nil
}
func (fake) Lock(_ context.Context, who string, r api.LockRequest) (*api.Lock, error) {
	l := lock()
	l.User, l.Reason = r.User, r.Reason
	if r.Seconds == 0 {
		l.Until = nil
	}
	return &l, nil
}
func (fake) Replay(_ context.Context, q api.ReplayRequest) (*api.Replay, error) {
	return &api.Replay{Since: q.Since, Whole: true, Messages: 9, Users: 2, Locks: []api.ReplayLock{{User: "alice", Identity: "shop", First: q.Since, Rule: "spam", Reason: "r", Count: 1}}}, nil
}
func (fake) Undo(_ context.Context, _ string, r api.UndoRequest) ([]api.Lock, error) {
	return []api.Lock{{Ticket: "T4", Check: r.Check}}, nil
}
func (fake) Unlock(_ context.Context, _ string, r api.UnlockRequest) (*api.Lock, error) {
	l := lock()
	l.User = r.User
	return &l, nil
}

func dayLog() []*api.Message {
	return []*api.Message{
		{ID: "k3f9a9.1", Time: now.Add(-20 * time.Minute), DurationMS: 31, User: "192.0.2.66/32", Client: netip.MustParseAddrPort("192.0.2.66:5001"), Target: netip.MustParseAddrPort("198.51.100.20:25"),
			Helo: "x", From: "win@casino.example", To: []api.Recipient{{Address: "a@sink.example", Code: 250, Reply: "2.1.5 ok"}, {Address: "b@sink.example", Code: 250, Reply: "2.1.5 ok"}}, Size: 2048,
			Status: "refused", Class: "spam", Code: "GTUBE", Reply: "550 5.7.1 gw1.provider.example: [GTUBE] this message is spam", Hits: []api.Hit{{Check: "content", Code: "GTUBE", Class: "spam", Action: "reject", Text: "this message is spam", Evidence: "at byte 100"}}},
		{ID: "k3f9a2.1", Time: now.Add(-26 * time.Hour), DurationMS: 1700, User: "alice", Client: netip.MustParseAddrPort("192.0.2.3:41022"), Target: netip.MustParseAddrPort("198.51.100.20:25"),
			Helo: "mail.alice.example", From: "", To: []api.Recipient{{Address: "bob@sink.example", Code: 250, Reply: "ok"}}, Size: 52 << 10, Status: "delivered", Class: "clean", Reply: "250 2.0.0 queued", Remote: "250 2.0.0 queued", Source: "203.0.113.17", TLSOut: "TLS1.3"},
		{ID: "k3f9a1", Time: now.Add(-27 * time.Hour), User: "alice", Client: netip.MustParseAddrPort("192.0.2.3:41021"), Target: netip.MustParseAddrPort("198.51.100.30:25"), Status: "no-message", Class: "clean", Reply: "421 4.4.1 gw1.provider.example: no connection to the destination"},
	}
}
func (fake) Find(_ context.Context, q api.Query) ([]*api.Message, error) {
	switch {
	case q.Ticket != "" || q.ID != "" && !strings.HasPrefix("k3f9a9.1", q.ID):
		return nil, nil
	case q.ID != "":
		return dayLog()[:1], nil
	}
	return dayLog(), nil
}
func (fake) Tail(_ context.Context, _ api.Query, take func(*api.Message) error) error {
	for _, m := range dayLog() {
		if err := take(m); err != nil {
			return err
		}
	}
	return errors.New("sluiced is going down")
}

func (fake) Gate(_ context.Context, q api.GateQuery) (*api.Gate, error) {
	g := &api.Gate{Scope: "all", Since: now.Add(-24 * time.Hour), Until: now, Whole: true, Users: 41, Flows: 9812, Shadow: 9000, Observed: 812, Opaque: 5200,
		Messages: 12345, Verdict: api.GateStop, Lines: []api.GateLine{
			{Check: "traffic", Verdict: api.GateOK, Text: "12345 messages in 9812 connections of 41 users", Count: 12345, Of: 12345},
			{Check: "spf", Verdict: api.GateStop, Count: 200, Of: 12345, Text: "3 sender domains (1.6 % of the messages) allow the customer's address and not the delivery addresses: shop.example 190, a.example 9, b.example 1",
				Worst:  []api.GateWorst{{User: "alice", Count: 190, Detail: "shop.example 190"}, {User: "192.0.2.66/32", Count: 10, Detail: "a.example 9, b.example 1"}},
				Remedy: "have the domains' owners add the delivery addresses to SPF"},
			{Check: "tls", Verdict: api.GateUnknown, Text: "not known before enforcement"},
		}}
	if q.User != "" {
		g.Scope, g.Whole = q.User, false
	}
	return g, nil
}

func (fake) Observed(context.Context) (*api.ObserveReport, error) {
	return &api.ObserveReport{Observer: api.Observer{Wanted: true, Present: true, Flows: 530, LostPieces: 1}, Since: now.Add(-50 * time.Hour), Users: []api.ObservedUser{
		{User: "192.0.2.66/32", Mode: "observe", WouldLocks: 2, Observed: api.Observed{Flows: 30, Messages: 400, Recipients: 4100, WouldRefuse: map[string]int{"RATE-MSG": 350, "LOCKED": 12, "GTUBE": 12}}},
		{User: "alice", Mode: "observe", Observed: api.Observed{Flows: 500, Opaque: 450, OpaqueShare: 0.9, Unread: 1, Messages: 51, Recipients: 60}},
	}}, nil
}

// serve starts the API and returns its socket.
func serve(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cli")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	l, err := api.Listen(path, "")
	if err != nil {
		t.Fatal(err)
	}
	f := fake{}
	s := api.NewServer(api.Backend{Overview: f, Users: f, UserEditor: f, Importer: f, Ruler: f, Roller: f, Flows: f, Locks: f, Locker: f, Log: f, Gates: f, Observe: f, StartTLS: f, Refusals: f, Logins: f, Models: f, Onward: f, MailQueue: f, Campaigns: f, Quarantine: f, Appeals: f, AccountLocker: f, Suggester: f, Senders: f, Stories: f, HitActor: f, DKIM: f}, slog.New(slog.DiscardHandler))
	s.Now = func() time.Time { return now }
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), <-done, os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	return path
}

// call runs a command line as an operator would.
func call(socket string, width int, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	s := &screen{out: &out, now: func() time.Time { return now }, zone: time.UTC, width: width}
	code = run(context.Background(), s, &errs, append([]string{"--socket", socket}, args...))
	return code, out.String(), errs.String()
}

// TestOutput shows every command's output as people see it.
func TestOutput(t *testing.T) {
	socket := serve(t)
	var all bytes.Buffer
	for _, line := range []string{
		"status", "status --counters", "users", "users show alice", "users add carol 192.0.2.128/28 2001:db8:7::1", "users remove carol", "users import testdata/users.csv", "users import testdata/none.csv", "users show dave",
		"mode", "mode show 192.0.2.7", "mode set 192.0.2.0/24 canary --percent 5 --for 2h --reason x", "mode set 192.0.2.0/24 pass --reason x", "mode set 192.0.2.0/24 pass", "mode set 192.0.2.0/24 pass --for 0 --reason x",
		"mode set 192.0.2.0/24 pass --until tomorrow --reason x", "mode remove 192.0.2.0/24", "exempt", "exempt set 198.51.100.7 pass --port 25 --reason x", "exempt remove 198.51.100.7",
		"tls", "tls set 198.51.100.7 strip", "tls set 198.51.100.7 strip --for 2h --reason x", "tls user alice pass --reason x", "tls user alice pass", "tls user alice inherit", "tls remove 198.51.100.7 --port 25",
		"tls ca", "tls ca --pem", "tls refusals", "tls refusals allow 192.0.2.7 198.51.100.7", "tls refusals allow 192.0.2.7 198.51.100.7 --reason x", "tls refusals allow 192.0.2.7 198.51.100.7 --for 30d --reason x", "tls refusals forget 192.0.2.7 198.51.100.7",
		"rollout", "rollout forward 192.0.2.0/24", "rollout forward all", "rollout forward all --force", "rollout back all",
		"flows", "locks", "locks --history", "lock alice --for 2h --reason compromised", "lock alice --until-unlocked --reason x", "unlock alice",
		"observe", "observe alice", "observe nobody", "log", "log --follow", "why k3f9a9.1", "why K7QX-2M4T", "why nothing",
		"log --code GTUBE --do lock --reason wave --plan", "log --user alice --do unlock --reason mended", "log --user alice --do burn --reason x", "log --user alice --do spam",
		"lock alice", "lock", "log --since tomorrow", "log --status gone", "log --limit x", "log --limit 99999999999999999999", "version", "users add carol 192.0.2.1/24", "nonsense", "unlock a b",
		"gate", "gate --user alice --since 2h", "gate --prefix 192.0.2.1/24", "gate --user a --prefix 192.0.2.0/24",
		"queue", "queue list", "queue list --domain example.net --held", "queue show 6rnhgw6s8k26", "queue hold --user alice", "queue hold --user alice --reason why", "queue release --all",
		"queue retry", "queue delete 6rnhgw6s8k26 --reason why", "queue submit testdata/password --from a@example.com --to b@example.net", "queue submit testdata/password", "queue submit testdata/none --from a@example.com --to b@example.net",
		"campaign", "campaign list --state held", "campaign list --user nobody", "campaign list --state odd", "campaign show C04K7QX", "campaign show C0", "campaign hold C04K7QX --reason look", "campaign release C04K7QX", "campaign lock C04K7QX --for 2h --reason hacked",
		"campaign digest", "campaign digest add 9f86 --reason x", "campaign digest add 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 --days 7 --reason worm", "campaign digest add 9f86", "campaign digest remove 9f86", "campaign digest of testdata/mails/one.eml",
		"quarantine", "quarantine list --user nobody", "quarantine show q7k2m9xa40bc1", "quarantine show q7k2m9xa40bc1 --message", "quarantine show q0", "quarantine release q7k2m9xa40bc1 --reason order --train", "quarantine release --all --reason x",
		"quarantine release --user alice", "quarantine delete", "quarantine delete --user alice --reason spam", "quarantine rotate",
		"appeal", "appeal list", "appeal list --state denied", "appeal show ak3f9a9-1", "appeal show a0", "appeal approve ak3f9a9-1 --reason minutes", "appeal deny ak3f9a9-1 --reason pills", "appeal deny ak3f9a9-1",
		"unlock alice --reset", "lock --account house --plan-only", "lock alice --plan-only", "lock --account house --reason stolen", "unlock --account house", "lock --account house", "lock evidence K7QX-2M4T -o -", "lock evidence none", "users suggest alice", "users suggest bob", "users senders alice", "users senders bob", "users senders alice --take", "users senders alice ceo@bank.example --take --reason new", "users senders alice ceo@bank.example",
		"dkim", "dkim show customer.example", "dkim show shop.example", "dkim show none.example", "dkim generate shop.example --type ed25519 --selector s2", "dkim rotate", "dkim generate x.example --type dsa", "dkim remove customer.example --reason x",
		"login", "login add customer.example --user alice", "login add customer.example", "login add bob@customer.example --user alice --own mail.customer.example:465 --own-tls implicit",
		"login password customer.example --password-file testdata/password", "login password customer.example --password-file testdata/none", "login remove bob@customer.example", "guessers", "guessers forgive 192.0.2.66", "guessers forgive nobody",
		"tls policy bank.example", "tls policy nowhere.example", "tls broken", "tls retry 198.51.100.30", "tls retry 198.51.100.31:25", "tls retry mx.example", "tls policy",
		"model", "model back", "model doubt k3f9a9.1 spam", "model doubt k3f9a9.1", "train spam testdata/mails", "train ham --source trap testdata/mails/one.eml", "train good x", "train spam testdata/none", "untrain testdata/mails/one.eml", "untrain", "gate alice", "undo", "undo --check content", "restore", "restore testdata/none", "restore testdata/mails/one.eml", "backup testdata/mails/one.eml",
	} {
		args := strings.Fields(line)
		code, out, errs := call(socket, 0, args...)
		all.WriteString("$ sluice " + line + "\n" + out + errs)
		if code != 0 {
			all.WriteString("exit code " + string(rune('0'+code)) + "\n")
		}
		all.WriteString("\n")
	}
	golden(t, "testdata/output.golden", all.Bytes())
}

func TestNarrowTerminalIsNotWrapped(t *testing.T) {
	t.Parallel()
	socket := serve(t)
	for _, args := range [][]string{{"log"}, {"log", "--follow"}, {"users"}, {"locks", "--history"}, {"gate"}, {"observe"}} {
		_, out, _ := call(socket, 110, args...)
		for line := range strings.Lines(out) {
			if n := len([]rune(strings.TrimRight(line, "\n"))); n > 110 {
				t.Errorf("sluice %v: a line of %d columns: %s", args, n, line)
			}
		}
	}
}

func TestJSON(t *testing.T) {
	t.Parallel()
	socket := serve(t)
	for _, args := range [][]string{{"status"}, {"users"}, {"users", "show", "alice"}, {"flows"}, {"locks"}, {"log"}, {"why", "k3f9a9.1"}, {"unlock", "alice"}, {"status", "--counters"}, {"gate"}, {"observe"}, {"tls"}, {"tls", "refusals"}, {"tls", "ca"}} {
		code, out, errs := call(socket, 0, append(args, "--json")...)
		if code != 0 || !json.Valid([]byte(out)) || strings.Contains(out, "\x1b") {
			t.Errorf("sluice %v --json: code %d, %s%s", args, code, out, errs)
		}
	}
	_, out, _ := call(socket, 0, "log", "--follow", "--json")
	for line := range strings.Lines(out) {
		if !json.Valid([]byte(line)) {
			t.Errorf("a line that is no JSON: %s", line)
		}
	}
}

func TestColoursOnlyWhenAsked(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	s := &screen{out: &out, now: time.Now, zone: time.UTC, colour: true}
	s.table([]column{{head: "A"}, {head: "B", style: statusStyle}}, [][]string{{"x", "refused"}})
	if want := "\x1b[1mA\x1b[0m  \x1b[1mB\x1b[0m\nx  \x1b[31mrefused\x1b[0m\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}

func TestAbsentDaemon(t *testing.T) {
	t.Parallel()
	code, _, errs := call(filepath.Join(t.TempDir(), "none"), 0, "status")
	if code != exitUnreachable || !strings.Contains(errs, "systemctl start sluiced") {
		t.Errorf("code %d, %s", code, errs)
	}
}

func TestDoctorEndsWithFailure(t *testing.T) {
	t.Parallel()
	code, out, _ := call(serve(t), 0, "doctor", "--no-dns", "--config", "../../deploy/sluice.toml")
	if code != exitFailed || !regexp.MustCompile(`(?m)^fail  interface cust1 +not attached$`).MatchString(out) || !strings.Contains(out, "help: look at it") {
		t.Errorf("code %d\n%s", code, out)
	}
}

// TestCommandsStandInGroups: the list of commands shows each of them where a person looks for it.
func TestCommandsStandInGroups(t *testing.T) {
	t.Parallel()
	code, out, _ := call("/nonexistent", 0, "--help")
	if code != 0 || strings.Contains(out, "Additional Commands") || !strings.Contains(out, "Stop a sender, and let go:\n") {
		t.Errorf("code %d\n%s", code, out)
	}
}
