//go:build labtest

package lab

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The clients that this project did not write: mail servers with a queue, each on a customer's host of its own, and
// programs without.
var (
	queueing = map[string]string{"postfix": "alice", "exim": "dave", "opensmtpd": "bob"}
	agents   = []string{"msmtp", "nodemailer", "sendmail", "smtplib", "swaks"}
)

// A pairing is one client at one door of one server.
type pairing struct {
	id     string
	server MX
	door   Door
	// letter is what is sent to one good recipient; nil: body goes to a good, a refused and a deferred one.
	letter []byte
}

func (p pairing) rcpts() []string {
	if p.letter != nil {
		return []string{p.to("ok")}
	}
	return []string{p.to("ok"), p.to("reject"), p.to("defer")}
}

func (p pairing) to(local string) string { return local + "-" + p.id + "@" + p.door.Domain }

// body has what relays are known to spoil: dots, blanks at line ends, tabs, a folded field, 8-bit text, a line as long as
// RFC 5321 4.5.3.1.6 allows, empty lines at the end.
func (p pairing) body(host string) []byte {
	if p.letter != nil {
		return append([]byte(labID+p.id+"\r\n"), p.letter...)
	}
	return fmt.Appendf(nil, labID+"%s\r\nFrom: <a@%s.example>\r\nTo: =?utf-8?q?J=C3=B6rg?= <ok@example.net>,\r\n\t \"O'Neil, B.\"  <b@example.net>\r\n"+
		"Subject:  two  blanks \r\n folded\r\nMessage-ID: <%[1]s@%[2]s.example>\r\nDate: Sat, 21 Nov 2026 10:00:00 +0000\r\nMIME-Version: 1.0\r\n"+
		"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n.\r\n..\r\n.dots\r\nFrom here\r\nblanks  \t \r\n\t\r\nGrüße\r\n%s\r\n\r\n\r\n",
		p.id, host, strings.Repeat("0123456789 ", 91)[:998])
}

// foreign are the servers that this project did not write.
func foreign() []MX {
	return slices.DeleteFunc(Hosts(), func(m MX) bool { return !m.Kind.Foreign() })
}

// pairings are a client's: with every server at each of its doors.
func pairings(client string) []pairing {
	var list []pairing
	for _, mx := range foreign() {
		for i, d := range mx.Doors() {
			if mx.Kind == KindOpenSMTPD && d.TLS { // its TLS is broken: TestServerWithBrokenTLS

				d = mx.Doors()[i+2]
			}
			list = append(list, pairing{id: fmt.Sprintf("%s-%s-%d", client, mx.Name, i), server: mx, door: d})
		}
	}
	return list
}

// TestForeignPeers sends by every client to every server, with and without the gateway between them, by STARTTLS and
// plain, IPv4 and IPv6, and compares what the clients say and what arrived: messages to good, refused and deferred
// recipients, odd and real ones, signed ones. What a client or a server changes by itself it changes both times.
// SLUICE_LETTERS is how many odd, real and signed messages each pair carries, five where it is not set; SLUICE_PART which ones:
// part 1 begins where part 0 ends.
func TestForeignPeers(t *testing.T) {
	t.Parallel()
	each := 5
	if n, err := strconv.Atoi(os.Getenv("SLUICE_LETTERS")); err == nil && n > each {
		each = n
	}
	odd, withSignature := each-2*each/5, 2*each/5
	part, _ := strconv.Atoi(os.Getenv("SLUICE_PART")) // 0 where it is not set
	keys, err := newDKIMKeys()
	if err != nil {
		t.Fatal(err)
	}
	labs := twoLabs(t, Options{TXT: keys.txt, Log: t.Output()}, unjudged)
	ctx := testContext(t)
	var tools [2]*Toolbox
	for i, l := range labs {
		if tools[i], err = l.Toolbox(ctx, HostInternet); err != nil {
			t.Fatal(err)
		}
	}
	letters, err := signed(ctx, tools[0], keys)
	if err != nil {
		t.Fatal(err)
	}
	expectVerifiers(ctx, t, tools[0], letters)
	both := []func(string) []pairing{pairings, series("odd", peerLetters(t), odd, part), series("signed", letters, withSignature, part)}
	seen := meetTwice(ctx, t, labs, func(client string) (list []pairing) {
		for _, f := range both {
			list = append(list, f(client)...)
		}
		return list
	})
	expectSignatures(ctx, t, tools, seen)
	// At each of four doors, and at one for the others, what a client says and what arrived; some odd ones are refused.
	if want := 2*4*47 + 2*47*(odd/2+withSignature) + 8; len(seen[0].lines) < want {
		t.Errorf("only %d facts were compared, not %d; something was not played", len(seen[0].lines), want)
	}
	came := [2]int{}
	for i, s := range seen {
		came[i] = strings.Count(strings.Join(s.lines, "\n"), " arrived, ")
	}
	t.Logf("%d odd and real and %d signed messages by each pair; %d facts compared; arrived without and with the gateway: %v", odd, withSignature, len(seen[0].lines), came)
	if n := strings.Count(strings.Join(seen[1].lines, "\n"), "arrived, TLS true"); n < 7*5*2-2 {
		t.Errorf("only %d messages arrived by TLS", n)
	}
	for _, line := range seen[0].lines {
		if id, _, ok := strings.Cut(line, " says "); ok && !strings.Contains(id, ".") {
			expectCodes(t, line)
		}
	}
}

