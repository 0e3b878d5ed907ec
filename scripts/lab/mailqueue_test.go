//go:build labtest

package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// queued is what the command shows of a delivery.
type queued struct {
	ID, Domain, Sender, Hold, Note, Campaign string
	Tries                                    int
	Trying                                   bool
	Recipients                               []struct{ Address, Reply, Host string }
}

func queue(ctx context.Context, t *testing.T, g *Gateway, args ...string) map[string]queued {
	t.Helper()
	out, err := g.Sluice(ctx, append([]string{"queue", "list", "--json"}, args...)...)
	if err != nil {
		t.Fatal(err, out)
	}
	if strings.Contains(out.Stderr, "ask again in a moment") { // an older process has it still
		return queue(ctx, t, g, args...)
	}
	var page struct{ Deliveries []queued }
	if err := json.Unmarshal([]byte(out.Stdout), &page); err != nil {
		t.Fatal(err, out)
	}
	by := map[string]queued{}
	for _, q := range page.Deliveries {
		by[q.Domain] = q
	}
	return by
}

// untilQueue waits until the queue is as wanted.
func untilQueue(ctx context.Context, t *testing.T, g *Gateway, what string, wanted func(map[string]queued) bool) map[string]queued {
	t.Helper()
	for {
		q := queue(ctx, t, g)
		if wanted(q) {
			return q
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("%s: %+v", what, q)
		}
	}
}

// TestQueueDelivers: what is in the queue finds its exchangers by the lab's DNS, real servers get it, a dead destination is
// tried again, a refusal comes back as a notice, and a kill loses nothing.
func TestQueueDelivers(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGateway(t, l, "[spool]\nfirst_retry = \"2s\"\n")
	boxes := map[string]*MTA{}
	for _, name := range []string{"postfix", "exim"} {
		m, err := l.MX(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		boxes[name] = m
	}
	file := filepath.Join(g.Dir, "letter.eml")
	text := "From: a@sink.example\nSubject: queued\nMessage-ID: <q1@sink.example>\n\n.dot\nbody\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	submit := func(from string, to ...string) {
		t.Helper()
		args := []string{"queue", "submit", file, "--from", from}
		for _, a := range to {
			args = append(args, "--to", a)
		}
		if out, err := g.Sluice(ctx, args...); err != nil || !strings.Contains(out.Stdout, "is in the queue as") {
			t.Fatal(err, out)
		}
	}
	submit("a@sink.example", "u@postfix.example", "u@exim.example", "u@selfsigned.example", "u@deadfirst.example", "u@nomx.example", "u@v6only.example",
		"u@plain.example", "u@grey.example", "u@refused.example", "reject1@sink.example", "u@nullmx.example", "u@nowhere.example")
	for name, m := range boxes {
		box, err := m.WaitMailbox(ctx, 1)
		if err != nil {
			t.Fatal(name, err)
		}
		if !bytes.Contains(box[0], []byte("\n.dot\nbody\n")) {
			t.Errorf("%s delivered %q", name, box[0])
		}
	}
	for _, name := range []string{"selfsigned", "alive", "v6only", "plain", "grey"} { // grey takes it at the second try
		got, err := l.Sink(name).Wait(ctx, 1)
		if err != nil {
			t.Fatal(name, err)
		}
		if !bytes.HasSuffix(got[0].Data, []byte("\r\n\r\n.dot\r\nbody\r\n")) || !DeliveryV4.Contains(got[0].Peer.Addr().Unmap()) && !DeliveryV6.Contains(got[0].Peer.Addr()) {
			t.Errorf("%s has %q from %v", name, got[0].Data, got[0].Peer)
		}
	}
	one := noticeAbout(ctx, t, l, "reject1@sink.example")
	for _, n := range []struct{ rcpt, status string }{{"reject1@sink.example", "5.1.1"}, {"u@nullmx.example", "5.1.10"}, {"u@nowhere.example", "5.1.2"}} {
		notice := noticeAbout(ctx, t, l, n.rcpt)
		if notice != one {
			t.Errorf("%s has a notice of its own: %s", n.rcpt, notice)
		}
		for _, want := range []string{"Action: failed\r\nStatus: " + n.status + "\r\n", "Content-Type: multipart/report; report-type=delivery-status", "Subject: queued", "To: <a@sink.example>"} {
			if !strings.Contains(notice, want) {
				t.Errorf("the notice about %s lacks %q: %s", n.rcpt, want, notice)
			}
		}
	}
	queueConverts(ctx, t, l, g)
	left := untilQueue(ctx, t, g, "only the dead destination is left", func(q map[string]queued) bool {
		return len(q) == 1 && q["refused.example"].Tries >= 1
	})
	if r := left["refused.example"]; !strings.Contains(r.Recipients[0].Reply, "4.4.1") || !strings.Contains(r.Note, "refused the connection") {
		t.Errorf("the dead one is %+v", r)
	}
	queueCommands(ctx, t, g)
	queueSurvives(ctx, t, g, submit)
}

