//go:build labtest

package lab

import (
	"bufio"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"time"
)

// An attack is one way to use up a gateway by connections alone.
type attack struct {
	name string
	to   string
	// bounded is one that the gateway ends within seconds, whatever the client does.
	bounded bool
	// run does it on one connection until that ends, and tells whether it left by itself.
	run func(nc net.Conn) (left bool)

	begun, cut atomic.Int64 // connections, and those of them that the gateway ended
}

// Addresses of the destinations that attacks have, all of them hostilePeer.
const (
	bluntMX   = "198.51.100.190:25" // takes and forgets everything
	minuteMX  = "198.51.100.191:25" // greets with a byte a minute
	endlessMX = "198.51.100.192:25" // no reply after its greeting has an end
	silentMX  = "198.51.100.193:25" // takes a message and never says so
)

const (
	attackEnvelope = "MAIL FROM:<m@crowd.example>\r\nRCPT TO:<v@blunt.example>\r\nDATA\r\n"
	attackHello    = "EHLO mail.crowd.example\r\n"
	attackRcpt     = "RCPT TO:<v@blunt.example>\r\n"
)

// attacks are all kinds. Those that go to a server of ours never send a message.
func attacks() []*attack {
	const mx = "198.51.100.27:25"
	return []*attack{
		{name: "connects and waits", to: mx, bounded: true, run: untilEnd},
		{name: "commands at 1 byte/s", to: mx, bounded: true, run: func(nc net.Conn) bool { return drip(nc, "NOOP and so on ") }},
		{name: "a message at 1 byte/s", to: bluntMX, run: func(nc net.Conn) bool {
			dialogue(nc, attackHello+attackEnvelope)
			return drip(nc, "x\r\n")
		}},
		{name: "replies read at 1 byte/s", to: bluntMX, run: readSlowly},
		{name: "commands without end", to: bluntMX, run: func(nc net.Conn) bool { return endless(nc, attackHello, "NOOP\r\nRSET\r\n") }},
		{name: "100,000 header fields", to: bluntMX, run: func(nc net.Conn) bool {
			dialogue(nc, attackHello+attackEnvelope)
			return farewell(nc, strings.Repeat("X-H: y\r\n", 100_000)+"\r\n.\r\n")
		}},
		{name: "a header field of 1 MiB", to: bluntMX, run: func(nc net.Conn) bool {
			dialogue(nc, attackHello+attackEnvelope)
			return farewell(nc, "X: "+strings.Repeat("y", 1<<20)+"\r\n\r\n.\r\n")
		}},
		{name: "recipients without end", to: bluntMX, bounded: true, run: func(nc net.Conn) bool {
			return endless(nc, attackHello+"MAIL FROM:<m@crowd.example>\r\n", strings.Repeat(attackRcpt, 20))
		}},
		{name: "NUL bytes", to: bluntMX, bounded: true, run: func(nc net.Conn) bool { return endless(nc, "", strings.Repeat("\x00\r\n", 100)) }},
		{name: "a message of NUL", to: bluntMX, run: func(nc net.Conn) bool {
			dialogue(nc, attackHello+attackEnvelope)
			return farewell(nc, "\x00\r\n.\r\n")
		}},
		{name: "TLS broken off", to: "198.51.100.21:25", run: func(nc net.Conn) bool {
			dialogue(nc, attackHello+"STARTTLS\r\n")
			_, _ = io.WriteString(nc, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03") // the gateway may have left
			return true
		}},
		{name: "reads nothing", to: bluntMX, bounded: true, run: readNothing},
		{name: "half closed", to: bluntMX, bounded: true, run: func(nc net.Conn) bool {
			dialogue(nc, attackHello+attackEnvelope)
			_, _ = io.WriteString(nc, "Subject: half of it\r\n\r\nand no")
			_ = nc.(*net.TCPConn).CloseWrite() // fails where the gateway was faster
			return untilEnd(nc)
		}},
		{name: "to a byte a minute", to: minuteMX, run: mailTo},
		{name: "to replies without end", to: endlessMX, run: mailTo},
		{name: "to no answer at the dot", to: silentMX, run: mailTo},
	}
}

// untilEnd reads and forgets until the gateway ends the connection.
func untilEnd(nc net.Conn) bool {
	_, _ = io.Copy(io.Discard, nc)
	return false
}

// drip writes a byte a second and reads what comes.
func drip(nc net.Conn, text string) bool {
	go func() { untilEnd(nc); _ = nc.Close() }()
	for i := 0; ; i++ {
		if _, err := nc.Write([]byte{text[i%len(text)]}); err != nil {
			return false
		}
		time.Sleep(time.Second) // a hostile client's pace: the subject of the test
	}
}

// endless writes a beginning, then the same again and again, and reads what comes.
func endless(nc net.Conn, first, again string) bool {
	go func() { untilEnd(nc); _ = nc.Close() }()
	_, err := io.WriteString(nc, first)
	for err == nil {
		_, err = io.WriteString(nc, again)
	}
	return false
}

func readSlowly(nc net.Conn) bool {
	_ = nc.(*net.TCPConn).SetReadBuffer(4096) // a larger one makes it no good client
	go func() {
		_, _ = io.WriteString(nc, attackHello+"MAIL FROM:<m@crowd.example>\r\n"+strings.Repeat(attackRcpt, 9000))
	}()
	for b := make([]byte, 1); ; time.Sleep(time.Second) { // the pace again
		if _, err := nc.Read(b); err != nil {
			return false
		}
	}
}

func readNothing(nc net.Conn) bool {
	_ = nc.(*net.TCPConn).SetReadBuffer(4096) // as above
	_, err := io.WriteString(nc, attackHello+"MAIL FROM:<m@crowd.example>\r\n")
	for err == nil {
		_, err = io.WriteString(nc, attackRcpt)
	}
	return false
}

// dialogue says line by line and waits for the reply to each, the greeting first, as long as the connection lives.
func dialogue(nc net.Conn, lines string) {
	c := NewClient(nc)
	c.Timeout(10 * time.Minute)
	_, err := c.Reply()
	for line := range strings.Lines(lines) {
		if err != nil {
			return
		}
		_, err = c.Cmd(strings.TrimSuffix(line, "\r\n"))
	}
}

// farewell writes the rest of a session and stays for the answer and the end.
func farewell(nc net.Conn, text string) bool {
	go func() { _, _ = io.WriteString(nc, text+"QUIT\r\n") }()
	untilEnd(nc)
	return true
}

// mailTo is an ordinary mail whose destination is the attack.
func mailTo(nc net.Conn) bool {
	dialogue(nc, attackHello+attackEnvelope)
	return farewell(nc, "Subject: x\r\n\r\nx\r\n.\r\n")
}

// hostilePeer serves the destinations of attacks. It keeps nothing.
type hostilePeer struct{ manner string }

func (p hostilePeer) serve(ln net.Listener, stop <-chan struct{}) {
	for {
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			ended := make(chan struct{})
			defer close(ended)
			defer nc.Close()
			go func() {
				select {
				case <-stop:
					_ = nc.Close()
				case <-ended:
				}
			}()
			p.session(nc, stop)
		}()
	}
}

