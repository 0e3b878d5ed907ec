//go:build labtest

package lab

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"
)

// replayUsers are customers who each send by themselves; their traffic is made from a seed, so that two labs get the same.
func replayUsers() (all []Customer) {
	for i := range 8 {
		all = append(all, Customer{Name: fmt.Sprintf("user%d", i), V4: netip.AddrFrom4([4]byte{192, 0, 2, byte(100 + i)}),
			V6: netip.MustParseAddr(fmt.Sprintf("2001:db8:%d::10", 300+i))})
	}
	return all
}

// letterPlan is one message, or an attempt at one, of a session.
type letterPlan struct {
	from   string // names it in the log
	args   string // of MAIL
	to     []string
	body   []byte // dots not doubled
	manner string
}

// The manners in which clients send, by how often they are met.
var manners = []string{
	"plain", "plain", "plain", "plain", "pipelined", "pipelined", "pipelined", "pipelined", "bdat", "bdat", "chunks", "reset", "reset after all",
	"quit behind the dot", "left in the body", "broken off", "nested", "noise", "new greeting",
}

// replayPlan makes the sessions of a user.
func replayPlan(seed uint64, user, messages int) (sessions [][]letterPlan) {
	r := rand.New(rand.NewPCG(seed, uint64(user)))
	for n := 0; n < messages; {
		var s []letterPlan
		for range 1 + r.IntN(6) {
			p := newLetterPlan(r, user, n)
			s = append(s, p)
			n++
			if p.manner == "quit behind the dot" || p.manner == "left in the body" || p.manner == "broken off" {
				break
			}
		}
		sessions = append(sessions, s)
	}
	return sessions
}

func newLetterPlan(r *rand.Rand, user, n int) letterPlan {
	domain := fmt.Sprintf("user%d.example", user)
	p := letterPlan{from: fmt.Sprintf("m%d@%s", n, domain), manner: manners[r.IntN(len(manners))]}
	switch k := r.IntN(100); {
	case k < 2:
		p.from = fmt.Sprintf("m%d@-no-host-.%s", n, domain) // no MAIL by the grammar
	case k < 4:
		p.from = fmt.Sprintf("m%d@%s.5", n, domain) // no sender that could be answered
	case k < 6:
		p.args = fmt.Sprintf(" SIZE=%d", 2<<20) // over the limit of the test's configuration, as it says
	case k < 8:
		p.args = " BODY=8BITMIME SMTPUTF8"
	}
	rcpts := 1 + r.IntN(3)
	if r.IntN(25) == 0 {
		rcpts = 8 + r.IntN(8) // some are over the limit of recipients
	}
	for i := range rcpts {
		local := fmt.Sprintf("r%d-%d", n, i)
		switch r.IntN(12) {
		case 0:
			local = "bad" + local
		case 1:
			local = "later" + local
		}
		p.to = append(p.to, local+"@sink.example")
	}
	lines := r.IntN(40)
	if r.IntN(6) == 0 {
		lines = 200 + r.IntN(3000) // far more than is copied
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "From: <%s>\r\nSubject: %d\r\n\r\n", p.from, n)
	if user%4 == 3 && r.IntN(8) == 0 {
		fmt.Fprintf(&b, "%s\r\n%d\r\n", gtubeText, n)
	}
	for i := range lines {
		fmt.Fprintf(&b, "%s\r\n", []string{"MAIL FROM:<inside@body.example>", ".", "..dots", "RSET", strings.Repeat("x", 70)}[(n+i)%5])
	}
	p.body = b.Bytes()
	return p
}

// replay sends a user's sessions one after the other, each once the gateway is ready for it.
func replay(ctx context.Context, t *testing.T, l *Lab, c Customer, sessions [][]letterPlan, ready func()) {
	for i, s := range sessions {
		to := "198.51.100.20:25"
		if i%2 == 1 {
			to = "[2001:db8:100::20]:25"
		}
		ready()
		if err := playSession(ctx, l, c, to, s); err != nil {
			t.Errorf("session %d of %s: %v", i, c.Name, err)
			return
		}
	}
}

