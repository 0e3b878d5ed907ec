//go:build labtest

package lab

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// What a client hears, byte for byte: the destination's words where these are a reply, ours where they are none.
const (
	senderNoted = "250 2.1.0 gw.example: sender noted\r\n"
	rcptOK      = "250 2.1.5 Ok\r\n"
	ourGoAhead  = "354 gw.example: go ahead, end with <CR><LF>.<CR><LF>\r\n"
	itsGoAhead  = "354 End data with <CR><LF>.<CR><LF>\r\n"
	taken       = "250 2.0.0 Ok: queued\r\n"
	ourGoodbye  = "221 2.0.0 gw.example: goodbye\r\n"

	isNone      = "451 4.5.0 gw.example: the destination answered with something that is no reply\r\n"
	isTooMuch   = "451 4.5.0 gw.example: the destination answered what nobody asked\r\n"
	isEndless   = "451 4.5.0 gw.example: the destination answered with an endless reply\r\n"
	isTooEarly  = "451 4.5.0 gw.example: the destination answered DATA with success before the message\r\n"
	isNoVerdict = "451 4.5.0 gw.example: the destination answered the message with an impossible code\r\n"
	isLost      = "451 4.4.2 gw.example: the connection to the destination was lost\r\n"
)

// A tale is what a destination says in place of its replies, and what the client hears from RCPT on: the reply to it, to DATA
// and to the message, which there is only after a 354.
type tale struct {
	name     string
	rules    []string
	lockstep []string
	group    []string // where MAIL, RCPT and DATA come in one write; nil: the same, but for the 354 of the destination's own
	chunk    []string // where the message goes onward in one chunk; nil: as lockstep
	late     string   // the client waits before DATA's reply is used until the destination has said this
	hello    bool     // the client may hear it at EHLO: the onward session begins when he connects, and may be faster
}