func (p hostilePeer) session(nc net.Conn, stop <-chan struct{}) {
	in, out := bufio.NewReader(nc), bufio.NewWriter(nc)
	if p.manner == minuteMX {
		for _, b := range []byte("220 mx.minute.example ESMTP\r\n") {
			if _, err := nc.Write([]byte{b}); err != nil {
				return
			}
			select {
			case <-stop:
				return
			case <-time.After(time.Minute):
			}
		}
	}
	_, err := out.WriteString("220 mx.blunt.example ESMTP\r\n")
	for err == nil {
		if in.Buffered() == 0 {
			if err = out.Flush(); err != nil {
				return
			}
		}
		var line string
		if line, err = in.ReadString('\n'); err != nil {
			return
		}
		for p.manner == endlessMX && err == nil {
			_, err = out.WriteString("250-and so on\r\n")
		}
		err = p.answer(strings.ToUpper(line[:min(4, len(line))]), in, out)
	}
}

func (p hostilePeer) answer(verb string, in *bufio.Reader, out *bufio.Writer) error {
	reply := "250 2.0.0 Ok\r\n"
	switch verb {
	case "EHLO":
		reply = "250-mx.blunt.example\r\n250-PIPELINING\r\n250 8BITMIME\r\n"
	case "QUIT":
		reply = "221 2.0.0 Bye\r\n"
	case "DATA":
		if _, err := out.WriteString("354 Go on\r\n"); err != nil {
			return err
		}
		if err := out.Flush(); err != nil {
			return err
		}
		for line, more := "", false; more || line != ".\r\n"; {
			part, err := in.ReadSlice('\n')
			if err != nil && err != bufio.ErrBufferFull {
				return err
			}
			line, more = "", err != nil || more && part[len(part)-1] != '\n'
			if !more {
				line = string(part)
			}
		}
		if p.manner == silentMX {
			_, err := io.Copy(io.Discard, in)
			if err == nil {
				err = io.EOF
			}
			return err
		}
	}
	_, err := out.WriteString(reply)
	return err
}
