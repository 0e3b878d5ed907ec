package proxy

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-smtp"

	"sluice/proxy/cert"
)

// backend is a mail server that was not written for this test.
type backend struct {
	mu    sync.Mutex
	mails []string
}

func (b *backend) NewSession(*smtp.Conn) (smtp.Session, error) { return &inbox{b: b}, nil }

type inbox struct {
	b    *backend
	from string
	to   []string
}

func (s *inbox) Mail(from string, _ *smtp.MailOptions) error { s.from = from; return nil }

func (s *inbox) Rcpt(to string, _ *smtp.RcptOptions) error {
	if strings.HasPrefix(to, "nobody") {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "nobody here"}
	}
	s.to = append(s.to, to)
	return nil
}

func (s *inbox) Data(r io.Reader) error {
	body, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	s.b.mails = append(s.b.mails, s.from+" "+strings.Join(s.to, ",")+"\n"+string(body))
	return nil
}

func (s *inbox) Reset()        { s.from, s.to = "", nil }
func (s *inbox) Logout() error { return nil }

// TestPeersNotWrittenHere leads messages from go-smtp's client to go-smtp's server, both of which know nothing of us.
func TestPeersNotWrittenHere(t *testing.T) {
	t.Parallel()
	b := &backend{}
	mx := smtp.NewServer(b)
	store, err := cert.New(cert.Options{Name: "mx.sink.example"})
	must(t, err)
	mx.Domain, mx.TLSConfig = "mx.sink.example", store.Config()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	go mx.Serve(ln)
	t.Cleanup(func() { mx.Close() })
	r := newRig(t, ln.Addr().(*net.TCPAddr).AddrPort(), withTLS)

	for _, secure := range []bool{false, true} {
		var c *smtp.Client
		if secure {
			c, err = smtp.DialStartTLS(r.ln.Addr().String(), &tls.Config{InsecureSkipVerify: true})
		} else {
			c, err = smtp.Dial(r.ln.Addr().String())
		}
		must(t, err)
		for range 3 {
			must(t, c.Mail("a@client.example", &smtp.MailOptions{Size: 100}))
			must(t, c.Rcpt("b@sink.example", nil))
			if err := c.Rcpt("nobody@sink.example", nil); err == nil || !strings.Contains(err.Error(), "nobody here") {
				t.Errorf("refused recipient: %v", err)
			}
			w, err := c.Data()
			must(t, err)
			_, err = io.WriteString(w, "Subject: x\r\n\r\n.dot\r\n..\r\nend\r\n")
			must(t, err)
			must(t, w.Close())
		}
		must(t, c.Quit())
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.mails) != 6 {
		t.Fatalf("%d messages arrived, want 6", len(b.mails))
	}
	for _, m := range b.mails {
		if !strings.HasPrefix(m, "a@client.example b@sink.example\nReceived: from ") || !strings.HasSuffix(m, "\r\nSubject: x\r\n\r\n.dot\r\n..\r\nend\r\n") {
			t.Errorf("arrived: %q", m)
		}
	}
}
