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

	"golang.org/x/crypto/acme"
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
		_ = tls.Server(nc, &tls.Config{NextProtos: []string{acme.ALPNProto}, GetCertificate: m.challenge, MinVersion: tls.VersionTLS12}).Handshake() // the handshake is the answer (RFC 8737 3)
		return
	}
	r, err := http.ReadRequest(bufio.NewReader(io.LimitReader(nc, mostRequest)))
	if err != nil {
		return
	}
	m.mu.Lock()
	text, ok := m.tokens[r.URL.Path]
	m.mu.Unlock()
	status := "200 OK"
	if !ok || r.Method != http.MethodGet {
		status, text = "404 Not Found", "there is nothing here\n"
	}
	fmt.Fprintf(nc, "HTTP/1.1 %s\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", status, len(text), text)
}

// challenge is the certificate that answers one.
func (m *Manager) challenge(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c := m.certs[h.ServerName]; c != nil {
		return c, nil
	}
	return nil, errors.New("nothing is to be proved for that name")
}
