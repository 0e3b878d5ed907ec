package smtp

import "bytes"

const (
	firstMem = size16K  // most messages fit
	minRoom  = size4K   // grow rather than read less than this at once
	maxRead  = size256K // most bytes of one read
	window   = size256K // work buffer of a body beyond its memory
	// headroom is left before a body, for pending output and trace fields that leave with it: then all is one piece.
	headroom = 512
	// leastWindow is what a body gets that may take no memory; only this is not counted.
	leastWindow = size16K
)

// Where decoded bytes go.
const (
	toMemory = iota
	toSpill
	toNowhere
)

// filler is the work buffer of a body being filled: buf[from:w] is decoded, buf[p:e] is not. While
// everything fits into memory it is the body's memory itself, with the headroom before it.
type filler struct {
	buf     []byte
	from    int
	w, p, e int
	counted int // bytes of the window that Reserve knows of
	where   uint8
}

// room gives where to read the next bytes to.
func (b *Body) room() []byte {
	f := &b.f
	if f.where == toMemory && len(f.buf)-f.e < minRoom {
		b.grow(f.e + minRoom)
	}
	if f.where == toMemory {
		return f.buf[f.e:min(len(f.buf), f.e+maxRead)]
	}
	return f.buf[f.e : len(f.buf)/2] // the other half is for CRs to be inserted
}

// grow takes a larger buffer for at least need bytes, or turns to the spill.
func (b *Body) grow(need int) {
	f := &b.f
	want := max(firstMem, 4*len(f.buf))
	for want < need {
		want *= 4
	}
	if len(f.buf) > 0 && want > classFor(b.maxMem) || !b.reserve(want-len(f.buf)) {
		b.leaveMemory()
		return
	}
	n := getBuf(want)
	if f.buf == nil {
		*f = filler{buf: n, from: headroom, w: headroom, p: headroom, e: headroom}
		return
	}
	copy(n[f.from:], f.buf[f.from:f.w])
	raw := copy(n[f.w:], f.buf[f.p:f.e])
	putBuf(f.buf)
	f.buf, f.p, f.e = n, f.w, f.w+raw
}

// classFor rounds up to a size that grow makes.
func classFor(n int) int {
	c := firstMem
	for c < n {
		c *= 4
	}
	return c
}

func (b *Body) reserve(delta int) bool {
	if b.o.Reserve == nil {
		return true
	}
	if !b.o.Reserve(delta) {
		return false
	}
	b.reserved += delta
	return true
}

// giveBack tells Reserve that n bytes less are taken.
func (b *Body) giveBack(n int) {
	if n > 0 && b.o.Reserve != nil {
		b.o.Reserve(-n)
		b.reserved -= n
	}
}

// leaveMemory opens the spill; what is decoded so far stays in memory.
func (b *Body) leaveMemory() {
	f := &b.f
	raw := f.buf[f.p:f.e]
	size := leastWindow
	if b.reserve(window) {
		size, f.counted = window, window
	}
	n := getBuf(max(size, 2*len(raw)+minRoom))
	f.e = copy(n, raw)
	b.all, b.mem, f.buf = f.buf, f.buf[f.from:f.w], n
	f.from, f.w, f.p, f.where = 0, 0, 0, toSpill
	if b.o.OpenSpill == nil {
		b.refuse(ErrSpill)
		return
	}
	s, err := b.o.OpenSpill()
	if err != nil {
		b.spillErr = err
		b.refuse(ErrSpill)
		return
	}
	b.spill = s
}

// refuse remembers the first reason and from now on throws everything away.
func (b *Body) refuse(why *ProtocolError) {
	if b.err == nil {
		b.err = why
	}
	b.dec.drop = true
	if b.f.where == toMemory {
		b.leaveForNowhere()
	}
	b.f.where = toNowhere
}

// leaveForNowhere gives a large memory back at once; the rest needs a small window only.
func (b *Body) leaveForNowhere() {
	f := &b.f
	raw := f.buf[f.p:f.e]
	n := getBuf(max(size64K, 2*len(raw)+minRoom))
	f.e = copy(n, raw)
	if f.buf != nil {
		putBuf(f.buf)
	}
	f.buf, f.from, f.w, f.p = n, 0, 0, 0
}

