package smtp

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

// testTLS gives a server configuration with a certificate of its own, and one of a client that trusts it.
func testTLS(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "gw.example"}, DNSNames: []string{"gw.example"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
		&tls.Config{RootCAs: roots, ServerName: "gw.example"}
}

// tlsPair gives a server and a client Conn after STARTTLS, and the count of the client's writes to the network.
func tlsPair(t *testing.T) (srv, cli *Conn, writes *countConn) {
	t.Helper()
	sc, cc := testTLS(t)
	a, b := tcpPair(t)
	writes = &countConn{TCPConn: b}
	srv, cli = NewConn(a, Options{}), NewConn(writes, Options{})
	done := make(chan error, 1)
	go func() { done <- srv.StartServerTLS(sc, "Ready") }()
	var r Reply
	if err := cli.ReadReply(&r); err != nil || string(r.Raw) != "220 2.0.0 Ready\r\n" {
		t.Fatalf("%q, %v", r.Raw, err)
	}
	if err := cli.StartClientTLS(cc); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return srv, cli, writes
}

type countConn struct {
	*net.TCPConn
	writes int
}

func (c *countConn) Write(p []byte) (int, error) {
	c.writes++
	return c.TCPConn.Write(p)
}

func TestStartTLS(t *testing.T) {
	t.Parallel()
	srv, cli, count := tlsPair(t)
	if st, ok := srv.TLS(); !ok || !st.HandshakeComplete {
		t.Error("server has no TLS state")
	}
	if _, ok := cli.TLS(); !ok {
		t.Error("client has no TLS state")
	}
	msg := strings.Repeat("some line of text\r\n.\r\n", 450)
	body, err := BodyFromBytes([]byte(strings.ReplaceAll(msg, ".", "x")))
	if err != nil {
		t.Fatal(err)
	}
	count.writes = 0
	if err := cli.WriteCommand("DATA"); err != nil {
		t.Fatal(err)
	}
	if err := cli.WriteData([]byte("A: b\r\n"), body); err != nil {
		t.Fatal(err)
	}
	if count.writes != 1 { // one record: the message is below 16 KiB
		t.Errorf("%d writes to the network", count.writes)
	}
	if cmd, err := srv.ReadCommand(); err != nil || cmd.Verb != DATA {
		t.Fatalf("%q, %v", cmd.Line, err)
	}
	got, err := srv.ReadData(nil)
	if err != nil || string(got.Bytes()) != "A: b\r\n"+string(body.Bytes()) {
		t.Errorf("body over TLS: %v", err)
	}
}

// TestPlaintextBehindSTARTTLS: what either side sends in the clear behind STARTTLS, in the same packet, is neither
// obeyed nor believed under TLS.
func TestPlaintextBehindSTARTTLS(t *testing.T) {
	t.Parallel()
	sc, cc := testTLS(t)
	a, b := tcpPair(t)
	srv, cli := NewConn(a, Options{}), NewConn(b, Options{})
	done := make(chan error, 1)
	go func() {
		if cmd, err := srv.ReadCommand(); err != nil || cmd.Verb != STARTTLS || srv.Buffered() == 0 {
			t.Errorf("%v, %v, %d buffered", cmd, err, srv.Buffered())
		}
		srv.WriteRaw([]byte("220 Ready\r\n250 injected\r\n"))
		srv.dropInput()
		err := srv.startTLS(tls.Server, sc)
		if err == nil {
			srv.WriteRaw([]byte("250 true\r\n"))
			err = srv.Flush()
		}
		if cmd, cerr := srv.ReadCommand(); err == nil && (cerr != nil || cmd.Verb != NOOP) {
			t.Errorf("under TLS the server reads %v, %v", cmd, cerr)
		}
		done <- err
	}()
	cli.WriteRaw([]byte("STARTTLS\r\nRSET\r\n"))
	var r Reply
	if err := cli.ReadReply(&r); err != nil || r.Code != 220 || cli.Buffered() == 0 {
		t.Fatalf("%v, %v, %d buffered", r.Code, err, cli.Buffered())
	}
	if err := cli.StartClientTLS(cc); err != nil {
		t.Fatal(err)
	}
	if err := cli.ReadReply(&r); err != nil || string(r.Raw) != "250 true\r\n" {
		t.Errorf("under TLS the client reads %q, %v", r.Raw, err)
	}
	if err := errors.Join(cli.WriteCommand("NOOP"), cli.Flush(), <-done); err != nil {
		t.Error(err)
	}
}

