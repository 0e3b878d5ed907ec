package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"sluice/intercept/ruleset"
)

// The numbers of linux/netfilter/nf_tables.h that package unix lacks, or has under other names.
const (
	setElemExpr    = 7  // NFTA_SET_ELEM_EXPR
	setElemExprs   = 17 // NFTA_SET_ELEM_EXPRESSIONS
	dataValue      = 1  // NFTA_DATA_VALUE
	dataVerdict    = 2  // NFTA_DATA_VERDICT
	verdictCode    = 1
	verdictChain   = 2
	verdictGoto    = 0xfffffffc // NFT_GOTO, -4
	verdictJump    = 0xfffffffd // NFT_JUMP, -3
	perMessage     = 500        // elements; the length of an attribute has 16 bits
	replyPatience  = 20 * time.Second
	nested         = unix.NLA_F_NESTED
	headerLength   = unix.SizeofNlMsghdr + 4
	attributeAlign = 4
)

// element is one element of a set, in the bytes of packets. It is comparable, so that what changed can be told.
type element struct {
	key   string
	last  string // of an interval: its last key; "" otherwise
	chain string // of a map: where its packets go
	jump  bool   // and come back when the chain decides nothing
	value string // of a map to values
	until time.Time
}

// batch is a transaction: all of it happens in one step, or nothing.
type batch struct {
	bytes []byte
	what  []string // by message
}

// message appends one and returns the place of its length.
func (b *batch) message(kind, flags uint16, family byte, what string) (start int) {
	start = len(b.bytes)
	b.bytes = binary.NativeEndian.AppendUint32(b.bytes, 0)
	b.bytes = binary.NativeEndian.AppendUint16(b.bytes, kind)
	b.bytes = binary.NativeEndian.AppendUint16(b.bytes, flags|unix.NLM_F_REQUEST)
	b.bytes = binary.NativeEndian.AppendUint32(b.bytes, uint32(len(b.what)))
	b.bytes = binary.NativeEndian.AppendUint32(b.bytes, 0)
	res := uint16(0)
	if kind == unix.NFNL_MSG_BATCH_BEGIN || kind == unix.NFNL_MSG_BATCH_END {
		res = unix.NFNL_SUBSYS_NFTABLES
	}
	b.bytes = append(b.bytes, family, 0)
	b.bytes = binary.BigEndian.AppendUint16(b.bytes, res)
	b.what = append(b.what, what)
	return start
}

func (b *batch) end(start int) {
	binary.NativeEndian.PutUint32(b.bytes[start:], uint32(len(b.bytes)-start))
}

// open begins a nested attribute and returns its place; shut ends it.
func (b *batch) open(kind uint16) (start int) {
	start = len(b.bytes)
	b.bytes = binary.NativeEndian.AppendUint16(b.bytes, 0)
	b.bytes = binary.NativeEndian.AppendUint16(b.bytes, kind)
	return start
}

func (b *batch) shut(start int) {
	binary.NativeEndian.PutUint16(b.bytes[start:], uint16(len(b.bytes)-start))
	for len(b.bytes)%attributeAlign != 0 {
		b.bytes = append(b.bytes, 0)
	}
}

func (b *batch) attribute(kind uint16, value string) {
	start := b.open(kind)
	b.bytes = append(b.bytes, value...)
	b.shut(start)
}

func (b *batch) number32(kind uint16, n uint32) {
	b.attribute(kind, string(binary.BigEndian.AppendUint32(nil, n)))
}

func nftMessage(kind uint16) uint16 { return unix.NFNL_SUBSYS_NFTABLES<<8 | kind }

// ofSet begins a message about elements of a set.
func (b *batch) ofSet(kind, flags uint16, set, what string) (start int) {
	start = b.message(nftMessage(kind), flags, unix.NFPROTO_INET, what+" "+set)
	b.attribute(unix.NFTA_SET_ELEM_LIST_TABLE, ruleset.FilterTable+"\x00")
	b.attribute(unix.NFTA_SET_ELEM_LIST_SET, set+"\x00")
	return start
}

// flush takes all elements out of a set.
func (b *batch) flush(set string) { b.end(b.ofSet(unix.NFT_MSG_DELSETELEM, 0, set, "empty set")) }

// add puts elements into a set; what has ended by now is left out.
func (b *batch) add(set string, list []element, now time.Time) {
	b.elements(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, set, "fill set", list, now)
}