func playSession(ctx context.Context, l *Lab, who Customer, to string, s []letterPlan) error {
	c, err := l.SMTP(ctx, who.Name, "", to)
	if err != nil {
		return err
	}
	defer c.Close()
	p := &player{Client: c}
	p.cmd("EHLO mail." + who.Name + ".example")
	for _, letter := range s {
		p.send(&letter)
	}
	if p.left {
		return p.err
	}
	p.cmd("QUIT")
	p.over()
	return p.err
}

// player says what a plan says; after an error it says nothing more.
type player struct {
	*Client
	err  error
	left bool
}

func (p *player) cmd(line string) Reply {
	var r Reply
	if p.err == nil {
		r, p.err = p.Cmd(line)
	}
	return r
}

// group says lines in one write and reads as many replies.
func (p *player) group(lines ...string) (last Reply) {
	p.write([]byte(strings.Join(lines, "\r\n") + "\r\n"))
	for range lines {
		last = p.reply()
	}
	return last
}

func (p *player) write(b []byte) {
	if p.err == nil {
		_, p.err = p.Write(b)
	}
}

func (p *player) reply() (r Reply) {
	if p.err == nil {
		r, p.err = p.Reply()
	}
	return r
}

// over waits for the other side's end, so that the next session is the next one for whoever watches.
func (p *player) over() {
	if p.err == nil {
		_, p.err = io.Copy(io.Discard, p.in)
	}
}

func (p *player) send(l *letterPlan) {
	mail := "MAIL FROM:<" + l.from + ">" + l.args
	rcpts := make([]string, len(l.to))
	for i, t := range l.to {
		rcpts[i] = "RCPT TO:<" + t + ">"
	}
	envelope := func() (accepted bool) {
		p.cmd(mail)
		for _, r := range rcpts {
			accepted = p.cmd(r).Code == 250 || accepted
		}
		return accepted
	}
	switch l.manner {
	case "bdat", "chunks":
		if !envelope() {
			p.cmd("RSET")
			return
		}
		p.chunks(l)
	case "pipelined":
		if p.group(append(append([]string{mail}, rcpts...), "DATA")...).Code != 354 {
			p.cmd("RSET")
			return
		}
		p.write(Stuff(l.body))
		p.reply()
	case "reset":
		envelope()
		p.cmd("RSET")
	case "nested":
		p.cmd(mail)
		p.cmd("MAIL FROM:<nested@body.example>")
		p.cmd(rcpts[0])
		p.data(l)
	case "noise":
		for _, line := range []string{"NOOP", "VRFY x", "XYZZY", "RCPT TO:<early@sink.example>", "RCPT", "MAIL FROM:nobody", "RSET", "HELP"} {
			p.cmd(line)
		}
		envelope()
		p.data(l)
	case "new greeting":
		envelope()
		p.cmd("EHLO again.example")
	default:
		envelope()
		p.data(l)
	}
	if l.manner == "reset after all" {
		p.cmd("RSET")
	}
}

func (p *player) chunks(l *letterPlan) {
	n := len(l.body)
	if l.manner == "chunks" && n > 100 {
		p.write([]byte("BDAT 100\r\n"))
		p.write(l.body[:100])
		p.reply()
		n -= 100
	}
	p.write(append(fmt.Appendf(nil, "BDAT %d LAST\r\n", n), l.body[len(l.body)-n:]...))
	p.reply()
}

// data sends the message with DATA, or leaves in it.
func (p *player) data(l *letterPlan) {
	if p.cmd("DATA").Code != 354 {
		p.cmd("RSET")
		return
	}
	switch l.manner {
	case "quit behind the dot":
		p.write(append(Stuff(l.body), "QUIT\r\n"...))
		p.reply()
		p.reply()
		p.left = true
		p.over()
	case "left in the body":
		p.write(Stuff(l.body)[:len(l.body)/2])
		if c, ok := p.Conn.(*net.TCPConn); ok && p.err == nil {
			p.err = c.CloseWrite()
		}
		p.left = true
		p.over()
	case "broken off":
		p.write(Stuff(l.body)[:len(l.body)/2])
		p.left = true
		if p.err == nil {
			p.err = p.Reset()
		}
	default:
		p.write(Stuff(l.body))
		p.reply()
	}
}