// took tells that n bytes were read into room, and decodes them.
func (b *Body) took(n int) {
	f := &b.f
	f.e += n
	start := b.dec.pos
	for gap := true; gap; {
		f.w, f.p, gap = b.dec.run(f.buf, f.w, f.p, f.e)
		if gap {
			b.makeGap()
		}
	}
	if b.dec.drop {
		b.dropped += b.dec.pos - start
	}
	b.judge()
	if f.where != toMemory {
		b.moveOut()
	}
	if b.o.Arrived != nil && b.dec.pos >= b.o.From && f.where != toNowhere {
		b.o.Arrived(b)
	}
}

// makeGap moves the bytes not yet decoded up, once for all bare LFs among them.
func (b *Body) makeGap() {
	f := &b.f
	n := bytes.Count(f.buf[f.p:f.e], lfByte)
	if f.e+n > len(f.buf) && f.where == toMemory {
		b.grow(f.e + n)
	}
	copy(f.buf[f.p+n:], f.buf[f.p:f.e])
	f.p += n
	f.e += n
}

var lfByte = []byte{'\n'}

// judge refuses the body for what the decoder found.
func (b *Body) judge() {
	d := &b.dec
	switch {
	case d.drop:
	case b.o.MaxSize > 0 && d.pos > b.o.MaxSize:
		b.refuse(ErrTooLarge)
	case d.nul && !d.binary:
		b.refuse(ErrNUL)
	case d.bareCR && !d.binary:
		b.refuse(ErrBareCR)
	case d.bareLF && b.o.RefuseBareLF && !d.binary:
		b.refuse(ErrBareLF)
	case b.o.MaxLine > 0 && d.longest > int64(b.o.MaxLine):
		b.refuse(ErrBodyLine)
	}
}

// moveOut empties the window to the spill and keeps what is not decoded at its start.
func (b *Body) moveOut() {
	f := &b.f
	if f.where == toSpill && f.w > 0 {
		if _, err := b.spill.Write(f.buf[:f.w]); err != nil {
			b.spillErr = err
			b.refuse(ErrSpill)
		}
	}
	if !b.dec.done {
		f.e = copy(f.buf, f.buf[f.p:f.e])
		f.p = 0
	}
	f.w = 0
}

// tooMuch tells that a refused body goes on past the bound.
func (b *Body) tooMuch() bool { return b.o.MaxDiscard > 0 && b.dropped > b.o.MaxDiscard }

// close ends the filling: what is in memory becomes Bytes, with the final dot behind it if there is room.
func (b *Body) close() error {
	f := &b.f
	b.size = b.dec.pos
	if f.where == toMemory {
		b.all, b.mem = f.buf, f.buf[f.from:f.w]
		b.term = terminate(b.mem)
	} else if f.buf != nil {
		putBuf(f.buf)
	}
	b.giveBack(f.counted)
	b.f = filler{}
	return b.refusal()
}

// terminate puts the end of data behind mem, within its capacity, and gives its length; 0 if
// there is no room. Done once here, it saves each sending a copy or a slice more.
func terminate(mem []byte) int {
	end := endOf(mem)
	if cap(mem)-len(mem) < len(end) {
		return 0
	}
	return copy(mem[len(mem):cap(mem)], end)
}

// endOf gives what follows a body whose last bytes are tail, to end the data.
func endOf(tail []byte) string {
	if len(tail) == 0 || tail[len(tail)-1] == '\n' {
		return ".\r\n"
	}
	return "\r\n.\r\n"
}

// Append adds bytes from elsewhere than a Conn (a file, a message of ours), which need not end
// with a whole line. It gives the body's refusal, if any, as ReadData would.
func (b *Body) Append(p []byte) error {
	for len(p) > 0 {
		n := copy(b.room(), p)
		p = p[n:]
		b.took(n)
	}
	return b.refusal()
}

// Finish closes a body that was filled by Append or ReadChunk. After an error the body is still
// to be released.
func (b *Body) Finish() error {
	f := &b.f
	if f.p < f.e {
		f.w = b.dec.finish(f.buf, f.w, f.p, f.e)
		f.p = f.e
		b.judge()
		if f.where != toMemory {
			b.moveOut()
		}
	}
	return b.close()
}