// remove takes elements out of a set without intervals; each must be there.
func (b *batch) remove(set string, list []element) {
	b.elements(unix.NFT_MSG_DELSETELEM, 0, set, "take elements out of set", list, time.Time{})
}

func (b *batch) elements(kind, flags uint16, set, what string, list []element, now time.Time) {
	for len(list) > 0 {
		n := min(perMessage, len(list))
		start := b.ofSet(kind, flags, set, what)
		all := b.open(unix.NFTA_SET_ELEM_LIST_ELEMENTS | nested)
		for _, e := range list[:n] {
			if now.IsZero() {
				b.element(element{key: e.key}, 0)
			} else if left := e.until.Sub(now); e.until.IsZero() || left > 0 {
				b.element(e, left)
			}
		}
		b.shut(all)
		b.end(start)
		list = list[n:]
	}
}

// element writes one: of an interval, its beginning and, unless it reaches the highest key, the beginning of what is
// behind it.
func (b *batch) element(e element, left time.Duration) {
	item := b.open(unix.NFTA_LIST_ELEM | nested)
	b.key(e.key)
	if e.chain != "" {
		b.verdict(e)
	}
	if e.value != "" {
		data := b.open(unix.NFTA_SET_ELEM_DATA | nested)
		b.attribute(dataValue, e.value)
		b.shut(data)
	}
	if !e.until.IsZero() {
		ms := uint64(max(left.Milliseconds(), 1))
		b.attribute(unix.NFTA_SET_ELEM_TIMEOUT, string(binary.BigEndian.AppendUint64(nil, ms)))
	}
	b.shut(item)
	if e.last == "" {
		return
	}
	behind, ok := after(e.last)
	if !ok {
		return
	}
	item = b.open(unix.NFTA_LIST_ELEM | nested)
	b.key(behind)
	b.number32(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
	b.shut(item)
}

func (b *batch) key(key string) {
	k := b.open(unix.NFTA_SET_ELEM_KEY | nested)
	b.attribute(dataValue, key)
	b.shut(k)
}

func (b *batch) verdict(e element) {
	data := b.open(unix.NFTA_SET_ELEM_DATA | nested)
	v := b.open(dataVerdict | nested)
	code := uint32(verdictGoto)
	if e.jump {
		code = verdictJump
	}
	b.number32(verdictCode, code)
	b.attribute(verdictChain, e.chain+"\x00")
	b.shut(v)
	b.shut(data)
}

// after returns the key that follows in the order of bytes; false after the highest.
func after(key string) (string, bool) {
	b := []byte(key)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i]++; b[i] != 0 {
			return string(b), true
		}
	}
	return "", false
}

// dropTable removes the table with all that is in it.
func (b *batch) dropTable(name string) {
	start := b.message(nftMessage(unix.NFT_MSG_DELTABLE), 0, unix.NFPROTO_INET, "remove table "+name)
	b.attribute(unix.NFTA_TABLE_NAME, name+"\x00")
	b.end(start)
}

// newBatch begins a transaction.
func newBatch() *batch {
	b := new(batch)
	b.end(b.message(unix.NFNL_MSG_BATCH_BEGIN, 0, unix.AF_UNSPEC, "begin"))
	return b
}

func (b *batch) empty() bool { return len(b.what) == 1 }

// commit carries the transaction out.
func (b *batch) commit() error {
	if b.empty() {
		return nil
	}
	b.acknowledgeLast()
	last := uint32(len(b.what) - 1)
	b.end(b.message(unix.NFNL_MSG_BATCH_END, 0, unix.AF_UNSPEC, "end"))
	s, err := dial()
	if err != nil {
		return err
	}
	defer s.close()
	// A batch is one datagram.
	if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, len(b.bytes)+1<<16); err != nil {
		return fmt.Errorf("could not make room for %d bytes of nftables: %w", len(b.bytes), err)
	}
	if err := s.send(b.bytes); err != nil {
		return err
	}
	done := false
	err = s.receive(func(h header, data []byte) (bool, error) {
		if h.kind != unix.NLMSG_ERROR {
			return true, nil
		}
		if e := errorOf(data); e != 0 {
			return false, fmt.Errorf("could not %s: %w", b.whatOf(h.seq), e)
		}
		done = h.seq == last
		return !done, nil
	})
	return err
}