// tales tell of every step of a transaction.
func tales() []tale {
	refused := []string{isNone, isNone}
	after := func(dot string) []string { return []string{rcptOK, ourGoAhead, dot} }
	return []tale{
		{name: "as it should be", lockstep: after(taken)},
		{name: "every byte by itself", lockstep: []string{"250-2.1.5 one\r\n250 2.1.5 two\r\n", ourGoAhead, "250-2.0.0 taken\r\n250 2.0.0 as it was\r\n"},
			group: []string{"250-2.1.5 one\r\n250 2.1.5 two\r\n", "354 go\r\n", "250-2.0.0 taken\r\n250 2.0.0 as it was\r\n"},
			rules: []string{`rcpt: drip 1ms 250-2.1.5 one\n250 2.1.5 two`, `data: drip 1ms 354 go`, `dot: drip 1ms 250-2.0.0 taken\n250 2.0.0 as it was`}},
		{name: "bare LF", rules: []string{`rcpt: raw 250 2.1.5 Ok\n`, `dot: store | raw 250-2.0.0 Ok\n250 2.0.0 queued\n`}, lockstep: after("250-2.0.0 Ok\r\n250 2.0.0 queued\r\n")},

		{name: "a greeting with replies behind it", hello: true, rules: []string{`connect: raw 220 mx\r\n250 mx\r\n250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n`}, lockstep: []string{isTooMuch, isTooMuch}},
		{name: "EHLO's reply with replies behind it", hello: true, rules: []string{`ehlo: raw 250-mx\r\n250-PIPELINING\r\n250 8BITMIME\r\n250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n`}, lockstep: []string{isTooMuch, isTooMuch}},
		{name: "EHLO's reply with a bare CR", hello: true, rules: []string{`ehlo: raw 250-mx\r250 8BITMIME\r\n`}, lockstep: refused},
		{name: "MAIL is answered for RCPT, too", rules: []string{`mail: raw 250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n`, `rcpt: reply 550 5.1.1 nobody`},
			lockstep: after(isTooMuch), group: []string{rcptOK, "550 5.1.1 nobody\r\n"}},

		{name: "RCPT is answered twice", rules: []string{`rcpt: raw 250 2.1.5 Ok\r\n250 2.1.5 Ok\r\n`}, lockstep: after(isTooMuch), group: []string{rcptOK, isTooEarly}},
		{name: "RCPT is answered again later", rules: []string{`rcpt: ok | stall 20ms | raw 250 2.0.0 again\r\n`, `dot: reply 554 5.6.0 no`}, late: "250 2.0.0 again",
			lockstep: after(isTooMuch), group: []string{rcptOK, isTooEarly}},
		{name: "a bare CR at RCPT", rules: []string{`rcpt: raw 250 2.1.5 Ok\r550 5.1.1 no\r\n`}, lockstep: refused},
		{name: "NUL at RCPT", rules: []string{`rcpt: raw 250 2.1.5 O\0k\r\n`}, lockstep: refused},
		{name: "two codes at RCPT", rules: []string{`rcpt: raw 550-5.1.1 no\r\n250 2.1.5 Ok\r\n`}, lockstep: refused},
		{name: "an endless reply to RCPT", rules: []string{`rcpt: flood 70000`}, lockstep: []string{isEndless, isEndless}},
		{name: "no code at RCPT", rules: []string{`rcpt: raw Ok\r\n250 2.1.5 Ok\r\n`}, lockstep: refused},

		{name: "success at DATA", rules: []string{`data: reply 250 2.0.0 done`}, lockstep: after(isTooEarly), group: []string{rcptOK, isTooEarly}, chunk: after(taken)},
		{name: "354 and 250 in one packet", rules: []string{`data: raw 354 go\r\n250 2.0.0 taken\r\n`, `dot: reply 554 5.6.0 no`},
			lockstep: after(isTooMuch), group: []string{rcptOK, "354 go\r\n", isTooMuch}, chunk: after("554 5.6.0 no\r\n")},

		{name: "the message is taken, and refused", rules: []string{`dot: ok | raw 550 5.7.1 no\r\n`}, lockstep: after(taken)},
		{name: "the message is refused, and taken", rules: []string{`dot: raw 550 5.7.1 no\r\n250 2.0.0 Ok\r\n`}, lockstep: after("550 5.7.1 no\r\n")},
		{name: "the same with LF", rules: []string{`dot: raw 550 5.7.1 no\n250 2.0.0 Ok\n`}, lockstep: after("550 5.7.1 no\r\n")},
		{name: "the same with CR", rules: []string{`dot: raw 550 5.7.1 no\r250 2.0.0 Ok\r\n`}, lockstep: after(isNone)},
		{name: "the same in one reply", rules: []string{`dot: raw 550-5.7.1 no\r\n250 2.0.0 Ok\r\n`}, lockstep: after(isNone)},
		{name: "taken and refused in one reply", rules: []string{`dot: raw 250-2.0.0 Ok\r\n550 5.7.1 no\r\n`}, lockstep: after(isNone)},
		{name: "NUL at the dot", rules: []string{`dot: raw 250 2.0.0 O\0k\r\n`}, lockstep: after(isNone)},
		{name: "3xx at the dot", rules: []string{`dot: reply 354 more`}, lockstep: after(isNoVerdict)},
		{name: "half a line at the dot", rules: []string{`dot: raw 250 2.0.0 Ok | close`}, lockstep: after(isLost)},
		{name: "half a reply at the dot", rules: []string{`dot: raw 250-2.0.0 Ok\r\n | close`}, lockstep: after(isLost)},
		{name: "an endless reply to the message", rules: []string{`dot: flood 70000`}, lockstep: after(isEndless)},
		{name: "an endless line to the message", rules: []string{`dot: raw 250 ` + strings.Repeat("x", 70000) + `\r\n`}, lockstep: after(isEndless)},
	}
}

// heard is what the client is to hear.
func (c *tale) heard(group, chunks bool) []string {
	switch {
	case chunks && c.chunk != nil:
		return c.chunk
	case group && !chunks && c.group != nil:
		return c.group
	case group && !chunks:
		all := slices.Clone(c.lockstep)
		for i := range all {
			if all[i] == ourGoAhead {
				all[i] = itsGoAhead
			}
		}
		return all
	}
	return c.lockstep
}

