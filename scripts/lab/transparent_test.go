//go:build labtest

package lab

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// fates is what clients and MX hosts know at the end of a run: one line for each thing that must not depend on
// whether Sluice stands between them.
type fates struct {
	mu    sync.Mutex
	lines []string
	came  []arrival // at the servers that are not ours, where a test asks for them
}

func (f *fates) add(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lines = append(f.lines, fmt.Sprintf(format, args...))
}

// TestClientsCannotTell plays the same mail in two labs at once, one with Sluice and one without, and compares what
// arrived at the MX hosts and what each client says of each recipient.
func TestClientsCannotTell(t *testing.T) {
	t.Parallel()
	var seen [2]fates
	var wg sync.WaitGroup
	labs := [2]*Lab{ForTest(t, Options{}), ForTest(t, Options{})}
	startGateway(t, labs[1], "")
	ctx := testContext(t)
	var failed [2]error
	for i := range labs {
		wg.Go(func() { failed[i] = play(ctx, labs[i], &seen[i]) })
	}
	wg.Wait()
	for i, err := range failed {
		if err != nil {
			t.Fatalf("%s Sluice: %v", [2]string{"without", "with"}[i], err)
		}
	}
	slices.Sort(seen[0].lines)
	slices.Sort(seen[1].lines)
	without, with := asSet(seen[0].lines), asSet(seen[1].lines)
	for line, n := range without {
		if with[line] != n {
			t.Errorf("%d times without Sluice, %d with: %s", n, with[line], line)
		}
	}
	for line, n := range with {
		if without[line] == 0 {
			t.Errorf("%d times with Sluice, never without: %s", n, line)
		}
	}
	if len(seen[0].lines) < 150 {
		t.Errorf("only %d facts were compared; something was not played", len(seen[0].lines))
	}
	if !strings.Contains(strings.Join(seen[1].lines, "\n"), "mx sink: from a@alice.example to ö@sink.example") {
		t.Error("Postfix's message to an address beyond ASCII did not arrive")
	}
	for _, mx := range []string{"sink", "selfsigned", "tlsonly", "grey", "v6only"} {
		for _, m := range labs[1].Sink(mx).Messages() {
			if a := m.Peer.Addr().Unmap(); !DeliveryV4.Contains(a) && !DeliveryV6.Contains(a) {
				t.Errorf("a message reached %s from %v, not from a delivery address: Sluice was not in the path", mx, a)
			}
		}
	}
}

func asSet(lines []string) map[string]int {
	set := map[string]int{}
	for _, l := range lines {
		set[l]++
	}
	return set
}

// play sends everything that a hosting customer sends, by every client, and notes what became of it.
func play(ctx context.Context, l *Lab, f *fates) error {
	var wg sync.WaitGroup
	errs := make([]error, 3)
	wg.Go(func() { errs[0] = playServers(ctx, l, f) })
	wg.Go(func() { errs[1] = playSwaks(ctx, l, f) })
	wg.Go(func() { errs[2] = playScripts(ctx, l, f) })
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	for _, mx := range Hosts() {
		if mx.Kind != KindSink {
			continue
		}
		for _, m := range l.Sink(mx.Name).Messages() {
			for _, rcpt := range m.Recipients() {
				f.add("mx %s: from %s to %s body %x", mx.Name, m.Sender(), rcpt, bodySum(m.Data))
			}
		}
	}
	return nil
}

// bodySum is of what follows the header: trace fields differ from run to run, with Sluice or without.
func bodySum(data []byte) [4]byte {
	_, body, _ := strings.Cut(string(data), "\r\n\r\n")
	sum := sha256.Sum256([]byte(body))
	return [4]byte(sum[:4])
}

