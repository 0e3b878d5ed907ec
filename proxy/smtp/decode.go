package smtp

import (
	"bytes"
	"encoding/binary"
	"math"
)

// What the next byte begins.
const (
	inLine    = iota
	afterCRLF // a line, after CRLF or at the start: only here a lone dot ends the data
	afterLF   // a line after a bare LF, where it never does
)

// decoder turns the bytes of DATA or BDAT into canonical lines, in place.
//
// The end of data is CRLF "." CRLF and nothing else (RFC 5321 4.1.1.4), the CRLF of the DATA
// command counting as the first. A bare LF ends a line like CRLF does, so a doubled dot behind
// it is undone, but "." between line ends of which one is a bare LF is a line of text. Since
// the body is stored with CRLF and stuffed anew when it is sent, no other server can see an end
// that was not seen here.
type decoder struct {
	dots   bool // dot stream; else a plain one
	binary bool // let NUL, bare CR and bare LF pass
	drop   bool // keep nothing: only the end is looked for
	done   bool // the end has been seen
	at     uint8

	pos     int64 // bytes given out
	line    int64 // of these, in the line not yet ended
	longest int64
	header  int64 // length of header and empty line; -1: no empty line yet
	lines   int
	ndots   int
	spots   [mostSpots]uint32 // where the first of these lines begin
	nspots  int

	has8, nul, bareCR, bareLF bool
}

// mostSpots is of how many lines that begin with a dot the place is known.
const mostSpots = 16

// dotted notes a line of text that begins with a dot.
func (d *decoder) dotted() {
	if d.ndots++; d.nspots < mostSpots && d.pos <= math.MaxUint32 {
		d.spots[d.nspots] = uint32(d.pos)
		d.nspots++
	}
}

func (d *decoder) reset(dots, binary bool) {
	*d = decoder{dots: dots, binary: binary, at: afterCRLF, header: -1}
}

// run decodes buf[p:e] to buf[w:], w ≤ p. It gives the new w and p; up to 2 bytes stay before e
// if what they mean depends on what follows. gap asks for room: a CR is to be inserted and w has reached
// p. The caller moves buf[p:e] up and calls again.
func (d *decoder) run(buf []byte, w, p, e int) (_, _ int, gap bool) {
	from, ends := w, 0
	for p < e && !d.done {
		if d.at != inLine && !d.drop {
			next, n := d.usual(buf, p, e)
			if w < p {
				copy(buf[w:], buf[p:next])
			}
			w, p, ends = w+next-p, next, ends+n
			if p == e {
				break
			}
		}
		if d.at != inLine && buf[p] == '.' {
			n, wait := d.lineDot(buf[p:e])
			p += n
			if wait || d.done {
				break
			}
		}
		seg := buf[p:e]
		i := bytes.IndexByte(seg, '\n')
		if i < 0 {
			w, p = d.partial(buf, w, p, e)
			break
		}
		d.at = inLine
		n := i // text before the line end
		crlf := i > 0 && seg[i-1] == '\r'
		if crlf {
			n--
		}
		if !crlf && !d.binary && !d.drop && w == p {
			gap = true
			break
		}
		w = d.text(buf, w, seg[:n])
		w = d.lineEnd(buf, w, crlf)
		p += i + 1
		if crlf || !d.binary {
			ends++
		}
	}
	if !d.drop {
		d.inspect(buf[from:w], ends)
	}
	return w, p, gap
}

// usual gives out those lines at the start of buf[p:e] that may stay as they are: they end in CRLF and do not begin with
// a dot. It gives where the next begins, and their number.
func (d *decoder) usual(buf []byte, p, e int) (next, lines int) {
	before, longest := d.pos-int64(p), int(d.longest)
	for p < e && buf[p] != '.' {
		i := bytes.IndexByte(buf[p:e], '\n')
		if i < 1 || buf[p+i-1] != '\r' {
			break
		}
		p += i + 1
		lines++
		if i--; i > longest {
			longest = i
		} else if i == 0 && d.header < 0 {
			d.header = before + int64(p)
		}
	}
	if lines > 0 {
		d.at = afterCRLF
	}
	d.pos, d.longest, d.lines = before+int64(p), int64(longest), d.lines+lines
	return p, lines
}

// lineDot looks at a line that begins with a dot: it gives how many bytes to leave out, or that more
// must be read to tell.
func (d *decoder) lineDot(s []byte) (skip int, wait bool) {
	if !d.dots {
		d.dotted()
		d.at = inLine
		return 0, false
	}
	if len(s) == 1 || (len(s) == 2 && s[1] == '\r') {
		return 0, true
	}
	lone := s[1] == '\n'
	if s[1] == '\r' && s[2] == '\n' {
		if d.at == afterCRLF {
			d.done = true
			return 3, false
		}
		lone = true
	}
	d.at = inLine
	if lone { // not the end, so a line of text, dot and all
		d.dotted()
		return 0, false
	}
	if s[1] == '.' {
		d.dotted()
	}
	return 1, false
}

// partial gives out a line's start, of which the end is not there yet.
func (d *decoder) partial(buf []byte, w, p, e int) (int, int) {
	d.at = inLine
	if buf[e-1] == '\r' {
		e-- // CRLF or a bare CR: the next byte tells
	}
	return d.text(buf, w, buf[p:e]), e
}

// text gives out a part of a line.
func (d *decoder) text(buf []byte, w int, s []byte) int {
	d.line += int64(len(s))
	d.pos += int64(len(s))
	if d.line > d.longest {
		d.longest = d.line
	}
	if d.drop || len(s) == 0 {
		return w
	}
	if &buf[w] != &s[0] {
		copy(buf[w:], s)
	}
	return w + len(s)
}

// lineEnd gives out a line end: CRLF, or in binary bodies what was there.
func (d *decoder) lineEnd(buf []byte, w int, crlf bool) int {
	d.at = afterCRLF
	if !crlf {
		d.at, d.bareLF = afterLF, true
	}
	n := 2
	if !crlf && d.binary {
		n = 1
	}
	d.lines++
	d.pos += int64(n)
	if d.header < 0 && d.line == 0 {
		d.header = d.pos
	}
	d.line = 0
	if d.drop {
		return w
	}
	if n == 2 {
		buf[w] = '\r'
	}
	buf[w+n-1] = '\n'
	return w + n
}

// finish ends a plain stream: what is left is a CR without LF.
func (d *decoder) finish(buf []byte, w, p, e int) int {
	if p == e {
		return w
	}
	d.bareCR = true
	return d.text(buf, w, buf[p:e])
}

// inspect looks for what a body should not hold, in few fast passes over what was given out;
// ends is the number of CRs in it that belong to line ends.
func (d *decoder) inspect(out []byte, ends int) {
	if bytes.Count(out, crByte) != ends {
		d.bareCR = true
	}
	if bytes.IndexByte(out, 0) >= 0 {
		d.nul = true
	}
	if !d.has8 {
		d.has8 = has8Bit(out)
	}
}

var crByte = []byte{'\r'}

// has8Bit tells whether b holds a byte above 127.
func has8Bit(b []byte) bool {
	const high = 0x8080808080808080
	for len(b) >= 32 {
		w := binary.LittleEndian.Uint64(b) | binary.LittleEndian.Uint64(b[8:]) |
			binary.LittleEndian.Uint64(b[16:]) | binary.LittleEndian.Uint64(b[24:])
		if w&high != 0 {
			return true
		}
		b = b[32:]
	}
	for _, c := range b {
		if c >= 0x80 {
			return true
		}
	}
	return false
}
