package acme

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"go.uber.org/zap"
)

// patience bounds a whole connection of whoever looks at challenges.
const patience = 10 * time.Second

// mostRequest bounds what is read of an HTTP request.
const mostRequest = 8 << 10

// Serve answers one connection to a port where the authority looks, and closes it. Whoever else comes finds nothing.
func (m *Manager) Serve(nc net.Conn, encrypted bool) {
	defer nc.Close()
	if nc.SetDeadline(time.Now().Add(patience)) != nil {
		return
	}
	if encrypted {
		_ = tls.Server(nc, &tls.Config{NextProtos: []string{acmez.ACMETLS1Protocol}, GetCertificate: m.challenge, MinVersion: tls.VersionTLS12}).Handshake() // the handshake is the answer (RFC 8737 3)
		return
	}
	r, err := http.ReadRequest(bufio.NewReader(io.LimitReader(nc, mostRequest)))
	if err != nil {
		return
	}
	r.RemoteAddr = nc.RemoteAddr().String()
	var w answer
	if c, ok := certmagic.GetACMEChallenge(r.Host); !ok || !certmagic.SolveHTTPChallenge(zap.New(core{m.o.Log}), &w, r, c.Challenge) {
		http.Error(&w, "there is nothing here", http.StatusNotFound)
	}
	w.to(nc)
}

// challenge is the certificate that answers one.
func (m *Manager) challenge(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if _, ok := certmagic.GetACMEChallenge(h.ServerName); !ok { // else the library would warn of each stranger
		return nil, errors.New("nothing is to be proved for that name")
	}
	return m.cfg.GetCertificate(h)
}

// answer is what one request hears.
type answer struct {
	header http.Header
	code   int
	text   []byte
}

// Header is that of the answer.
func (a *answer) Header() http.Header {
	if a.header == nil {
		a.header = http.Header{}
	}
	return a.header
}

// WriteHeader takes the status.
func (a *answer) WriteHeader(code int) { a.code = code }

// Write takes text.
func (a *answer) Write(b []byte) (int, error) {
	a.text = append(a.text, b...)
	return len(b), nil
}

// to writes the answer, after which the connection ends.
func (a *answer) to(w io.Writer) {
	if a.code == 0 {
		a.code = http.StatusOK
	}
	fmt.Fprintf(w, "HTTP/1.1 %d %s\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", a.code, http.StatusText(a.code), len(a.text), a.text)
}