// TestNoReplyIsSmuggledByADestination: whatever a destination says, and when, the client hears one reply to each command, and
// 250 to the message only where the destination said so of it; the mail behind that is none the worse.
func TestNoReplyIsSmuggledByADestination(t *testing.T) {
	t.Parallel()
	for _, chunks := range []bool{false, true} {
		t.Run(fmt.Sprintf("chunks %v", chunks), func(t *testing.T) {
			t.Parallel()
			l := ForTest(t, Options{})
			startGatewayWith(t, l, strings.Replace(soonGoodbye, "[delivery]\n", fmt.Sprintf("[delivery]\nreuse = \"0s\"\nchunks = %v\n", chunks), 1))
			for i, group := range []bool{false, true} {
				t.Run(fmt.Sprintf("in one write %v", group), func(t *testing.T) {
					t.Parallel()
					ctx, p := testContext(t), &listener{lab: l, host: []string{"alice", "bob"}[i], sink: l.Sink(fmt.Sprintf("peer%02d", i+1)), to: fmt.Sprintf("198.51.100.%d:25", 101+i), group: group, chunks: chunks}
					for _, c := range tales() {
						p.prove(ctx, t)
						p.hear(ctx, t, &c, c.heard(group, chunks))
						p.prove(ctx, t)
						p.hear(ctx, t, &tale{name: "after " + c.name}, (&tale{lockstep: []string{rcptOK, ourGoAhead, taken}}).heard(group, chunks))
					}
				})
			}
			t.Run("smtplib", func(t *testing.T) {
				t.Parallel()
				smtplibHears(testContext(t), t, l, l.Sink("peer03"), chunks)
			})
		})
	}
}

// smtplibHears has Python's client send a mail for each tale: it says 250 where the destination has it, and else what it heard.
func smtplibHears(ctx context.Context, t *testing.T, l *Lab, s *Sink, chunks bool) {
	tools, err := l.Toolbox(ctx, "dave")
	if err != nil {
		t.Fatal(err)
	}
	job := Job{Host: "198.51.100.103", Helo: "mail.dave.example", From: "a@dave.example", To: []string{"u@peer.example"}, Data: []byte("Subject: x\r\n\r\nx\r\n")}
	for _, c := range tales() {
		if c.late != "" || c.hello {
			continue // smtplib waits for nothing, and does not tell what it heard at EHLO
		}
		for i, rules := range [][]string{c.rules, nil} {
			s.Reset()
			if err := s.Script(withChunks(rules, chunks)...); err != nil {
				t.Fatal(err)
			}
			want := 250
			for _, h := range slices.Backward(c.heard(false, chunks)) {
				if i == 0 && h[0] > '3' {
					want, _ = strconv.Atoi(h[:3]) // of a test's own text
				}
			}
			codes, err := tools.Agents()["smtplib"](ctx, []Job{job})
			if err != nil || codes[0][job.To[0]] != want {
				t.Errorf("%s, mail %d: smtplib heard %v, %v, not %d", c.name, i, codes, err, want)
			}
			if n := len(s.Messages()); n > 1 || (n == 1) != (want == 250) {
				t.Errorf("%s, mail %d: the destination has %d messages", c.name, i, n)
			}
		}
	}
}