// serverMail is what alice's Postfix and dave's Exim are given.
func serverMail(host string) map[string]Mail {
	from := "a@" + host + ".example"
	fifty := []string{"u01@sink.example", "reject02@sink.example", "defer03@sink.example"}
	for i := 4; i <= 50; i++ {
		fifty = append(fifty, fmt.Sprintf("u%02d@sink.example", i))
	}
	letter := func(id, body string) []byte {
		return fmt.Appendf(nil, "From: <%s>\nTo: list\nSubject: %s\nMessage-ID: <%s@%s.example>\nDate: Sat, 21 Nov 2026 10:00:00 +0000\n\n%s\n", from, id, id, host, body)
	}
	all := map[string]Mail{
		"one":        {From: from, To: []string{"one@sink.example"}, Data: letter("one", "plain\n.dot\n..dots")},
		"fifty":      {From: from, To: fifty, Data: letter("fifty", "to fifty")},
		"null":       {From: "", To: []string{"null@sink.example"}, Data: letter("null", "a bounce")},
		"eight":      {From: from, To: []string{"eight@sink.example"}, Data: letter("eight", "Grüße, 8-bit"), Args: []string{"-B8BITMIME"}},
		"five":       {From: from, To: []string{"five@sink.example"}, Data: letter("five", strings.Repeat(strings.Repeat("0123456789abcdef", 4)+"\n", 5<<20/65))},
		"selfsigned": {From: from, To: []string{"u@selfsigned.example"}, Data: letter("selfsigned", "tls")},
		"tlsonly":    {From: from, To: []string{"u@tlsonly.example"}, Data: letter("tlsonly", "tls")},
		"deadfirst":  {From: from, To: []string{"u@deadfirst.example"}, Data: letter("deadfirst", "second MX")},
		"grey":       {From: from, To: []string{"u@grey.example"}, Data: letter("grey", "twice")},
		"gosmtp":     {From: from, To: []string{"u@gosmtp.example"}, Data: letter("gosmtp", "another server")},
		"v6only":     {From: from, To: []string{"u@v6only.example"}, Data: letter("v6only", "IPv6")},
		"v4only":     {From: from, To: []string{"u@v4only.example"}, Data: letter("v4only", "IPv4")},
		"nowhere":    {From: from, To: []string{"u@nowhere.example"}, Data: letter("nowhere", "no such domain")},
	}
	if host == "alice" { // Debian's Exim is built without SMTPUTF8
		all["utf8"] = Mail{From: from, To: []string{"ö@sink.example"}, Data: letter("utf8", "to an address beyond ASCII")}
		all["utf8-refused"] = Mail{From: from, To: []string{"rejectö@sink.example"}, Data: letter("utf8-refused", "refused")}
	}
	return all
}

func playServers(ctx context.Context, l *Lab, f *fates) error {
	var wg sync.WaitGroup
	errs := make([]error, 2)
	wg.Go(func() {
		m, err := l.Postfix(ctx, "alice")
		if err == nil {
			err = playServer(ctx, m, "alice", f)
		}
		errs[0] = err
	})
	wg.Go(func() {
		m, err := l.Exim(ctx, "dave")
		if err == nil {
			err = playServer(ctx, m, "dave", f)
		}
		errs[1] = err
	})
	wg.Wait()
	if errs[0] != nil {
		return errs[0]
	}
	return errs[1]
}

func playServer(ctx context.Context, m *MTA, host string, f *fates) error {
	all := serverMail(host)
	want := map[Key]bool{}
	for _, id := range slices.Sorted(maps.Keys(all)) {
		if err := m.Send(ctx, all[id]); err != nil {
			return err
		}
		for _, to := range all[id].To {
			want[Key{"<" + id + "@" + host + ".example>", to}] = true
		}
	}
	attempts, err := m.WaitDeliveries(ctx, func(all []Delivery) bool {
		final := Final(all)
		for k := range want {
			if _, ok := final[k]; !ok {
				return false
			}
		}
		return true
	})
	if err != nil {
		return fmt.Errorf("%s: not every recipient came to an end: %w", host, err)
	}
	note := func(when string, attempts []Delivery) {
		// Exim's queue runner looks at the queue once when it starts and passes over what has just been tried.
		attempts = slices.DeleteFunc(slices.Clone(attempts), func(d Delivery) bool {
			return strings.Contains(d.Text, "retry time not reached")
		})
		for k, d := range Final(attempts) {
			if want[k] {
				f.add("%s %s: %s to %s: %s %s %s", host, when, k.MessageID, k.To, d.Status, d.DSN, stable(d.Reply))
			}
		}
	}
	note("at first", attempts)
	// The greylisted message goes out at the second attempt, the deferred recipient stays.
	if err := m.Flush(ctx); err != nil {
		return err
	}
	grey := Key{"<grey@" + host + ".example>", "u@grey.example"}
	attempts, err = m.WaitDeliveries(ctx, func(all []Delivery) bool { return Final(all)[grey].Status == Sent })
	if err != nil {
		return fmt.Errorf("%s: the greylisted message does not go out: %w", host, err)
	}
	note("at last", attempts)
	return nil
}