// acknowledgeLast asks the kernel to answer the last message, behind the errors of all others.
func (b *batch) acknowledgeLast() {
	last := 0
	for at := 0; at < len(b.bytes); at += int(binary.NativeEndian.Uint32(b.bytes[at:])) {
		last = at
	}
	flags := binary.NativeEndian.Uint16(b.bytes[last+6:])
	binary.NativeEndian.PutUint16(b.bytes[last+6:], flags|unix.NLM_F_ACK)
}

func (b *batch) whatOf(seq uint32) string {
	switch {
	case seq == 0 || int(seq) >= len(b.what):
		return "change nftables"
	}
	return b.what[seq]
}

func errorOf(data []byte) unix.Errno {
	if len(data) < 4 {
		return unix.EBADMSG
	}
	return unix.Errno(-int32(binary.NativeEndian.Uint32(data)))
}

// query asks for a dump and passes each message's attributes on.
func query(kind uint16, attributes func(*batch), each func(attrs)) error {
	b := new(batch)
	start := b.message(nftMessage(kind), unix.NLM_F_DUMP, unix.NFPROTO_INET, "read")
	attributes(b)
	b.end(start)
	s, err := dial()
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.send(b.bytes); err != nil {
		return err
	}
	return s.receive(func(h header, data []byte) (bool, error) {
		switch h.kind {
		case unix.NLMSG_DONE:
			return false, nil
		case unix.NLMSG_ERROR:
			if e := errorOf(data); e != 0 {
				return false, e
			}
			return false, nil
		}
		if len(data) >= 4 {
			each(attrs(data[4:]))
		}
		return true, nil
	})
}

// attrs are attributes one behind the other.
type attrs []byte

// all calls each for every attribute until it returns false.
func (a attrs) all(each func(kind uint16, value []byte) bool) {
	for len(a) >= 4 {
		n := int(binary.NativeEndian.Uint16(a))
		if n < 4 || n > len(a) {
			return
		}
		if !each(binary.NativeEndian.Uint16(a[2:])&^(nested|unix.NLA_F_NET_BYTEORDER), a[4:n]) {
			return
		}
		a = a[min((n+3)&^3, len(a)):]
	}
}

// get returns the value of the first of a kind, or nil.
func (a attrs) get(kind uint16) (value []byte) {
	a.all(func(k uint16, v []byte) bool {
		if k == kind {
			value = v
		}
		return k != kind
	})
	return value
}

// number reads a number of four or eight bytes; 0 where there is none.
func (a attrs) number(kind uint16) uint64 {
	switch v := a.get(kind); len(v) {
	case 4:
		return uint64(binary.BigEndian.Uint32(v))
	case 8:
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

// header is that of a netlink message.
type header struct {
	kind uint16
	seq  uint32
}

// socket is a netlink socket of one transaction or query, so that nothing of an earlier one is in its way.
type socket struct{ fd int }

func dial() (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("could not reach nftables: %w; the kernel must have NF_TABLES", err)
	}
	patience := unix.NsecToTimeval(replyPatience.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience); err != nil {
		return nil, errors.Join(fmt.Errorf("could not reach nftables: %w", err), unix.Close(fd))
	}
	return &socket{fd}, nil
}

func (s *socket) close() { _ = unix.Close(s.fd) } // nothing was kept back

func (s *socket) send(b []byte) error {
	if err := unix.Sendto(s.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("could not speak to nftables: %w", err)
	}
	return nil
}

// receive passes messages on until each says that there is no more to come.
func (s *socket) receive(each func(h header, data []byte) (more bool, err error)) error {
	buf := make([]byte, 1<<16)
	for {
		n, _, err := unix.Recvfrom(s.fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("could not hear from nftables: %w", err)
		}
		for b := buf[:n]; len(b) >= unix.SizeofNlMsghdr; {
			size := int(binary.NativeEndian.Uint32(b))
			if size < unix.SizeofNlMsghdr || size > len(b) {
				return fmt.Errorf("could not understand nftables: %w", unix.EBADMSG)
			}
			h := header{binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint32(b[8:])}
			more, err := each(h, b[unix.SizeofNlMsghdr:size])
			if err != nil || !more {
				return err
			}
			b = b[min((size+3)&^3, len(b)):]
		}
	}
}