// TestPlaintextInsteadOfHandshake: plaintext that comes after the 220 breaks the handshake.
func TestPlaintextInsteadOfHandshake(t *testing.T) {
	t.Parallel()
	sc, _ := testTLS(t)
	a, b := tcpPair(t)
	c := NewConn(a, Options{})
	b.Write([]byte("RSET\r\n"))
	if err := c.StartServerTLS(sc, "Ready"); err == nil || Recoverable(err) {
		t.Errorf("plaintext instead of a handshake: %v", err)
	}
}

func TestHandshakeTimeout(t *testing.T) {
	t.Parallel()
	_, cc := testTLS(t)
	a, _ := tcpPair(t)
	c := NewConn(a, Options{HandshakeTimeout: 30 * time.Millisecond})
	if err := c.StartClientTLS(cc); err != ErrTimeout {
		t.Errorf("%v", err)
	}
}

func TestHandshakeRefused(t *testing.T) {
	t.Parallel()
	sc, cc := testTLS(t)
	cc.RootCAs = x509.NewCertPool()
	a, b := tcpPair(t)
	srv, cli := NewConn(a, Options{}), NewConn(b, Options{})
	done := make(chan error, 1)
	go func() { done <- srv.StartServerTLS(sc, "Ready") }()
	var r Reply
	if err := cli.ReadReply(&r); err != nil {
		t.Fatal(err)
	}
	var unknown x509.UnknownAuthorityError
	if err := cli.StartClientTLS(cc); !errors.As(err, &unknown) {
		t.Errorf("client: %v", err)
	}
	if err := <-done; err == nil {
		t.Error("server: no error")
	}
}

// TestProbeTLS: tickets that follow a handshake are no input; a record that came together with an
// answer is, though the socket is empty.
func TestProbeTLS(t *testing.T) {
	t.Parallel()
	srv, cli, _ := tlsPair(t)
	for range 3 {
		if pending, err := cli.Probe(); pending || err != nil {
			t.Fatalf("idle: %v, %v", pending, err)
		}
	}
	srv.WriteReply(250, Enhanced{}, "one")
	if err := srv.Flush(); err != nil {
		t.Fatal(err)
	}
	srv.WriteReply(421, Enhanced{}, "two")
	if err := srv.Flush(); err != nil {
		t.Fatal(err)
	}
	var r Reply
	if err := cli.ReadReply(&r); err != nil || r.Code != 250 {
		t.Fatal(r.Code, err)
	}
	pending, err := cli.Probe()
	for end := time.Now().Add(time.Minute); !pending && err == nil && time.Now().Before(end); {
		pending, err = cli.Probe()
	}
	if !pending || err != nil {
		t.Fatalf("a second record: %v, %v", pending, err)
	}
	if err := cli.ReadReply(&r); err != nil || r.Code != 421 {
		t.Fatal(r.Code, err)
	}
	srv.Close()
	for end := time.Now().Add(time.Minute); err == nil && time.Now().Before(end); {
		_, err = cli.Probe()
	}
	if !gone(err) {
		t.Errorf("closed: %v", err)
	}
}

// TestTimeoutUnderTLS: the slices of a time-out do no harm to TLS.
func TestTimeoutUnderTLS(t *testing.T) {
	t.Parallel()
	srv, cli, _ := tlsPair(t)
	srv.SetReadTimeout(40 * time.Millisecond)
	if _, err := srv.ReadCommand(); err != ErrTimeout {
		t.Fatal(err)
	}
	srv.SetReadTimeout(time.Minute)
	cli.WriteCommand("NOOP")
	if err := cli.Flush(); err != nil {
		t.Fatal(err)
	}
	if cmd, err := srv.ReadCommand(); err != nil || cmd.Verb != NOOP {
		t.Errorf("%q, %v", cmd.Line, err)
	}
}
