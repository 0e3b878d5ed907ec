package scanner

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// behaviour is what a program under test does with a message.
type behaviour string

const (
	clean   behaviour = "clean"
	objects behaviour = "objects"
	dead    behaviour = "dead"    // nobody listens
	slow    behaviour = "slow"    // takes the message and says nothing for 30 s
	garbled behaviour = "garbage" // answers with what is no answer
	endless behaviour = "endless" // never stops answering
	leaves  behaviour = "leaves"  // closes without an answer
)

// peer is one program; its protocol is written here anew, so that a mistake of the client's is not made twice.
type peer struct {
	kind Kind
	does behaviour
	says string       // in place of its usual objection
	got  func(string) // hears the message as it was shown
}

// serve makes the program listen and returns its address.
func (p peer) serve(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if p.does == dead {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return l.Addr().String()
	}
	done := make(chan struct{})
	t.Cleanup(func() { close(done); _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				p.session(c, done)
			}()
		}
	}()
	return l.Addr().String()
}

func (p peer) session(c net.Conn, done chan struct{}) {
	r := bufio.NewReader(c)
	switch p.does {
	case slow:
		select {
		case <-time.After(30 * time.Second):
		case <-done:
			return
		}
	case leaves:
		_, _ = r.Peek(1)
		return
	case garbled:
		_, _ = r.Peek(1)
		_, _ = io.WriteString(c, "\x00\x00\x00\x05?~~~~ what? \r\n\r\n\x00")
		_, _ = io.Copy(io.Discard, r)
		return
	case endless:
		_, _ = r.Peek(1)
		line := strings.Repeat("a", 1023) + "\n"
		for {
			if _, err := io.WriteString(c, line); err != nil {
				return
			}
		}
	}
	switch p.kind {
	case Clamd:
		p.clamd(c, r)
	case Rspamd:
		p.rspamd(c, r)
	case Spamd:
		p.spamd(c, r)
	case Milter:
		p.milter(c, r)
	}
}

func (p peer) heard(b []byte) {
	if p.got != nil {
		p.got(string(b))
	}
}

func (p peer) objection(usual string) string {
	if p.says != "" {
		return p.says
	}
	return usual
}

func (p peer) clamd(c net.Conn, r *bufio.Reader) {
	command, _ := r.ReadString(0)
	if command == "zPING\x00" {
		_, _ = io.WriteString(c, "PONG\x00")
		return
	}
	var body []byte
	for {
		var n uint32
		if binary.Read(r, binary.BigEndian, &n) != nil {
			return
		}
		if n == 0 {
			break
		}
		chunk := make([]byte, n)
		if _, err := io.ReadFull(r, chunk); err != nil {
			return
		}
		body = append(body, chunk...)
	}
	p.heard(body)
	answer := "stream: OK"
	if p.does == objects {
		answer = p.objection("stream: Win.Test.EICAR_HDB-1 FOUND")
	}
	_, _ = io.WriteString(c, answer+"\x00")
}

func (p peer) rspamd(c net.Conn, r *bufio.Reader) {
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		body, _ := io.ReadAll(req.Body)
		answer := "pong\r\n"
		if req.URL.Path == "/checkv2" {
			p.heard(append([]byte(fmt.Sprintf("From=%s Rcpt=%s Ip=%s Helo=%s\n", req.Header.Get("From"), strings.Join(req.Header["Rcpt"], ","), req.Header.Get("Ip"), req.Header.Get("Helo"))), body...))
			answer = `{"is_skipped":false,"score":0.1,"required_score":15,"action":"no action","symbols":{}}`
			if p.does == objects {
				answer = p.objection(`{"score":17.5,"required_score":15,"action":"reject","symbols":{"URI_BAD":{"name":"URI_BAD","score":8.5},"MID_OK":{"score":-1},"BODY_BAD":{"score":9.0}}}`)
			}
		}
		if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: "+strconv.Itoa(len(answer))+"\r\n\r\n"+answer); err != nil {
			return
		}
	}
}

func (p peer) spamd(c net.Conn, r *bufio.Reader) {
	line, _ := r.ReadString('\n')
	length := 0
	for {
		field, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if field == "\r\n" {
			break
		}
		if v, ok := strings.CutPrefix(field, "Content-length: "); ok {
			length, _ = strconv.Atoi(strings.TrimSpace(v))
		}
	}
	if strings.HasPrefix(line, "PING ") {
		_, _ = io.WriteString(c, "SPAMD/1.5 0 PONG\r\n")
		return
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(r, body); err != nil {
		return
	}
	p.heard(body)
	answer := "SPAMD/1.1 0 EX_OK\r\nContent-length: 9\r\nSpam: False ; 0.1 / 5.0\r\n\r\nNO_RELAYS"
	if p.does == objects {
		answer = p.objection("SPAMD/1.1 0 EX_OK\r\nContent-length: 17\r\nSpam: True ; 17.2 / 5.0\r\n\r\nBAYES_99,URI_BAD\r\n")
	}
	_, _ = io.WriteString(c, answer)
}

func (p peer) milter(c net.Conn, r *bufio.Reader) {
	answer := func(code byte, data string) {
		b := binary.BigEndian.AppendUint32(nil, uint32(1+len(data)))
		_, _ = c.Write(append(append(b, code), data...))
	}
	var told strings.Builder
	for {
		var n uint32
		if binary.Read(r, binary.BigEndian, &n) != nil || n == 0 || n > 1<<20 {
			return
		}
		packet := make([]byte, n)
		if _, err := io.ReadFull(r, packet); err != nil {
			return
		}
		switch cmd, data := packet[0], string(packet[1:]); cmd {
		case 'O':
			answer('O', "\x00\x00\x00\x06\x00\x00\x00\x11\x00\x00\x00\x00")
		case 'D', 'A':
		case 'Q':
			return
		case 'E':
			p.heard([]byte(told.String()))
			if p.does == objects {
				said := p.objection("y550 5.7.1 not today\x00")
				for _, one := range strings.Split(said, "|") {
					answer(one[0], one[1:])
				}
			} else {
				answer('c', "")
			}
		default:
			told.WriteString(string(cmd) + " " + strings.ReplaceAll(data, "\x00", " ") + "\n")
			answer('c', "")
		}
	}
}