// twoLabs are one without and one with the gateway.
func twoLabs(t *testing.T, o Options, config string) [2]*Lab {
	t.Helper()
	labs := [2]*Lab{ForTest(t, o), ForTest(t, o)}
	startGatewayWith(t, labs[1], config)
	return labs
}

// meetTwice has the clients meet the servers without and with the gateway, and compares. What was noted comes back.
func meetTwice(ctx context.Context, t *testing.T, labs [2]*Lab, pairings func(client string) []pairing) (seen [2]*fates) {
	t.Helper()
	seen = [2]*fates{{}, {}}
	run := func(i int) func() error {
		return func() error { return meet(ctx, labs[i], seen[i], i, pairings) }
	}
	if err := together(run(0), run(1)); err != nil {
		t.Fatal(err)
	}
	expectOnce(t, seen[1].lines, "exim-haraka-")
	for i := range seen {
		seen[i].lines = slices.DeleteFunc(seen[i].lines, func(line string) bool { return strings.Contains(line, "exim-haraka-") })
	}
	without, with := asSet(seen[0].lines), asSet(seen[1].lines)
	for _, line := range slices.Sorted(maps.Keys(without)) {
		if with[line] != without[line] {
			t.Errorf("%d times without Sluice, %d with: %s", without[line], with[line], line)
		}
	}
	for _, line := range slices.Sorted(maps.Keys(with)) {
		if without[line] == 0 {
			t.Errorf("%d times with Sluice, never without: %s", with[line], line)
		}
	}
	return seen
}

// expectOnce is for a pair that loses answers when it meets directly: Exim sends QUIT and the end of its stream along
// with the end of the data, Haraka drops such a client before it has answered. Through the gateway each message is
// taken once.
func expectOnce(t *testing.T, lines []string, pair string) {
	said, came := 0, 0
	for _, line := range lines {
		switch {
		case !strings.Contains(line, pair):
		case strings.Contains(line, " arrived"):
			came++
		default:
			said++
			if !strings.Contains(line, " says ok=2") {
				t.Errorf("with Sluice: %s", line)
			}
		}
	}
	if said == 0 || came != said {
		t.Errorf("%s with Sluice: %d messages, %d arrived", pair, said, came)
	}
}

// expectCodes checks what a client says without Sluice, so that an equal mistake on both sides is none the less seen.
func expectCodes(t *testing.T, line string) {
	for _, want := range []string{"ok=2", "reject=5", "defer=4"} {
		if !strings.Contains(line, want) {
			t.Errorf("not %s: %s", want, line)
			return
		}
	}
}

// meet has all clients send at once, then notes what came to each server, with so many trace fields of the gateway's.
func meet(ctx context.Context, l *Lab, f *fates, ours int, pairings func(client string) []pairing) error {
	var start []func() error
	for _, mx := range foreign() {
		if mx.Kind != KindGoSMTP {
			start = append(start, func() error { _, err := l.MX(ctx, mx.Name); return err })
		}
	}
	if err := together(start...); err != nil {
		return err
	}
	tools, err := l.Toolbox(ctx, "mallory")
	if err != nil {
		return err
	}
	programs := tools.Agents()
	if programs["sendmail"], err = l.Sendmail(ctx, "mallory"); err != nil {
		return err
	}
	var send []func() error
	for _, client := range append(slices.Sorted(maps.Keys(queueing)), agents...) {
		list := pairings(client)
		send = append(send, func() error {
			began := time.Now()
			defer func() { l.say("%s: %d messages in %v", client, len(list), time.Since(began).Round(time.Second)) }()
			if host, ok := queueing[client]; ok {
				return meetQueueing(ctx, l, client, host, list, f)
			}
			return meetAgent(ctx, client, programs[client], list, f)
		})
	}
	if err := together(send...); err != nil {
		return err
	}
	for _, mx := range foreign() {
		if err := noteArrivals(ctx, l, mx, f.taken(mx), ours, f); err != nil {
			return err
		}
	}
	for _, m := range l.Sink("grey").Messages() {
		f.add("grey: %s to %v", m.Sender(), m.Recipients())
	}
	return nil
}

// outcome notes what a client says of a message's three recipients.
func (f *fates) outcome(p pairing, ok, reject, later int, text string) {
	f.add("%s says ok=%d reject=%d defer=%d%s", p.id, ok, reject, later, text)
}