// TestNoReplyReachesTheNextClient: by a session that is kept from one client for the next, in which the destination says more
// than it was asked, before the next one comes or while he talks. He hears what is said to him alone.
func TestNoReplyReachesTheNextClient(t *testing.T) {
	t.Parallel()
	l := ForTest(t, Options{})
	startGatewayWith(t, l, soonGoodbye)
	for i, c := range []struct {
		name, rule, late string
		while            bool // it is said after the next client has come
		sessions         int
	}{
		{"nothing", "", "", false, 1},
		{"in the same packet", `dot#1: ok | raw 250 2.0.0 again\r\n`, "250 2.0.0 again", false, 2},
		{"a refusal and more", `dot#1: ok | raw 550 5.7.1 no\r\n250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n`, "250 2.1.5 Ok", false, 2},
		{"later", `dot#1: ok | stall 30ms | raw 250 2.0.0 late\r\n`, "250 2.0.0 late", false, 2},
		{"half a reply", `dot#1: ok | stall 30ms | raw 250-2.0.0 la`, "250-2.0.0 la", false, 2},
		{"while the next one talks", `dot#1: ok | stall 500ms | raw 250 2.0.0 late\r\n`, "250 2.0.0 late", true, 2},
		{"a refusal while he talks", `dot#1: ok | stall 500ms | raw 550 5.7.1 late\r\n`, "550 5.7.1 late", true, 2},
		{"421 while he talks", `dot#1: ok | stall 500ms | raw 421 4.3.2 late\r\n`, "421 4.3.2 late", true, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx, s := testContext(t), l.Sink(fmt.Sprintf("peer%02d", i+1))
			if err := s.Script(c.rule); err != nil {
				t.Fatal(err)
			}
			to := fmt.Sprintf("[2001:db8:100::%d]:25", 101+i)
			first, err := l.Hello(ctx, "alice", "", to)
			if err != nil {
				t.Fatal(err)
			}
			if _, r, err := first.Send("a@alice.example", []string{"u@peer.example"}, []byte("Subject: first\r\n\r\nx\r\n")); err != nil || r.Raw != taken {
				t.Fatalf("the first client hears %v, %v", r, err)
			}
			if err := quitAndWait(first); err != nil {
				t.Fatal(err)
			}
			said := func() {
				if c.late != "" && !eventually(ctx, func() bool { return slices.Contains(s.Sessions()[0].Lines, "S: "+c.late) }) {
					t.Fatal("it was not said")
				}
			}
			if !c.while {
				said()
			}
			next, err := l.Hello(ctx, "alice", "", to)
			if err != nil {
				t.Fatal(err)
			}
			defer next.Close()
			var got []string
			for _, line := range []string{"MAIL FROM:<b@alice.example>", "", "RCPT TO:<reject@peer.example>", "RCPT TO:<v@peer.example>", "DATA", "Subject: next\r\n\r\nx\r\n.", "QUIT"} {
				if line == "" {
					said()
					continue
				}
				r, err := next.Cmd(line)
				if err != nil {
					t.Fatalf("after %q: %v", got, err)
				}
				got = append(got, r.Raw)
			}
			if want := []string{senderNoted, "550 5.1.1 <reject@peer.example>: Recipient unknown\r\n", rcptOK, ourGoAhead, taken, ourGoodbye}; !slices.Equal(got, want) {
				t.Errorf("the next client hears\n%q, not\n%q", got, want)
			}
			all := s.Messages()
			if len(all) != 2 || all[1].Sender() != "b@alice.example" || len(all[1].Rcpts) != 1 || all[1].Recipients()[0] != "v@peer.example" {
				t.Errorf("the destination has %+v", all)
			}
			if n := len(s.Sessions()); n != c.sessions {
				t.Errorf("it had %d sessions, not %d", n, c.sessions)
			}
		})
	}
}

// TestNoReplyReachesTheNextCommand: the destination says more behind its reply to one recipient; the next one's is not taken
// from that.
func TestNoReplyReachesTheNextCommand(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	startGatewayWith(t, l, soonGoodbye)
	s := l.Sink("peer01")
	if err := s.Script(`rcpt#1: ok | raw 250 2.1.5 more\r\n`); err != nil {
		t.Fatal(err)
	}
	x, err := l.Hello(ctx, "alice", "", "198.51.100.101:25")
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	var got []string
	for _, line := range []string{"MAIL FROM:<a@alice.example>", "RCPT TO:<u@peer.example>", "RCPT TO:<reject@peer.example>", "DATA", "QUIT"} {
		r, err := x.Cmd(line)
		if err != nil {
			t.Fatalf("after %q: %v", got, err)
		}
		got = append(got, r.Raw)
	}
	if want := []string{senderNoted, rcptOK, isTooMuch, isTooMuch, ourGoodbye}; !slices.Equal(got, want) {
		t.Errorf("the client hears\n%q, not\n%q", got, want)
	}
	if n := len(s.Messages()); n != 0 {
		t.Errorf("the destination has %d messages", n)
	}
}

