//go:build labtest

package lab

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// fickle is a destination that changes how it treats STARTTLS with each connection, and leaves when it likes.
type fickle struct {
	lab  *Lab
	cert certificates
	mu   sync.Mutex
	rnd  *rand.Rand

	weak      atomic.Int64 // sealed MAIL outside of TLS, or under one too old
	delivered atomic.Int64 // messages under TLS
	open      atomic.Int64 // messages in plain text
	conns     atomic.Int64
}

func (f *fickle) chance(n int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rnd.IntN(n) == 0
}

func (f *fickle) pick(n int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rnd.IntN(n)
}

// How a destination treats STARTTLS.
const (
	works = iota
	tls12
	tls11
	refuses
	absent
	garbage
	hangsUp
	noCertificate
	injects
	ways
)

func (f *fickle) serve(ln net.Listener) {
	for {
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		f.conns.Add(1)
		go f.session(nc)
	}
}

// manner is mostly good, so that what is remembered of the destination is a promise, and often enough broken.
func (f *fickle) manner() int {
	if !f.chance(4) {
		return f.pick(2)
	}
	return f.pick(ways)
}

func (f *fickle) session(nc net.Conn) {
	defer func() { _ = nc.Close() }() // nc may be another by then
	raw := nc
	_ = nc.SetDeadline(time.Now().Add(time.Minute))
	how, br := f.manner(), bufio.NewReader(nc)
	say := func(s string) { _, _ = io.WriteString(nc, s+"\r\n") } // an error shows at the next read
	say("220 mx.fickle.example ESMTP")
	for {
		line, err := br.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		verb, _, _ := strings.Cut(strings.ToUpper(line), " ")
		if strings.Contains(line, sealed) && !strong(nc) {
			f.weak.Add(1)
		}
		if verb != "QUIT" && f.chance(60) { // leaves, with a word or without
			if f.chance(2) {
				say("421 4.3.2 leaving")
			}
			return
		}
		switch verb {
		case "EHLO":
			if _, under := nc.(*tls.Conn); under || how == absent {
				say("250-mx.fickle.example\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 8BITMIME")
			} else {
				say("250-mx.fickle.example\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-STARTTLS\r\n250 8BITMIME")
			}
		case "STARTTLS":
			if nc, br = f.startTLS(raw, how, say); nc == nil {
				nc = raw
				if how != refuses && how != absent {
					return
				}
				br = bufio.NewReader(raw)
			}
		case "DATA":
			say("354 go")
			if !f.body(br, nc) {
				return
			}
			say("250 2.0.0 taken")
		case "BDAT":
			if !f.chunk(line, br, nc) {
				return
			}
			say("250 2.0.0 taken")
		case "QUIT":
			say("221 2.0.0 bye")
			return
		default:
			say("250 2.0.0 ok")
		}
	}
}

// strong tells whether the connection is under TLS 1.2 or newer.
func strong(nc net.Conn) bool {
	t, ok := nc.(*tls.Conn)
	return ok && t.ConnectionState().Version >= tls.VersionTLS12
}

// startTLS answers STARTTLS; nil where there is no TLS after it.
func (f *fickle) startTLS(nc net.Conn, how int, say func(string)) (net.Conn, *bufio.Reader) {
	cfg := f.cert.config("mx.fickle.example")
	cfg.MinVersion = tls.VersionTLS10
	switch how {
	case refuses, absent:
		say("454 4.7.0 TLS not available due to temporary reason")
		return nil, nil
	case garbage:
		say("220 go\r\nthis is no TLS at all, whatever you thought")
		return nil, nil
	case hangsUp:
		say("220 go")
		return nil, nil
	case injects:
		say("220 go\r\n250-mx.fickle.example\r\n250 STARTTLS")
	case noCertificate:
		say("220 go")
		cfg = &tls.Config{}
	case tls12:
		say("220 go")
		cfg.MaxVersion = tls.VersionTLS12
	case tls11:
		say("220 go")
		cfg.MaxVersion = tls.VersionTLS11
	default:
		say("220 go")
	}
	t := tls.Server(nc, cfg)
	if t.Handshake() != nil {
		return nil, nil
	}
	return t, bufio.NewReader(t)
}

// body reads to the dot; false where it left before.
func (f *fickle) body(br *bufio.Reader, nc net.Conn) bool {
	leave := f.chance(40)
	for {
		line, err := br.ReadString('\n')
		if err != nil || leave {
			return false
		}
		if strings.Contains(line, sealed) && !strong(nc) {
			f.weak.Add(1)
		}
		if line == ".\r\n" {
			f.took(nc)
			return true
		}
	}
}

// chunk reads what follows BDAT; false where it left before.
func (f *fickle) chunk(line string, br *bufio.Reader, nc net.Conn) bool {
	size, last, _ := strings.Cut(line[len("BDAT "):], " ")
	n, err := strconv.Atoi(size)
	if err != nil || f.chance(40) {
		return false
	}
	text, err := io.ReadAll(io.LimitReader(br, int64(n)))
	if err != nil || len(text) < n {
		return false
	}
	if bytes.Contains(text, []byte(sealed)) && !strong(nc) {
		f.weak.Add(1)
	}
	if last != "" {
		f.took(nc)
	}
	return true
}

// took counts a message.
func (f *fickle) took(nc net.Conn) {
	if strong(nc) {
		f.delivered.Add(1)
	} else {
		f.open.Add(1)
	}
}
