package lab

import (
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

func (x *sinkSession) rules() script {
	x.sink.mu.Lock()
	defer x.sink.mu.Unlock()
	return x.sink.script
}

// step answers one step of the dialogue, by the script's rule or as usual.
func (x *sinkSession) step(name, local, usual string) error {
	actions := x.plan(name, local)
	return x.act(actions, usual)
}

// plan finds what to do at a step and counts it.
func (x *sinkSession) plan(name, local string) []action {
	x.seen[name]++
	if actions, ok := x.rules().find(name, x.seen[name], local); ok {
		return actions
	}
	return []action{{verb: "ok"}}
}

// end answers the end of data and stores the message if it is accepted.
func (x *sinkSession) end(m *Message) error {
	actions := x.plan("dot", "")
	m.Reply = ""
	usual := "250 2.0.0 Ok: queued"
	keep := false
	for _, a := range actions {
		switch {
		case a.verb == "ok":
			m.Reply, keep = usual, true
		case a.verb == "store":
			keep = true
		case a.verb == "reply" || a.verb == "drip":
			m.Reply = strings.TrimSuffix(a.text, "\r\n")
			keep = keep || strings.HasPrefix(a.text, "2")
		}
	}
	if keep {
		if err := x.sink.store(m); err != nil {
			usual = "452 4.3.1 " + err.Error()
		}
	}
	return x.act(actions, usual)
}

// act carries out a rule.
func (x *sinkSession) act(actions []action, usual string) error {
	x.last = ""
	for _, a := range actions {
		if err := x.one(a, usual); err != nil {
			return err
		}
	}
	return nil
}

func (x *sinkSession) one(a action, usual string) error {
	switch a.verb {
	case "ok":
		return x.say(usual + "\r\n")
	case "reply", "raw":
		return x.say(a.text)
	case "store":
		return nil
	case "drip":
		return x.drip(a)
	case "flood":
		return x.flood(a.size)
	case "stall":
		return x.stall(a.wait)
	case "close":
		_ = x.out.Flush()
		return errEnd("closed by script")
	case "reset":
		_ = x.out.Flush()
		if t, ok := x.tcp.(*net.TCPConn); ok {
			_ = t.SetLinger(0)
		}
		return errEnd("reset by script")
	}
	return fmt.Errorf("no action %q", a.verb)
}

func (x *sinkSession) say(text string) error {
	x.last = text
	for line := range strings.Lines(text) {
		x.note("S: " + strings.TrimRight(line, "\r\n"))
	}
	_, err := io.WriteString(x.out, text)
	return err
}

func (x *sinkSession) drip(a action) error {
	x.last = a.text
	x.note("S: " + strings.TrimRight(a.text, "\r\n"))
	for i := range len(a.text) {
		if i > 0 {
			if err := x.stall(a.wait); err != nil {
				return err
			}
		}
		if err := x.out.WriteByte(a.text[i]); err != nil {
			return err
		}
		if err := x.out.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// flood sends about size bytes of one reply. It ends early when the peer
// closes.
func (x *sinkSession) flood(size int) error {
	x.note(fmt.Sprintf("S: (flood of %d bytes)", size))
	line := "250-" + strings.Repeat("x", 70) + "\r\n"
	for sent := 0; sent < size; sent += len(line) {
		if _, err := io.WriteString(x.out, line); err != nil {
			return err
		}
	}
	x.last = "250 end\r\n"
	_, err := io.WriteString(x.out, x.last)
	return err
}

// stall waits a while, or, with 0, until the peer leaves. Replies said before
// are sent first.
func (x *sinkSession) stall(d time.Duration) error {
	if err := x.out.Flush(); err != nil {
		return err
	}
	if d == 0 {
		if err := x.conn.SetReadDeadline(time.Now().Add(maxIdle)); err != nil {
			return err
		}
		_, err := io.Copy(io.Discard, x.in)
		return fmt.Errorf("peer left a stalled session: %w", orEOF(err))
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-x.sink.stop:
		return errEnd("sink closed")
	}
}

func orEOF(err error) error {
	if err == nil {
		return io.EOF
	}
	return err
}

// pathOf is the address between the angle brackets of a MAIL or RCPT argument.
func pathOf(arg string) string {
	_, rest, ok := strings.Cut(arg, "<")
	if !ok {
		return ""
	}
	addr, _, _ := strings.Cut(rest, ">")
	return addr
}

// local is the local part of the address in a MAIL or RCPT argument.
func local(arg string) string {
	addr := pathOf(arg)
	if i := strings.LastIndexByte(addr, '@'); i >= 0 {
		return addr[:i]
	}
	return addr
}
