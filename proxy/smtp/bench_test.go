package smtp

import (
	"bytes"
	"io"
	"strings"
	"testing"
)

// message10K is a message of 10 KiB with lines of usual length.
func message10K() []byte {
	head := "From: <a@example.org>\r\nTo: <b@example.com>\r\nSubject: bench\r\n\r\n"
	line := strings.Repeat("abcdefgh ", 8) + "end\r\n"
	return []byte((head + strings.Repeat(line, 200))[:10<<10-2] + "\r\n")
}

// replayConn gives the same bytes again and again, one whole message for each read.
type replayConn struct {
	scriptConn
	msg []byte
}

func (r *replayConn) Read(p []byte) (int, error) { return copy(p, r.msg), nil }

func BenchmarkReadCommand(b *testing.B) {
	c := NewConn(&replayConn{msg: []byte("MAIL FROM:<someone@example.org> SIZE=10240 BODY=8BITMIME\r\n")}, Options{})
	b.ReportAllocs()
	for b.Loop() {
		cmd, err := c.ReadCommand()
		if err != nil || cmd.Verb != MAIL {
			b.Fatal(cmd, err)
		}
	}
}

func BenchmarkParseMail(b *testing.B) {
	arg := "FROM:<someone@example.org> SIZE=10240 BODY=8BITMIME"
	b.ReportAllocs()
	for b.Loop() {
		if m, err := ParseMail(arg); err != nil || m.Size != 10240 {
			b.Fatal(m, err)
		}
	}
}

func BenchmarkReadReply(b *testing.B) {
	c := NewConn(&replayConn{msg: []byte("250 2.1.5 Recipient <someone@example.org> OK\r\n")}, Options{})
	var r Reply
	b.ReportAllocs()
	for b.Loop() {
		if err := c.ReadReply(&r); err != nil || r.Code != 250 {
			b.Fatal(r, err)
		}
	}
}

func BenchmarkWriteReply(b *testing.B) {
	c := NewConn(&scriptConn{discard: true}, Options{})
	b.ReportAllocs()
	for b.Loop() {
		c.WriteReply(250, Enhanced{2, 1, 5}, "Recipient OK")
		if err := c.Flush(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadData10K(b *testing.B) {
	c := NewConn(&replayConn{msg: append(message10K(), ".\r\n"...)}, Options{})
	var body Body
	b.SetBytes(10 << 10)
	b.ReportAllocs()
	for b.Loop() {
		if err := c.ReadDataInto(&body, nil); err != nil || body.Size() != 10<<10 {
			b.Fatal(body.Size(), err)
		}
		body.Release()
	}
}

// dotted10K is the same with a doubled dot before every 13th line.
func dotted10K() []byte {
	lines := bytes.SplitAfter(message10K(), []byte("\r\n"))
	for i := range lines {
		if i%13 == 12 {
			lines[i] = append([]byte(".."), lines[i]...)
		}
	}
	return bytes.Join(lines, nil)
}

// BenchmarkReadDataSomeDots has some lines unstuffed, and all behind the first of them moved.
func BenchmarkReadDataSomeDots(b *testing.B) { benchRead(b, dotted10K()) }

// BenchmarkReadDataDots is the worst case of unstuffing: every line is a doubled dot.
func BenchmarkReadDataDots(b *testing.B) {
	benchRead(b, bytes.Repeat([]byte("..\r\n"), 2500))
}

// BenchmarkReadDataBareLF is the worst case of normalising: nothing but bare line feeds.
func BenchmarkReadDataBareLF(b *testing.B) {
	benchRead(b, append(bytes.Repeat([]byte("\n"), 10_000), "\r\n"...))
}

func benchRead(b *testing.B, msg []byte) {
	c := NewConn(&replayConn{msg: append(msg, ".\r\n"...)}, Options{})
	var body Body
	b.SetBytes(int64(len(msg)))
	b.ReportAllocs()
	for b.Loop() {
		if err := c.ReadDataInto(&body, nil); err != nil {
			b.Fatal(err)
		}
		body.Release()
	}
}

func BenchmarkWriteData10K(b *testing.B) {
	benchWrite(b, NewConn(&scriptConn{discard: true}, Options{}), message10K())
}

// BenchmarkWriteData10KTCP has the system call and the reading peer in it.
func BenchmarkWriteData10KTCP(b *testing.B) {
	from, to := tcpPair(b)
	go io.Copy(io.Discard, to)
	benchWrite(b, NewConn(from, Options{}), message10K())
}

// BenchmarkWriteDataSomeDots has the system call in it, and what the peer's side does meanwhile.
func BenchmarkWriteDataSomeDots(b *testing.B) {
	from, to := tcpPair(b)
	c, _ := script(string(dotted10K()), ".\r\n")
	body, err := c.ReadData(nil)
	if err != nil {
		b.Fatal(err)
	}
	defer body.Release()
	out, prefix := NewConn(from, Options{}), bytes.Repeat([]byte("Received: from x by y; Sat, 21 Nov 2026\r\n"), 7)
	got := make([]byte, len(prefix)+len(dotted10K())+len(".\r\n"))
	b.SetBytes(int64(len(got)))
	b.ReportAllocs()
	for b.Loop() {
		if err := out.WriteData(prefix, body); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(to, got); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWriteDataDots(b *testing.B) {
	benchWrite(b, NewConn(&scriptConn{discard: true}, Options{}), bytes.Repeat([]byte(".\r\n"), 3400))
}

func benchWrite(b *testing.B, c *Conn, msg []byte) {
	body, err := BodyFromBytes(msg)
	if err != nil {
		b.Fatal(err)
	}
	defer body.Release()
	prefix := []byte("Received: from x by y; Sat, 21 Nov 2026 00:00:00 +0000\r\n")
	b.SetBytes(int64(len(msg)))
	b.ReportAllocs()
	for b.Loop() {
		if err := c.WriteData(prefix, body); err != nil {
			b.Fatal(err)
		}
	}
}
