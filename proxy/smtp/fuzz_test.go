package smtp

import (
	"bytes"
	"io"
	"strings"
	"testing"
)

// pieces cuts data into chunks whose lengths vary with seed, so that states are cut at every byte.
func pieces(data []byte, seed uint64) []string {
	var out []string
	for len(data) > 0 {
		seed = seed*6364136223846793005 + 1442695040888963407
		n := int(seed>>33)%(1<<(seed>>60)) + 1
		n = min(n, len(data))
		out = append(out, string(data[:n]))
		data = data[n:]
	}
	return out
}

// FuzzCommand compares with a line splitter, and checks that what is parsed can be sent onward safely.
func FuzzCommand(f *testing.F) {
	for _, s := range []string{
		"EHLO a\r\nMAIL FROM:<a@b> SIZE=5\r\nRCPT TO:<\"x y\"@[192.0.2.1]> NOTIFY=NEVER\r\nDATA\r\n",
		"MAIL FROM:<@r:a@b>\nRCPT TO:<é@x>\r\nBDAT 5 LAST\r\nQUIT\r\n", "NOOP\r\r\nA\x00B\r\n\r\n\n",
		strings.Repeat("x", 600) + "\r\nMAIL " + strings.Repeat("y", 2100) + "\r\nRSET\r\n",
	} {
		f.Add([]byte(s), uint64(1))
	}
	f.Fuzz(func(t *testing.T, data []byte, seed uint64) {
		c, _ := script(pieces(data, seed)...)
		rest := data
		for {
			cmd, err := c.ReadCommand()
			i := bytes.IndexByte(rest, '\n')
			if i < 0 {
				if err != io.EOF {
					t.Fatalf("%v behind the last line", err)
				}
				return
			}
			line := rest[:i]
			rest = rest[i+1:]
			text := bytes.TrimSuffix(line, []byte("\r"))
			switch {
			case len(line)+1 > lineLimit(line):
				if err != ErrLineTooLong {
					t.Fatalf("%v for a line of %d", err, len(line))
				}
			case bytes.ContainsAny(text, "\r\x00"):
				if err != ErrCommandBytes {
					t.Fatalf("%v for %q", err, line)
				}
			case err != nil || !bytes.Equal(cmd.Line, text):
				t.Fatalf("%q, %v for %q", cmd.Line, err, line)
			default:
				checkOnward(t, cmd)
			}
		}
	})
}

// checkOnward parses a command's argument in every way and sends what is accepted onward: it must be
// one line that means the same.
func checkOnward(t *testing.T, cmd Command) {
	ParseHello(string(cmd.Arg))
	ParseBDAT(string(cmd.Arg))
	if r, err := ParseRcpt(string(cmd.Arg)); err == nil {
		c, s := script()
		if err := c.WriteCommand("RCPT TO:<", r.Address, ">", r.Params.Wire()); err != nil {
			t.Fatalf("%q cannot be sent onward: %v", cmd.Arg, err)
		}
		c.Flush()
		back, err := ParseRcpt(strings.TrimSuffix(strings.TrimPrefix(s.out.String(), "RCPT "), "\r\n"))
		if err != nil || back.Address != r.Address || back.Params != r.Params || back.Notify != r.Notify || back.ORcpt != r.ORcpt {
			t.Fatalf("%q went onward as %q: %v", cmd.Arg, s.out.String(), err)
		}
	}
	if m, err := ParseMail(string(cmd.Arg)); err == nil {
		back, err := ParseMail("FROM:<" + m.Address + ">" + m.Params.Wire())
		if m.Raw = back.Raw; err != nil || m.Lax && !back.Lax && m.Address == "" {
			t.Fatalf("%q: %v", cmd.Arg, err)
		}
		m.Lax = back.Lax // without brackets it was lax
		if back != m {
			t.Fatalf("%q: %+v is read back as %+v", cmd.Arg, m, back)
		}
		m.Params.Without("SIZE", "AUTH")
	}
}

func FuzzParsePath(f *testing.F) {
	for _, s := range []string{"<a@b>", "<>", "<postmaster>", `<"a\"b>"@x>`, "<@a,@b:c@d> X=y", "a@b c", "<a@[IPv6:::1]>", "<a@[x:y]>", "<é@ü>"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, rest, ok := parsePath(s)
		if !ok {
			return
		}
		if p.Raw+rest != s || !strings.Contains(p.Raw, p.Address) || p.Null() != (p.Raw == "<>") {
			t.Fatalf("%q: %+v, rest %q", s, p, rest)
		}
		for i := range len(p.Raw) {
			if b := p.Raw[i]; b < ' ' || b == 0x7F {
				t.Fatalf("%q is accepted with a control character", s)
			}
		}
		again, rest, ok := parsePath("<" + p.Address + "> NEXT")
		if !ok || again.Address != p.Address || again.Local != p.Local || again.Domain != p.Domain || rest != " NEXT" {
			t.Fatalf("%q: address %q is read back as %+v, rest %q", s, p.Address, again, rest)
		}
		if strings.HasPrefix(s, "<") && again.Lax != p.Lax {
			t.Fatalf("%q: lax %v, then %v", s, p.Lax, again.Lax)
		}
		p.LocalPart()
	})
}