// listener is a client that listens to every byte.
type listener struct {
	lab      *Lab
	host, to string
	sink     *Sink
	group    bool
	chunks   bool
}

// withChunks has a destination offer CHUNKING where its rules say nothing of that.
func withChunks(rules []string, chunks bool) []string {
	if !chunks || slices.ContainsFunc(rules, func(r string) bool { return strings.HasPrefix(r, "ehlo:") }) {
		return rules
	}
	return append([]string{`ehlo: reply 250-mx\n250-PIPELINING\n250-CHUNKING\n250 8BITMIME`}, rules...)
}

// prove has the destination take a chunk, where what is pipelined is to go in one.
func (p *listener) prove(ctx context.Context, t *testing.T) {
	if p.chunks && p.group {
		q := *p
		q.group = false
		q.hear(ctx, t, &tale{name: "a chunk"}, []string{rcptOK, ourGoAhead, taken})
	}
}

// hear sends one mail and compares what is heard with what is to be, and with what the destination has.
func (p *listener) hear(ctx context.Context, t *testing.T, c *tale, want []string) {
	t.Helper()
	p.sink.Reset()
	if err := p.sink.Script(withChunks(c.rules, p.chunks)...); err != nil {
		t.Fatal(err)
	}
	x, err := p.lab.SMTP(ctx, p.host, "", p.to)
	if err != nil {
		t.Fatalf("%s: %v", c.name, err)
	}
	defer x.Close()
	switch r, err := x.Cmd("EHLO mail." + p.host + ".example"); {
	case err != nil || r.Code != 250 && !(c.hello && r.Raw == want[0]):
		t.Fatalf("%s: EHLO is answered %v, %v", c.name, r, err)
	case r.Code != 250:
		if rest, err := io.ReadAll(x.in); err != nil || len(rest) > 0 || len(p.sink.Messages()) > 0 {
			t.Errorf("%s: behind it the client hears %q, %v", c.name, rest, err)
		}
		return
	}
	steps := []string{"MAIL FROM:<a@" + p.host + ".example>\r\n", "RCPT TO:<u@peer.example>\r\n", "DATA\r\n"}
	var got []string
	say := func(lines ...string) {
		if _, err := io.WriteString(x, strings.Join(lines, "")); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		for range lines {
			r, err := x.Reply()
			if err != nil {
				t.Fatalf("%s: after %q: %v", c.name, got, err)
			}
			got = append(got, r.Raw)
		}
	}
	if p.group {
		say(steps...)
	} else {
		for _, s := range steps {
			say(s)
		}
	}
	if c.late != "" && !eventually(ctx, func() bool {
		return slices.ContainsFunc(p.sink.Sessions(), func(s Session) bool { return slices.Contains(s.Lines, "S: "+c.late) })
	}) {
		t.Fatalf("%s: it was not said", c.name)
	}
	if strings.HasPrefix(got[2], "354") {
		say("Subject: " + c.name + "\r\n\r\nx\r\n.\r\n")
	}
	told := strings.HasPrefix(got[len(got)-1], "250")
	say("QUIT\r\n")
	if want = append(append([]string{senderNoted}, want...), ourGoodbye); !slices.Equal(got, want) {
		t.Errorf("%s: the client hears\n%.1000q, not\n%.1000q", c.name, got, want)
	}
	if rest, err := io.ReadAll(x.in); err != nil || len(rest) > 0 {
		t.Errorf("%s: behind it the client hears %q, %v", c.name, rest, err)
	}
	if n := len(p.sink.Messages()); told != (n == 1) || n > 1 {
		t.Errorf("%s: told %v, and the destination has %d messages", c.name, told, n)
	}
}