// queueConverts: a destination that takes 7-bit text alone gets 8-bit mail encoded, unless it is signed.
func queueConverts(ctx context.Context, t *testing.T, l *Lab, g *Gateway) {
	t.Helper()
	file := filepath.Join(g.Dir, "eight.eml")
	for to, signed := range map[string]string{"u8@plain.example": "", "u9@plain.example": "DKIM-Signature: v=1; d=sink.example\n"} {
		text := signed + "From: a@sink.example\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nkeep = this\n--b\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\ngrün\n--b--\n"
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := g.Sluice(ctx, "queue", "submit", file, "--from", "a@sink.example", "--to", to); err != nil || out.Code != 0 {
			t.Fatal(err, out)
		}
	}
	if n := noticeAbout(ctx, t, l, "u9@plain.example"); !strings.Contains(n, "Status: 5.6.3\r\n") {
		t.Errorf("the notice about a signed message is %s", n)
	}
	all, err := l.Sink("plain").WaitMatch(ctx, func(all []*Message) bool {
		return slices.ContainsFunc(all, func(m *Message) bool { return m.Recipients()[0] == "u8@plain.example" })
	})
	if err != nil {
		t.Fatal(err)
	}
	want := "\r\nkeep = this\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\ngr=C3=BCn\r\n--b--\r\n"
	if got := all[len(all)-1]; !bytes.HasSuffix(got.Data, []byte(want)) {
		t.Errorf("plain has %q", got.Data)
	}
}

func noticeAbout(ctx context.Context, t *testing.T, l *Lab, rcpt string) string {
	t.Helper()
	for {
		for _, m := range l.Sink("sink").Messages() {
			if strings.Contains(string(m.Data), "Final-Recipient: rfc822; "+rcpt+"\r\n") {
				if !strings.HasPrefix(m.Mail, "FROM:<>") {
					t.Errorf("the notice about %s has a sender: %s", rcpt, m.Mail)
				}
				return string(m.Data)
			}
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("no notice about %s", rcpt)
		}
	}
}

// queueCommands holds, releases, retries and deletes.
func queueCommands(ctx context.Context, t *testing.T, g *Gateway) {
	t.Helper()
	must := func(want string, args ...string) {
		t.Helper()
		if out, err := g.Sluice(ctx, append([]string{"queue"}, args...)...); err != nil || out.Code != 0 || !strings.Contains(out.Stdout, want) {
			t.Errorf("%v: %v %+v", args, err, out)
		}
	}
	refused := func(want string, args ...string) {
		t.Helper()
		if out, err := g.Sluice(ctx, append([]string{"queue"}, args...)...); err != nil || out.Code == 0 || !strings.Contains(out.Stderr, want) {
			t.Errorf("%v: %v %+v", args, err, out)
		}
	}
	refused("--reason is missing", "hold", "--domain", "refused.example")
	refused("nothing says which mail", "retry")
	refused("there is no delivery zzzz", "show", "zzzz")
	must("1 delivery is on hold", "hold", "--domain", "refused.example", "--reason", "to be looked at")
	if q := queue(ctx, t, g, "--held"); q["refused.example"].Hold != "to be looked at" {
		t.Errorf("on hold are %+v", q)
	}
	id := queue(ctx, t, g)["refused.example"].ID
	must("to be looked at", "show", id)
	must("1 delivery is released", "release", id)
	tries := queue(ctx, t, g)["refused.example"].Tries
	must("1 delivery is tried now", "retry", "--sender", "sink.example")
	untilQueue(ctx, t, g, "a retry is a try", func(q map[string]queued) bool { return q["refused.example"].Tries > tries })
	must("refused.example", "list")
	must("1 delivery is deleted", "delete", id, "--reason", "test")
	untilQueue(ctx, t, g, "it is deleted", func(q map[string]queued) bool { return len(q) == 0 })
	must("nothing waits")
}

// queueSurvives kills sluiced with mail in the queue.
func queueSurvives(ctx context.Context, t *testing.T, g *Gateway, submit func(string, ...string)) {
	t.Helper()
	submit("a@sink.example", "one@refused.example", "one@dropped.example")
	untilQueue(ctx, t, g, "both were tried or are", func(q map[string]queued) bool { return q["refused.example"].Tries > 0 })
	if err := g.Sluiced.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := g.StartSluiced(ctx); err != nil {
		t.Fatal(err)
	}
	q := untilQueue(ctx, t, g, "both are there after a kill", func(q map[string]queued) bool { return len(q) == 2 })
	if q["refused.example"].Tries == 0 {
		t.Errorf("after the kill the queue is %+v", q)
	}
}
