//go:build bpftest

package bpf

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"sluice/bpf/model"
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

// checkReset fails unless out is the reset that answers in, byte by byte; both are on Ethernet.
func checkReset(t *testing.T, in, out []byte) {
	t.Helper()
	want := model.ResetOf(model.Packet{Frame: in, L2: 14, Proto: binary.BigEndian.Uint16(in[12:])})
	if !bytes.Equal(out, want) {
		t.Errorf("the reset is\n%x, want\n%x", out, want)
	}
}
