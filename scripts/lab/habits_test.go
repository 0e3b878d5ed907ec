//go:build labtest

package lab

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// TestPHPMail sends as web pages do: by PHP's mail() and the host's Sendmail, with header lines that end in LF or CRLF.
func TestPHPMail(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	startGateway(t, l, "")
	if err := l.PHP(ctx, "alice", `
$ok = mail('one@sink.example', 'Bestellung', ".dots\n..\nGr\xc3\xbc\xc3\x9fe\n", "From: shop@alice.example\nX-Mailer: PHP/8", '-fshop@alice.example');
$ok = mail('two@sink.example', '=?utf-8?q?f=C3=BCr?=', ".dots\r\n..\r\nGr\xc3\xbc\xc3\x9fe\r\n", "From: shop@alice.example\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n", '-fshop@alice.example') && $ok;
exit($ok ? 0 : 1);`); err != nil {
		t.Fatal(err)
	}
	got, err := l.Sink("sink").Wait(ctx, 2)
	if err != nil {
		t.Fatal(err)
	}
	for i, rcpt := range []string{"one@sink.example", "two@sink.example"} {
		m := got[i]
		if m.Recipients()[0] != rcpt || m.Sender() != "shop@alice.example" || !DeliveryV6.Contains(m.Peer.Addr()) && !DeliveryV4.Contains(m.Peer.Addr().Unmap()) {
			t.Errorf("message %d went from %s to %v, by %v", i, m.Sender(), m.Recipients(), m.Peer)
		}
		if !bytes.HasSuffix(m.Data, []byte("\r\n\r\n.dots\r\n..\r\nGrüße\r\n\r\n")) || strings.Count(string(m.Data), "by gw.example with ") != 1 {
			t.Errorf("message %d arrived as %q", i, m.Data)
		}
	}
}

// TestServerWithBrokenTLS sends to a server that offers STARTTLS and fails each handshake. Directly, clients put such mail
// off or never send it; the gateway has tried before it answers EHLO and offers none, so the mail goes through as plain
// text, which opportunistic clients choose at their second try.
func TestServerWithBrokenTLS(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	startGateway(t, l, "")
	server, err := l.MX(ctx, "opensmtpd")
	if err != nil {
		t.Fatal(err)
	}
	tools, err := l.Toolbox(ctx, "bob")
	if err != nil {
		t.Fatal(err)
	}
	m, err := l.Postfix(ctx, "alice")
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Send(ctx, Mail{From: "a@alice.example", To: []string{"postfix@tls4.opensmtpd.example"}, Data: []byte("Subject: x\n\nx\n")}); err != nil {
		t.Fatal(err)
	}
	job := Job{Host: "mx.tls6.opensmtpd.example", Helo: "mail.bob.example", From: "a@bob.example", To: []string{"plain@tls6.opensmtpd.example"}, Data: []byte("Subject: x\r\n\r\nx\r\n")}
	codes, err := tools.Agents()["nodemailer"](ctx, []Job{job})
	if err != nil || codes[0][job.To[0]] != 250 {
		t.Errorf("without TLS: %v, %v", codes, err)
	}
	job.TLS = true
	if codes, err := tools.Agents()["nodemailer"](ctx, []Job{job}); err == nil && codes[0][job.To[0]]/100 != 5 {
		t.Errorf("a client that insists on TLS was told %v", codes)
	}
	if box, err := server.WaitMailbox(ctx, 2); err != nil || len(box) != 2 {
		t.Errorf("%d messages arrived: %v", len(box), err)
	}
	attempts, err := m.WaitDeliveries(ctx, func(all []Delivery) bool { return len(With(all, "postfix@tls4.opensmtpd.example", "")) > 0 })
	if err != nil || attempts[0].Status != Sent {
		t.Errorf("Postfix: %v, %v", attempts, err)
	}
}

// TestPipelinedChunks speaks as large senders do: sender, recipients and all chunks in one write, the next message behind
// it, QUIT and the end of the stream last. Every reply comes, in order, and both messages arrive.
func TestPipelinedChunks(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	startGateway(t, l, "")
	for _, server := range []string{"198.51.100.20:25", "198.51.100.64:25"} {
		name, domain := "sink", "sink.example"
		if strings.HasSuffix(server, ".64:25") {
			name, domain = "aiosmtpd", "aiosmtpd.example"
			if _, err := l.MX(ctx, name); err != nil {
				t.Fatal(err)
			}
		}
		x, err := l.SMTP(ctx, "mallory", "", server)
		if err != nil {
			t.Fatal(err)
		}
		if r, err := x.Cmd("EHLO mail.mallory.example"); err != nil || !strings.Contains(r.Raw, "CHUNKING") {
			t.Fatalf("%s: %v, %v", server, r, err)
		}
		var out bytes.Buffer
		body := strings.Repeat("0123456789 .\r\n.\r\n", 4096)
		for n := range 2 {
			fmt.Fprintf(&out, "MAIL FROM:<a@mallory.example> BODY=8BITMIME SIZE=%d\r\nRCPT TO:<ok%d@%s>\r\nRCPT TO:<reject@%s>\r\n", len(body)+30, n, domain, domain)
			fmt.Fprintf(&out, "BDAT 15\r\nSubject: %d\r\n\r\nBDAT %d LAST\r\n%s", n+10, len(body), body)
		}
		out.WriteString("QUIT\r\n")
		if _, err := x.Write(out.Bytes()); err != nil {
			t.Fatal(err)
		}
		if err := x.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		for i, want := range []int{250, 250, 550, 250, 250, 250, 250, 550, 250, 250, 221} {
			if r, err := x.Reply(); err != nil || r.Code != want {
				t.Fatalf("%s: reply %d is %v, %v, not %d", server, i, r, err, want)
			}
		}
		if err := x.Close(); err != nil {
			t.Error(err)
		}
		var got [][]byte
		if name == "sink" {
			messages, err := l.Sink(name).Wait(ctx, 2)
			if err != nil {
				t.Fatal(err)
			}
			got = [][]byte{messages[0].Data, messages[1].Data}
		} else if got, err = fromAiosmtpd(l)(ctx, 2); err != nil {
			t.Fatal(err)
		}
		for i, data := range got {
			if err := sameBelowTrace(data, fmt.Appendf(nil, "Subject: %d\r\n\r\n%s", i+10, body)); err != nil {
				t.Errorf("%s: %v", server, err)
			}
		}
	}
}

// TestClientEndsItsSideBehindTheDot: a program that has nothing more to say ends its side of the connection instead of
// QUIT, and listens; it hears the answer, as it would without a gateway, and the message is there once.
func TestClientEndsItsSideBehindTheDot(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	startGateway(t, l, "")
	for i, to := range []string{"198.51.100.20:25", "[2001:db8:100::20]:25"} {
		x, err := l.Hello(ctx, "mallory", "", to)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range []string{"MAIL FROM:<a@mallory.example>", "RCPT TO:<u@sink.example>", "DATA"} {
			if r, err := x.Cmd(line); err != nil || r.Code >= 400 {
				t.Fatalf("%s: %v %v", line, r, err)
			}
		}
		if _, err := fmt.Fprintf(x, "Subject: the last word %d\r\n\r\nx\r\n.\r\n", i); err != nil {
			t.Fatal(err)
		}
		if err := x.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if r, err := x.Reply(); err != nil || r.Code != 250 {
			t.Errorf("%s: %v %v", to, r, err)
		}
	}
	if all, err := l.Sink("sink").Wait(ctx, 2); err != nil || len(all) != 2 {
		t.Errorf("%d messages arrived: %v", len(all), err)
	}
}
