//go:build bpftest

package bpf

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
)

// Flags of TCP.
const (
	fin = 1
	syn = 2
	rst = 4
	ack = 16
)

var (
	custMAC = []byte{2, 0, 0, 0, 0, 0x10}
	gwMAC   = []byte{2, 0, 0, 0, 0, 0x01}
)

// frame describes a packet by what matters to the programs; zero values are a plain SYN's.
type frame struct {
	src, dst     string
	sport, dport uint16 // 0: 40000 and 25
	flags        byte   // 0: SYN
	ack          uint32
	payload      int
	proto        byte   // 0: TCP
	options      []byte // IPv4 options, a multiple of four
	fragment     uint16 // IPv4: the field as it stands
	headers      []byte // IPv6: extension headers, the first of type next
	next         byte
	cut          int    // bytes of the IP packet's end that are missing
	padding      []byte // after the IP packet
	raw          []byte // instead of the TCP header and what follows
}

func (f frame) tcp() []byte {
	if f.raw != nil {
		return bytes.Clone(f.raw)
	}
	b := make([]byte, 20+f.payload)
	sport, dport, flags := f.sport, f.dport, f.flags
	if sport == 0 {
		sport = 40000
	}
	if dport == 0 {
		dport = 25
	}
	if flags == 0 {
		flags = syn
	}
	binary.BigEndian.PutUint16(b, sport)
	binary.BigEndian.PutUint16(b[2:], dport)
	binary.BigEndian.PutUint32(b[4:], 1000)
	binary.BigEndian.PutUint32(b[8:], f.ack)
	b[12], b[13] = 5<<4, flags
	return b
}

// build makes the Ethernet frame, checksums included, so that a reset is made from a packet as the wire has it.
func (f frame) build() []byte {
	src, dst := netip.MustParseAddr(f.src), netip.MustParseAddr(f.dst)
	proto := f.proto
	if proto == 0 {
		proto = 6
	}
	body := f.tcp()
	if proto == 6 && f.fragment == 0 && f.headers == nil {
		binary.BigEndian.PutUint16(body[16:], sum(pseudo(src, dst, len(body)), body))
	}
	eth := append(append([]byte(nil), gwMAC...), custMAC...)
	var ip []byte
	if src.Is4() {
		eth = append(eth, 8, 0)
		ip = make([]byte, 20, 20+len(f.options))
		ip[0], ip[8], ip[9] = 0x45+byte(len(f.options)/4), 60, proto
		binary.BigEndian.PutUint16(ip[2:], uint16(20+len(f.options)+len(body)-f.cut))
		binary.BigEndian.PutUint16(ip[6:], f.fragment)
		copy(ip[12:], src.AsSlice())
		copy(ip[16:], dst.AsSlice())
		ip = append(ip, f.options...)
		binary.BigEndian.PutUint16(ip[10:], sum(0, ip))
	} else {
		eth = append(eth, 0x86, 0xdd)
		ip = make([]byte, 40, 40+len(f.headers))
		ip[0], ip[6], ip[7] = 0x60, proto, 60
		if f.headers != nil {
			ip[6] = f.next
		}
		binary.BigEndian.PutUint16(ip[4:], uint16(len(f.headers)+len(body)-f.cut))
		copy(ip[8:], src.AsSlice())
		copy(ip[24:], dst.AsSlice())
		ip = append(ip, f.headers...)
	}
	p := append(append(eth, ip...), body...)
	return append(p[:len(p)-f.cut], f.padding...)
}

// pseudo is the sum of the pseudo header of TCP.
func pseudo(src, dst netip.Addr, length int) uint32 {
	b := append(src.AsSlice(), dst.AsSlice()...)
	b = append(b, 0, 6, byte(length>>8), byte(length))
	return add(0, b)
}

func add(s uint32, b []byte) uint32 {
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(b[i])<<8 | uint32(b[i+1])
	}
	if len(b)%2 == 1 {
		s += uint32(b[len(b)-1]) << 8
	}
	return s
}

// sum is the Internet checksum; over something that holds a right checksum it is 0.
func sum(start uint32, b []byte) uint16 {
	s := add(start, b)
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return ^uint16(s)
}

// checkReset fails unless out is the reset that answers in.
func checkReset(t *testing.T, in, out []byte) {
	t.Helper()
	l4, size := 14+20, 14+20+20
	v4 := in[12] == 8
	if !v4 {
		l4, size = 14+40, 14+40+20
	}
	if len(out) != size {
		t.Fatalf("reset has %d bytes, want %d", len(out), size)
	}
	same := func(what string, a, b []byte) {
		t.Helper()
		if string(a) != string(b) {
			t.Errorf("reset: %s is %x, want %x", what, a, b)
		}
	}
	same("destination MAC", out[:6], in[6:12])
	same("source MAC", out[6:12], in[:6])
	same("source port", out[l4:l4+2], in[l4+2:l4+4])
	same("destination port", out[l4+2:l4+4], in[l4:l4+2])
	at, n := 14+12, 4
	if !v4 {
		at, n = 14+8, 16
	}
	same("source address", out[at:at+n], in[at+n:at+2*n])
	same("destination address", out[at+n:at+2*n], in[at:at+n])
	if v4 {
		if s := sum(0, out[14:34]); s != 0 {
			t.Errorf("reset: IP checksum is off by %#x", s)
		}
	}
	src, _ := netip.AddrFromSlice(out[at : at+n])
	dst, _ := netip.AddrFromSlice(out[at+n : at+2*n])
	if s := sum(pseudo(src, dst, 20), out[l4:]); s != 0 {
		t.Errorf("reset: TCP checksum is off by %#x", s)
	}
	be := binary.BigEndian.Uint32
	seq, number, flags := be(out[l4+4:]), be(out[l4+8:]), out[l4+13]
	if in[l4+13]&ack != 0 {
		if flags != rst || seq != be(in[l4+8:]) {
			t.Errorf("reset of a flow has flags %#x and sequence %d, want RST at %d", flags, seq, be(in[l4+8:]))
		}
	} else if flags != rst|ack || number != be(in[l4+4:])+1 {
		t.Errorf("reset of a SYN has flags %#x and acknowledges %d, want RST|ACK of %d", flags, number, be(in[l4+4:])+1)
	}
}