// taken are the messages that a server has taken, as the clients say.
func (f *fates) taken(mx MX) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var ids []string
	for _, line := range f.lines {
		if id, rest, ok := strings.Cut(line, " says "); ok && strings.Contains(id, "-"+mx.Name+"-") && strings.HasPrefix(rest, "ok=2") {
			ids = append(ids, id)
		}
	}
	return ids
}

func noteArrivals(ctx context.Context, l *Lab, mx MX, ids []string, ours int, f *fates) error {
	list, err := arrivals(ctx, l, mx, ids)
	if err != nil {
		return err
	}
	f.came = append(f.came, list...)
	for _, a := range list {
		names, found := a.names()
		if found != ours {
			f.add("%s: %s has %d trace fields of the gateway's, not %d: %q", mx.Name, a.id, found, ours, a.above)
		}
		f.add("%s: %s arrived, TLS %v, below %v: %x", mx.Name, a.id, a.tls, names, sha256.Sum256(a.stable()))
	}
	return nil
}

func meetAgent(ctx context.Context, client string, send Agent, list []pairing, f *fates) error {
	var jobs []Job
	for _, p := range list {
		jobs = append(jobs, Job{
			Host: "mx." + p.door.Domain, TLS: p.door.TLS, Helo: "mail.mallory.example", From: "a@mallory.example",
			To: p.rcpts(), Data: p.body("mallory"),
		})
	}
	grey := Job{Host: "mx.grey.example", Helo: "mail.mallory.example", From: "a@mallory.example", To: []string{client + "@grey.example"}, Data: []byte("Subject: grey\r\n\r\n1\r\n")}
	codes, err := send(ctx, append(jobs, grey, grey))
	if err != nil {
		return err
	}
	for i, p := range list {
		c := codes[i]
		f.outcome(p, c[p.to("ok")], c[p.to("reject")], c[p.to("defer")], "")
	}
	for i, c := range codes[len(list):] {
		f.add("%s at the greylisting server: %d. try %d", client, i+1, c[grey.To[0]])
	}
	return nil
}

func meetQueueing(ctx context.Context, l *Lab, client, host string, list []pairing, f *fates) error {
	m, err := map[string]func(context.Context, string, ...string) (*MTA, error){
		"postfix":   l.Postfix,
		"exim":      func(ctx context.Context, host string, _ ...string) (*MTA, error) { return l.Exim(ctx, host) },
		"opensmtpd": func(ctx context.Context, host string, _ ...string) (*MTA, error) { return l.OpenSMTPD(ctx, host) },
	}[client](ctx, host)
	if err != nil {
		return err
	}
	from, grey := "a@"+host+".example", client+"@grey.example"
	due := []string{grey}
	if err := m.Send(ctx, Mail{From: from, To: due, Data: []byte("Subject: grey\n\n1\n")}); err != nil {
		return err
	}
	for _, p := range list {
		to := p.rcpts()
		if err := m.Send(ctx, Mail{From: from, To: to, Data: p.body(host)}); err != nil {
			if p.letter == nil || ctx.Err() != nil {
				return err
			}
			f.add("%s is no message to its own client", p.id) // OpenSMTPD wants RFC 5322
			continue
		}
		due = append(due, to...)
	}
	last := map[string]Delivery{}
	if _, err := m.WaitDeliveries(ctx, func(all []Delivery) bool {
		for _, d := range all {
			if !strings.Contains(d.Text, "retry time not reached") { // Exim's queue runner, which passes over what has just been tried
				last[d.To] = d
			}
		}
		return !slices.ContainsFunc(due, func(to string) bool { return last[to].Status == "" })
	}); err != nil {
		return fmt.Errorf("%s: not every recipient came to an end: %w: %v", client, err, slices.DeleteFunc(due, func(to string) bool { return last[to].Status != "" }))
	}
	digit := map[string]int{Sent: 2, Bounced: 5, Deferred: 4}
	for _, p := range list {
		if last[p.to("ok")].Status == "" {
			continue // its own client did not take it
		}
		ok, reject, later := last[p.to("ok")], last[p.to("reject")], last[p.to("defer")]
		text := fmt.Sprintf(": %q, %q", stable(reject.Reply), stable(later.Reply))
		if ok.Status != Sent {
			text += ", " + stable(ok.Reply)
		}
		f.outcome(p, digit[ok.Status], digit[reject.Status], digit[later.Status], text)
	}
	f.add("%s at the greylisting server: at first %s", client, last[grey].Status)
	return flushUntilSent(ctx, m, grey)
}

// flushUntilSent has a queue run until an address has its mail. A message that has just been logged as deferred may not
// be in the queue yet when that is run.
func flushUntilSent(ctx context.Context, m *MTA, to string) error {
	for {
		if err := m.Flush(ctx); err != nil {
			return err
		}
		patience, cancel := context.WithTimeout(ctx, 2*time.Second)
		_, err := m.WaitDeliveries(patience, func(all []Delivery) bool { return len(With(all, to, Sent)) > 0 })
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
}
