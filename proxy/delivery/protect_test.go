package delivery

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/proxy/smtp"
	"sluice/proxy/tlspolicy"
)

// safe is a destination that encrypts, with a certificate of its own making.
type safe struct {
	tlsa     tlspolicy.TLSA
	messages atomic.Int32
	plain    atomic.Int32 // MAIL in plain text
	required atomic.Int32 // MAIL with REQUIRETLS
	hello    string       // the answer to EHLO under TLS
}

// serveTLS starts one.
func (w *world) serveTLS(addr string, skills ...string) *safe {
	w.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"mx1.one.example"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		w.t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	s := &safe{tlsa: tlspolicy.TLSA{Usage: 3, Matching: 1, Data: sum[:]}, hello: strings.Join(append([]string{"250-mx"}, skills...), "\r\n250-") + "\r\n250 SIZE 1000000"}
	cfg := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	l, err := net.Listen("tcp", netip.AddrPortFrom(netip.MustParseAddr(addr), w.port).String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.session(c, cfg)
		}
	}()
	return s
}

func (s *safe) session(c net.Conn, cfg *tls.Config) {
	defer c.Close()
	in, encrypted, body := bufio.NewReader(c), false, false
	fmt.Fprint(c, "220 mx\r\n")
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		verb, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case body && line != ".\r\n":
		case body:
			body = false
			s.messages.Add(1)
			fmt.Fprint(c, "250 taken\r\n")
		case verb == "EHLO" && !encrypted:
			fmt.Fprint(c, "250-mx\r\n250 STARTTLS\r\n")
		case verb == "EHLO":
			fmt.Fprint(c, s.hello+"\r\n")
		case verb == "STARTTLS":
			fmt.Fprint(c, "220 go\r\n")
			t := tls.Server(c, cfg)
			if t.Handshake() != nil {
				return
			}
			c, in, encrypted = t, bufio.NewReader(t), true
		case verb == "DATA":
			body = true
			fmt.Fprint(c, "354 go\r\n")
		default:
			if verb == "MAIL" && !encrypted {
				s.plain.Add(1)
			}
			if verb == "MAIL" && strings.HasSuffix(line, " REQUIRETLS\r\n") {
				s.required.Add(1)
			}
			fmt.Fprint(c, "250 ok\r\n")
		}
	}
}

// TestDomainsGetWhatTheyAskFor: where mail is ours to hold back, DANE and MTA-STS are enforced: it waits rather than goes by
// a connection that is not what the domain asks for, and takes an exchanger that is.
func TestDomainsGetWhatTheyAskFor(t *testing.T) {
	t.Parallel()
	other := tlspolicy.TLSA{Usage: 3, Matching: 1, Data: make([]byte, 32)}
	dane := func(r tlspolicy.TLSA) *tlspolicy.Policy {
		return &tlspolicy.Policy{Level: tlspolicy.DANE, Source: tlspolicy.TLSAs, TLSA: []tlspolicy.TLSA{r}, SNI: "mx1.one.example"}
	}
	enforce := &tlspolicy.Policy{Level: tlspolicy.Verify, Source: tlspolicy.MTASTS, Names: []string{"mx1.one.example"}}
	unlisted := &tlspolicy.Policy{Level: tlspolicy.Verify, Source: tlspolicy.MTASTS, Bar: "the MTA-STS policy of one.example does not list mx1.one.example"}
	for name, c := range map[string]struct {
		policy func(*safe) *tlspolicy.Policy
		err    error // of the host
		second bool  // there is one more exchanger, that asks for nothing
		want   string
	}{
		"nothing asked for":          {func(*safe) *tlspolicy.Policy { return &tlspolicy.Policy{} }, nil, false, ""},
		"DANE, right":                {func(s *safe) *tlspolicy.Policy { return dane(s.tlsa) }, nil, false, ""},
		"DANE, wrong":                {func(*safe) *tlspolicy.Policy { return dane(other) }, nil, false, "no TLSA record matches"},
		"MTA-STS, self-signed":       {func(*safe) *tlspolicy.Policy { return enforce }, nil, false, "self-signed"},
		"MTA-STS, not listed":        {func(*safe) *tlspolicy.Policy { return unlisted }, nil, false, "does not list"},
		"DNSSEC finds it forged":     {nil, errors.New("SERVFAIL"), false, "SERVFAIL"},
		"DANE, wrong at one of two":  {func(*safe) *tlspolicy.Policy { return dane(other) }, nil, true, ""},
		"forged, and another is not": {nil, errors.New("SERVFAIL"), true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			addrs := []string{"127.0.0.2"}
			if c.second {
				addrs = append(addrs, "127.0.0.3")
				w.serve("127.0.0.3", nil)
			}
			w.host("one.example", addrs...)
			mx := w.serveTLS("127.0.0.2")
			h := &w.domains["one.example"].Hosts[0]
			if h.Err = c.err; c.policy != nil {
				h.Policy = c.policy(mx)
			}
			w.send(w.mail("x@one.example"), text)
			r := w.next()
			o := r.Rcpts[0]
			taken := mx.messages.Load() == 1
			switch {
			case c.want == "" && (o.Fate != Delivered || taken == c.second):
				t.Errorf("%+v, taken %v", o, taken)
			case c.want != "" && (o.Fate != Deferred || taken || !strings.Contains(o.Reply.Text+r.Note, c.want)):
				t.Errorf("%+v, note %q, taken %v; want %q", o, r.Note, taken, c.want)
			case c.want != "" && c.err == nil && o.Reply.Enh != (smtp.Enhanced{4, 7, 5}):
				t.Errorf("%+v", o.Reply)
			}
			if n := mx.plain.Load(); n != 0 {
				t.Errorf("MAIL in plain text %d times", n)
			}
		})
	}
}
