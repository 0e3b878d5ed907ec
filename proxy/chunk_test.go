package proxy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// bdat is the command with its chunk behind it.
func bdat(chunk string, last bool) string {
	if last {
		return fmt.Sprintf("BDAT %d LAST\r\n%s", len(chunk), chunk)
	}
	return fmt.Sprintf("BDAT %d\r\n%s", len(chunk), chunk)
}

// TestChunksBecomeData: whatever the destination can do, a message in chunks arrives as the same bytes, its dots stuffed.
func TestChunksBecomeData(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, func(r *remote) { r.ehlo = []string{"PIPELINING"} })
	r := newRig(t, mx.addr())
	p := r.hello()
	for _, chunks := range [][]string{
		{goodMail},
		{goodMail[:40], goodMail[40:41], goodMail[41:]},
		{"Subject: dots\r\n\r\n.\r\n..\r\nQUIT\r\n", ""},
		{"Subject: no end of line\r\n\r\nx"},
		{"Subject: a CR at the end of a chunk\r", "\n\r\nx\r", "\n"},
	} {
		p.envelope()
		for i, c := range chunks {
			if last := i == len(chunks)-1; last {
				p.write(bdat(c, true))
				p.want("250 2.0.0 queued as X1")
			} else {
				p.write(bdat(c, false))
				p.want(fmt.Sprintf("250 2.0.0 gw.example: %d bytes noted", len(c)))
			}
		}
		all := mx.messages()
		got, want := all[len(all)-1], strings.Join(chunks, "")
		_, got, _ = strings.Cut(got, "\r\n\t") // behind the first lines of our own field
		want = strings.ReplaceAll("\r\n"+want, "\r\n.", "\r\n..")[2:]
		if !strings.HasSuffix(want, "\r\n") {
			want += "\r\n"
		}
		if !strings.HasSuffix(got, "\r\n"+want) {
			t.Errorf("chunks %q arrived as %q", chunks, got)
		}
	}
	if rec := r.log.wait(t, 5)[1]; rec.Status != Delivered || rec.Size != int64(len(goodMail)) {
		t.Errorf("record %+v", rec)
	}
}

// TestChunksPipelined: envelope and chunks in one packet, several messages behind each other.
func TestChunksPipelined(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	p := newRig(t, mx.addr(), steps(spamStep())).hello()
	const env = "MAIL FROM:<a@client.example>\r\nRCPT TO:<b@sink.example>\r\n"
	p.write(env + bdat(goodMail, false) + bdat("more\r\n", true) + env + bdat(spamMail, true) + env + bdat(goodMail, true) + "QUIT\r\n")
	for _, want := range []string{
		"250", "250", "250 2.0.0 gw.example: ", "250 2.0.0 queued", "250", "250", "550 5.7.1 gw.example: [WORD]", "250", "250", "250 2.0.0 queued", "221",
	} {
		p.want(want)
	}
	if n := len(mx.messages()); n != 2 {
		t.Errorf("%d messages arrived, want 2", n)
	}
}

// TestChunksAreNeverCommands: in whatever state a chunk comes, its bytes are not obeyed.
func TestChunksAreNeverCommands(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, reply("RCPT", "550 5.1.1 nobody", "250 ok"))
	const evil = "MAIL FROM:<evil@client.example>\r\n"
	r := newRig(t, mx.addr())
	p := r.dial()
	p.write(bdat(evil, true))
	p.want("503 5.5.1 gw.example: say EHLO first")
	p.cmd("EHLO client.example", "250")
	p.write(bdat(evil, false))
	p.want("503 5.5.1 gw.example: say MAIL first")
	p.cmd("MAIL FROM:<a@client.example>", "250")
	p.write(bdat(evil, true))
	p.want("503 5.5.1 gw.example: say RCPT first")
	p.cmd("RCPT TO:<b@sink.example>", "550 5.1.1 nobody")
	p.write(bdat(evil, true))
	p.want("554 5.5.1 gw.example: no valid recipients")
	p.cmd("RCPT TO:<b@sink.example>", "250")
	p.write(bdat(evil, false))
	p.want("250")
	p.cmd("RCPT TO:<c@sink.example>", "503 5.5.1 gw.example: the message is coming in chunks")
	p.cmd("DATA", "503 5.5.1 gw.example: the message is coming in chunks")
	p.cmd("NOOP", "250")
	p.cmd("RSET", "250")
	p.write(bdat(evil, true))
	p.want("503 5.5.1 gw.example: say MAIL first")
	p.write("BDAT x\r\n" + evil)
	p.want("501 5.5.4")
	p.closed()
	if n := len(mx.messages()); n != 0 {
		t.Errorf("%d messages arrived", n)
	}
}

// TestBadChunks: what no message may hold or be is refused, and the session goes on.
func TestBadChunks(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr(), func(r *rig) { r.cfg.Settings.MaxSize = 100_000 })
	p := r.hello()
	for _, c := range []struct{ chunk, want string }{
		{"Subject: x\r\n\r\na\rb\r\n", "550 5.6.0"}, {"Subject: x\r\n\r\n\x00\r\n", "550 5.6.0"},
		{strings.Repeat("0123456789abcdef\r\n", 10_000), "552 5.3.4"},
	} {
		p.envelope()
		p.write(bdat(c.chunk, false) + bdat("x\r\n", true))
		p.want(c.want)
		p.want("503") // what follows a refused chunk belongs to no message
	}
	p.envelope()
	p.send(goodMail, "250")
	p.cmd("QUIT", "221")
	p = r.hello()
	p.write("BDAT 99999999999999999999 LAST\r\nx")
	p.want("503")
	p.want("552 5.3.4")
	p.closed()
	p = r.hello()
	p.envelope()
	p.write("BDAT 50 LAST\r\nhalf of it")
	p.nc.Close()
	if rec := r.log.wait(t, 6)[5]; rec.Status != Lost {
		t.Errorf("half a chunk is recorded as %+v", rec)
	}
	if n := len(mx.messages()); n != 1 {
		t.Errorf("%d messages arrived, want 1", n)
	}
}

// TestBinaryMIME: a binary message goes on as one chunk, byte for byte, where the destination takes it, and by no other
// way.
func TestBinaryMIME(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, func(r *remote) { r.ehlo = []string{"PIPELINING", "CHUNKING", "BINARYMIME"} })
	r := newRig(t, mx.addr())
	p := r.hello()
	const body = "Content-Transfer-Encoding: binary\r\n\r\n\x00\r\n.\r\n\n\r\xff"
	for _, b := range []string{body, goodMail} {
		p.cmd("MAIL FROM:<a@client.example> BODY=BINARYMIME", "250")
		p.cmd("RCPT TO:<b@sink.example>", "250")
		p.cmd("DATA", "503 5.5.1 gw.example: a binary message comes by BDAT")
		p.write(bdat(b[:20], false) + bdat(b[20:], true))
		p.want("250")
		p.want("250 2.0.0 ok BDAT")
		all := mx.messages()
		if got := all[len(all)-1]; !strings.HasPrefix(got, "Received: ") || !strings.HasSuffix(got, b) {
			t.Errorf("%q arrived as %q", b, got)
		}
	}
	if said := mx.commands(); slices.ContainsFunc(said, func(s string) bool { return strings.HasSuffix(s, "DATA") }) {
		t.Errorf("the destination heard %q", said)
	}
	mx = newRemote(t)
	p = newRig(t, mx.addr()).hello()
	p.cmd("MAIL FROM:<a@client.example> BODY=BINARYMIME", "555 5.5.4")
}