// FuzzReply: what is accepted is canonical and means the same when it is passed on.
func FuzzReply(f *testing.F) {
	for _, s := range []string{"250 OK\r\n", "250-a\r\n250 b\r\n", "220\r\n", "550-5.1.1 a\n550 5.1.1 b\n", "250-a\r\n251 b\r\n", "250-SIZE 5\r\n250-AUTH A B\r\n250 LIMITS RCPTMAX=5\r\n"} {
		f.Add([]byte(s), uint64(3))
	}
	f.Fuzz(func(t *testing.T, data []byte, seed uint64) {
		c, _ := script(pieces(data, seed)...)
		var r, back Reply
		if err := c.ReadReply(&r); err != nil {
			return
		}
		client, _ := script(string(r.Raw))
		if err := client.ReadReply(&back); err != nil || !bytes.Equal(r.Raw, back.Raw) || back.Code != r.Code || back.Enh != r.Enh {
			t.Fatalf("%q is passed on as %q: %v", data, r.Raw, err)
		}
		if client.Buffered() > 0 {
			t.Fatalf("%q is more than one reply", r.Raw)
		}
		taken := len(data) - int(c.BytesIn()) + c.Buffered() // not read from the script, or not used
		if used := data[:len(data)-taken]; !bytes.Equal(bytes.ReplaceAll(used, []byte("\r\n"), []byte("\n")), bytes.ReplaceAll(r.Raw, []byte("\r\n"), []byte("\n"))) {
			t.Fatalf("%q was read from %q", r.Raw, used)
		}
		e := ParseExtensions(&r)
		both := e.Intersect(&Extensions{Set: ^ExtSet(0), Size: 10})
		wire := both.AppendReply(nil, "gw")
		if offer, _ := script(string(wire)); offer.ReadReply(&back) != nil || offer.Buffered() > 0 {
			t.Fatalf("offer %q is no reply", wire)
		}
		r.Text()
	})
}

// FuzzData compares with the slow decoder: the same bytes, the same end, the same verdict, whatever
// the pieces and wherever the body is kept; and what is sent onward ends only at its end.
func FuzzData(f *testing.F) {
	for _, s := range []string{
		"a\r\n.\r\nNEXT", "..\r\n.a\r\n...\r\n.\r\n", "a\n.\nb\r\n.\n\r\n.\r\n", "a\r.\r\n\x00\r\n.\r\nX", ".\r\n", "\r\n.\r\r\n.\r\n",
		"a\n.\r\nb\n\r\n.\r\n", strings.Repeat(".\n..\r\n", 900) + "\r\n.\r\n",
	} {
		f.Add([]byte(s), uint64(7), byte(0))
		f.Add([]byte(s), uint64(0), byte(5))
	}
	spill := func() (Spill, error) { return &memSpill{}, nil }
	f.Fuzz(func(t *testing.T, data []byte, seed uint64, flags byte) {
		if times := int(flags>>4) * 40; times > 0 { // large ones too, to pass the bounds of memory
			data = bytes.Repeat(data, min(times, 1+200_000/(len(data)+1)))
		}
		want, end, nul, bareCR, bareLF := refDecode(string(data))
		o := &DataOptions{RefuseBareLF: flags&1 != 0, OpenSpill: spill}
		if flags&2 != 0 {
			o.MaxMemory = 1
		}
		if flags&4 != 0 {
			o.Reserve = func(d int) bool { return d < 0 }
		}
		if flags&8 != 0 {
			o.MaxSize = 100
		}
		c, s := script(pieces(data, seed)...)
		b, err := c.ReadData(o)
		if end < 0 {
			if err != io.ErrUnexpectedEOF {
				t.Fatalf("no end in %q, but %v", data, err)
			}
			return
		}
		bad := nul || bareCR || bareLF && o.RefuseBareLF || o.MaxSize > 0 && len(want) > 100
		if (err != nil) != bad || err != nil && !Recoverable(err) {
			t.Fatalf("%.200q: %v; NUL %v CR %v LF %v size %d", data, err, nul, bareCR, bareLF, len(want))
		}
		rest := bytes.Join(append([][]byte{c.buf[c.r:c.w]}, s.chunks...), nil)
		if !bytes.Equal(rest, data[end:]) {
			t.Fatalf("%.200q: %q is left, want %q", data, rest, data[end:])
		}
		if err != nil {
			return
		}
		defer b.Release()
		if got := readAll(t, b); got != want {
			t.Fatalf("%.200q: body %q, want %q", data, got, want)
		}
		checkFacts(t, b, want, bareLF)
		onward(t, "fuzz", b)
		plain := NewBody(o)
		for _, p := range pieces([]byte(want), seed+1) {
			plain.Append([]byte(p))
		}
		if err := plain.Finish(); err != nil || readAll(t, plain) != want {
			t.Fatalf("%.200q: appended body differs: %v", data, err)
		}
		plain.Release()
	})
}

func checkFacts(t *testing.T, b *Body, want string, bareLF bool) {
	t.Helper()
	longest := 0
	for line := range strings.Lines(want) {
		longest = max(longest, len(line)-2)
	}
	head := strings.Index("\r\n"+want, "\r\n\r\n") + 2
	if head == 1 {
		head = len(want)
	}
	if b.Size() != int64(len(want)) || b.Lines() != strings.Count(want, "\n") || b.Dots() != strings.Count("\n"+want, "\n.") ||
		b.Has8Bit() != !isASCII(want) || b.HadBareLF() != bareLF || b.LongestLine() != int64(longest) || b.HeaderLen() != int64(head) {
		t.Fatalf("%.200q: size %d lines %d dots %d 8bit %v LF %v longest %d header %d, want header %d",
			want, b.Size(), b.Lines(), b.Dots(), b.Has8Bit(), b.HadBareLF(), b.LongestLine(), b.HeaderLen(), head)
	}
}

// memSpill is a spill in memory.
type memSpill struct{ bytes.Buffer }

func (m *memSpill) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(m.Bytes()).ReadAt(p, off)
}

func (m *memSpill) Close() error { return nil }
