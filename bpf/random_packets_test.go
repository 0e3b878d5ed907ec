//go:build bpftest

package bpf

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"

	"sluice/bpf/model"
)

// randomPacket is a packet as a test run takes it: on Ethernet.
func randomPacket(r *rand.Rand, program string, devices [2]uint32) model.Packet {
	p := model.Packet{L2: 14, Frame: randomFrame(r, program)}
	if chance(r, 2) {
		p.Frame[r.IntN(6)] ^= byte(1 + r.IntN(255))
	}
	p.Others = !bytes.Equal(p.Frame[:6], gwMAC)
	p.Proto = binary.BigEndian.Uint16(p.Frame[12:])
	p.Ifindex = pick(r, devices[:])
	if chance(r, 20) {
		p.Mark = pick(r, []uint32{markIntercept, markJudged, markIntercept | markJudged, 0x1007, 0x1007 | markJudged})
	}
	if program == UplinkGuard && chance(r, 80) {
		p.Ingress = pick(r, []uint32{devices[0], devices[1], 99})
	}
	return p
}

func randomFrame(r *rand.Rand, program string) []byte {
	if chance(r, 3) {
		return garbage(r)
	}
	f := randomShape(r, program)
	b := f.build()
	switch {
	case chance(r, 10):
		mutate(r, b)
	case chance(r, 5):
		b = b[:max(shortest(b), r.IntN(len(b)+1))]
	case chance(r, 1):
		tag := []byte{0x81, 0, 0, byte(r.IntN(3))}
		for range 1 + r.IntN(2) {
			b = slices.Insert(b, 12, tag...)
		}
	}
	return b
}

// shortest is what a test run takes: whole IP headers.
func shortest(b []byte) int {
	switch binary.BigEndian.Uint16(b[12:]) {
	case 0x0800:
		return 14 + 20
	case 0x86dd:
		return 14 + 40
	}
	return 15
}

// garbage says that it is IP.
func garbage(r *rand.Rand) []byte {
	b := make([]byte, 14+40+r.IntN(100))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	copy(b[12:], pick(r, [][]byte{{8, 0}, {8, 0}, {0x86, 0xdd}, {0x86, 0xdd}, {8, 6}, {0x81, 0}}))
	return b
}

// mutate changes up to three bytes of the headers.
func mutate(r *rand.Rand, b []byte) {
	for range 1 + r.IntN(3) {
		i := 14 + r.IntN(min(len(b)-14, 80))
		b[i] = pick(r, []byte{0, 1, 0xff, b[i] ^ 1<<r.IntN(8), byte(r.Uint32())})
	}
}

// randomShape is a packet that makes sense to one of the programs.
func randomShape(r *rand.Rand, program string) frame {
	out := program != UplinkIngress
	if chance(r, 15) {
		out = !out
	}
	f := frame{sport: pick(r, []uint16{40000, 40001, 25}), dport: 25}
	if chance(r, 15) {
		f.dport = pick(r, append([]uint16{443}, extras...))
	}
	from, to := pick(r, customers), pick(r, servers)
	for from.Is4() != to.Is4() {
		to = pick(r, servers)
	}
	if chance(r, 3) {
		to = pick(r, customers) // perhaps of the other family: then the frame below is no packet at all
		for from.Is4() != to.Is4() {
			to = pick(r, customers)
		}
	}
	if from.Is6() && chance(r, 3) {
		from = netip.MustParseAddr("::ffff:192.0.2.10")
	}
	if !out {
		from, to, f.sport, f.dport = to, from, f.dport, f.sport
	}
	f.src, f.dst = from.String(), to.String()
	f.flags = pick(r, []byte{syn, syn, syn, syn, syn, syn, syn, syn, syn | 0xc0, syn | ack, syn | ack, ack, ack, ack | 8, fin | ack, rst, rst | ack, fin, 8, syn | fin, syn | rst, byte(r.Uint32())})
	f.ack = r.Uint32()
	f.payload = pick(r, []int{0, 0, 0, 1, 33, 500})
	if chance(r, 10) {
		f.padding = make([]byte, r.IntN(30))
	}
	if chance(r, 4) {
		f.cut = r.IntN(20 + f.payload + 1)
	}
	if chance(r, 6) {
		f.proto = pick(r, []byte{17, 1, 58, 50, 47})
	}
	if from.Is4() {
		shape4(r, &f)
	} else {
		shape6(r, &f)
	}
	if chance(r, 4) {
		quote(r, &f, from, to)
	}
	return f
}

