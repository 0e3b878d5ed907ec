//go:build labtest

package lab

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
)

const note = "From: a@%[1]s.example\r\nTo: someone\r\nSubject: %[2]s\r\nMessage-ID: <%[2]s@%[1]s.example>\r\n\r\n.dots\r\nand text\r\n"

func letter(host, id string) []byte { return fmt.Appendf(nil, note, host, id) }

// fate is what a recipient is expected to come to.
type fate struct{ status, reply string }

func TestRealServersDeliverWithoutSluice(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		host  string
		start func(*Lab, context.Context) (*MTA, error)
	}{
		{"alice", func(l *Lab, ctx context.Context) (*MTA, error) { return l.Postfix(ctx, "alice") }},
		{"dave", func(l *Lab, ctx context.Context) (*MTA, error) { return l.Exim(ctx, "dave") }},
	} {
		t.Run(c.host, func(t *testing.T) {
			t.Parallel()
			ctx, l := testContext(t), ForTest(t, Options{})
			m, err := c.start(l, ctx)
			if err != nil {
				t.Fatal(err)
			}
			receivers := map[string]*MTA{}
			for _, name := range []string{"postfix", "exim"} {
				if receivers[name], err = l.MX(ctx, name); err != nil {
					t.Fatal(err)
				}
			}
			want := map[string]fate{
				"u@sink.example":       {Sent, "250 2.0.0 Ok: queued"},
				"reject1@sink.example": {Bounced, "550 5.1.1 <reject1@sink.example>: Recipient unknown"},
				"defer1@sink.example":  {Deferred, "451 4.3.0 <defer1@sink.example>: Try again later"},
				"u@selfsigned.example": {Sent, "250 2.0.0 Ok: queued"},
				"u@tlsonly.example":    {Sent, "250 2.0.0 Ok: queued"},
				"u@grey.example":       {Deferred, "451 4.7.1 Greylisted, try again later"},
				"u@gosmtp.example":     {Sent, "250 2.0.0 OK: queued"},
				"u@plain.example":      {Sent, "250 2.0.0 Ok: queued"},
				"u@v6only.example":     {Sent, "250 2.0.0 Ok: queued"},
				"u@v4only.example":     {Sent, "250 2.0.0 Ok: queued"},
				"u@deadfirst.example":  {Sent, "250 2.0.0 Ok: queued"},
				"u@nomx.example":       {Sent, "250 2.0.0 Ok: queued"},
				"u@d30.example":        {Sent, "250 2.0.0 Ok: queued"},
				"u@postfix.example":    {Sent, ""},
				"u@exim.example":       {Sent, ""},
				"u@nullmx.example":     {Bounced, ""},
				"u@nowhere.example":    {Bounced, ""},
			}
			var to []string
			for addr := range want {
				to = append(to, addr)
			}
			if err := m.Send(ctx, Mail{From: "a@" + c.host + ".example", To: to, Data: letter(c.host, "one")}); err != nil {
				t.Fatal(err)
			}
			id := "<one@" + c.host + ".example>"
			attempts, err := m.WaitDeliveries(ctx, func(all []Delivery) bool {
				n := 0
				for k := range Final(all) {
					if k.MessageID == id {
						n++
					}
				}
				return n == len(want)
			})
			if err != nil {
				t.Fatal(err, attempts)
			}
			final := Final(attempts)
			for addr, f := range want {
				d := final[Key{id, addr}]
				if d.Status != f.status || !strings.HasPrefix(d.Reply, f.reply) {
					t.Errorf("%s: %q with %q, not %q with %q (%s)", addr, d.Status, d.Reply, f.status, f.reply, d.Text)
				}
			}
			for name, r := range receivers {
				box, err := r.WaitMailbox(ctx, 1)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Contains(box[0], []byte("\n.dots\nand text\n")) {
					t.Errorf("%s delivered %q", name, box[0])
				}
			}
			queuedOnly(t, ctx, m, "defer1@sink.example", "u@grey.example")
			if err := m.Flush(ctx); err != nil {
				t.Fatal(err)
			}
			if _, err := l.Sink("grey").Wait(ctx, 1); err != nil {
				t.Fatal(err)
			}
			got := l.Sink("selfsigned").Messages()
			if len(got) != 1 || !got[0].TLS || !bytes.HasSuffix(got[0].Data, []byte("\r\n\r\n.dots\r\nand text\r\n")) {
				t.Errorf("at selfsigned: %+v", got)
			}
		})
	}
}

func queuedOnly(t *testing.T, ctx context.Context, m *MTA, want ...string) {
	t.Helper()
	for {
		q, err := m.Queue(ctx)
		if err != nil {
			t.Fatal(err)
		}
		left := map[string]string{}
		for _, e := range q {
			if strings.HasPrefix(e.Sender, "a@") {
				for _, r := range e.Recipients {
					left[r.Address] = r.Reason
				}
			}
		}
		missing := len(left) != len(want)
		for _, w := range want {
			missing = missing || !strings.Contains(left[w], "451 4.")
		}
		if !missing {
			return
		}
		if err := sleep(ctx, logPoll); err != nil {
			t.Fatalf("queue %v, not %v", left, want)
		}
	}
}