// unstable is what differs between two runs of the same: queue ids, and times.
var unstable = regexp.MustCompile(`(?i)(queued as \S+|queued \S*|id=\S+)`)

func stable(reply string) string { return unstable.ReplaceAllString(reply, "queued") }

func playSwaks(ctx context.Context, l *Lab, f *fates) error {
	for _, server := range []string{"198.51.100.20", "[2001:db8:100::20]"} {
		for _, c := range [][]string{
			{"--to", "swaks@sink.example"},
			{"--to", "swaks1@sink.example,reject2@sink.example,defer3@sink.example"},
			{"--to", "reject@sink.example"},
			{"--to", "swaks@sink.example", "--from", "<>"},
			{"--to", "swaks@sink.example", "--body", "Grüße ohne BODY="},
			{"--to", "swaks@sink.example", "--header", "Subject: piped", "--pipeline"},
		} {
			args := append([]string{"--server", server, "--ehlo", "mail.bob.example", "--hide-informational"}, c...)
			if c[len(c)-2] != "--from" {
				args = append(args, "--from", "swaks@bob.example")
			}
			out, err := l.Swaks(ctx, "bob", args...)
			if err != nil {
				return err
			}
			f.add("swaks %s %v: code %d", server, c, out.Code)
		}
	}
	return nil
}

// playScripts talks to port 25 as scripts do.
func playScripts(ctx context.Context, l *Lab, f *fates) error {
	for _, c := range []struct{ from, to string }{
		{"192.0.2.66", "198.51.100.20:25"},
		{"2001:db8:66::66", "[2001:db8:100::20]:25"},
	} {
		x, err := l.SMTP(ctx, "mallory", c.from, c.to)
		if err != nil {
			return err
		}
		ask := func(line string) error {
			r, err := x.Cmd(line)
			f.add("script %s: %s: %d", c.to, line, r.Code)
			return err
		}
		for _, line := range []string{"EHLO mail.mallory.example", "NOOP", "RSET", "DATA", "RCPT TO:<early@sink.example>", "MAIL FROM:<a@mallory.example> SIZE=100 BODY=8BITMIME"} {
			if err := ask(line); err != nil {
				return err
			}
		}
		if err := ask("RSET"); err != nil {
			return err
		}
		// Two messages in one session, then one with an address beyond ASCII.
		for n := range 2 {
			rcpts, last, err := x.Send("a@mallory.example", []string{fmt.Sprintf("s%d@sink.example", n), "reject@sink.example"}, []byte("Subject: x\r\n\r\n..\r\nGrüße\r\n"))
			if err != nil {
				return err
			}
			f.add("script %s: message %d: %s, %s, %s", c.to, n, stable(rcpts[0].String()), stable(rcpts[1].String()), stable(last.String()))
		}
		for _, line := range []string{"MAIL FROM:<ü@mallory.example> SMTPUTF8", "RCPT TO:<ö@sink.example>"} {
			if err := ask(line); err != nil {
				return err
			}
		}
		last, err := x.Data([]byte("Subject: Grüße\r\n\r\nutf8\r\n"))
		if err != nil {
			return err
		}
		f.add("script %s: SMTPUTF8: %s", c.to, stable(last.String()))
		if err := x.Quit(); err != nil {
			return err
		}
	}
	return nil
}