func shape4(r *rand.Rand, f *frame) {
	if chance(r, 8) {
		f.fragment = pick(r, []uint16{0x2000, 0x2000, 0x2001, 1, 2, 0x2010, 0x4000, 0x8000, uint16(r.Uint32())})
	}
	if chance(r, 8) {
		f.options = pick(r, [][]byte{
			{1, 1, 1, 1}, {0, 131, 131, 131}, {7, 7, 4, 0, 0, 0, 0, 0}, {131, 7, 4, 198, 51, 100, 26, 0}, {1, 137, 7, 4, 198, 51, 100, 26},
			{7, 0, 1, 1}, {1, 1, 1, 131}, {1, 1, 1, 7}, make40(), {68, 4, 0, 0, 1, 1, 1, 0}, {7, 255, 131, 4},
		})
	}
}

func shape6(r *rand.Rand, f *frame) {
	if !chance(r, 15) {
		return
	}
	types := []byte{0, 60, 60, 43, 44, 44, 51, 135, 139, 140, 50, 59}
	chain := make([]byte, 1+r.IntN(pick(r, []int{2, 2, 4, 10})))
	for i := range chain {
		chain[i] = pick(r, types)
	}
	f.next, f.headers = chain[0], []byte{}
	for i, kind := range chain {
		next := byte(6)
		if i+1 < len(chain) {
			next = chain[i+1]
		} else if f.proto != 0 {
			next = f.proto
		}
		h := []byte{next, 0, 0, 0, 0, 0, 0, 0}
		switch kind {
		case 43:
			h[3] = byte(r.IntN(2))
		case 44:
			binary.BigEndian.PutUint16(h[2:], pick(r, []uint16{0, 1, 8, 9, 16, 17, 0xfff9}))
		case 51:
			h = append(h, make([]byte, 8)...)
			h[1] = 2
		default:
			if chance(r, 20) {
				h = append(h, make([]byte, 8)...)
				h[1] = 1
			}
		}
		f.headers = append(f.headers, h...)
	}
}

// quote makes an ICMP message about one of the two ends' packets.
func quote(r *rand.Rand, f *frame, from, to netip.Addr) {
	if chance(r, 60) { // one that has a socket
		from, to = netip.MustParseAddr("198.51.100.77"), netip.MustParseAddr("192.0.2.77")
		if !netip.MustParseAddr(f.src).Is4() {
			from, to = netip.MustParseAddr("2001:db8:100::77"), netip.MustParseAddr("2001:db8:1::77")
		}
	}
	inner := frame{src: from.String(), dst: to.String(), sport: 25, dport: 40000, flags: ack, payload: 8}
	if chance(r, 40) {
		inner.src, inner.dst, inner.sport, inner.dport = inner.dst, inner.src, inner.dport, inner.sport
	}
	if chance(r, 10) {
		inner.proto = 17
	}
	if from.Is4() && chance(r, 10) {
		inner.options = []byte{1, 1, 1, 1}
	}
	f.proto, f.raw = 1, append([]byte{3, 4, 0, 0, 0, 0, 5, 0}, inner.build()[14:]...)
	if from.Is6() {
		f.proto, f.raw = 58, append([]byte{2, 0, 0, 0, 0, 0, 5, 0}, inner.build()[14:]...)
	}
	f.raw[0] = pick(r, []byte{f.raw[0], f.raw[0], f.raw[0], 11})
	f.raw[1] = pick(r, []byte{f.raw[1], f.raw[1], f.raw[1], 1})
	f.cut = 0
	if chance(r, 10) {
		f.raw = f.raw[:r.IntN(len(f.raw))]
	}
}
