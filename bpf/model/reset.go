package model

import "encoding/binary"

// ResetOf is the packet that answers a TCP packet for its receiver, whole: RFC 9293 3.10.7.1. The packet has neither IP
// options nor extension headers.
func ResetOf(p Packet) []byte {
	size := ip4Header
	if p.Proto == 0x86dd {
		size = ip6Header
	}
	in := p.Frame
	out := make([]byte, p.L2+size+tcpHeader)
	if p.L2 == ethHeader {
		copy(out, in[6:12])
		copy(out[6:], in[:6])
		copy(out[12:], in[12:14])
	}
	ip, tcp, was := out[p.L2:], out[p.L2+size:], in[p.L2+size:]
	var pseudo []byte
	if size == ip4Header {
		ip[0], ip[3], ip[6], ip[8], ip[9] = 0x45, ip4Header+tcpHeader, 0x40, 64, protoTCP
		copy(ip[12:], in[p.L2+16:p.L2+20])
		copy(ip[16:], in[p.L2+12:p.L2+16])
		binary.BigEndian.PutUint16(ip[10:], Checksum(ip[:ip4Header]))
		pseudo = append(pseudo, ip[12:20]...)
	} else {
		ip[0], ip[5], ip[6], ip[7] = 0x60, tcpHeader, protoTCP, 64
		copy(ip[8:], in[p.L2+24:p.L2+40])
		copy(ip[24:], in[p.L2+8:p.L2+24])
		pseudo = append(pseudo, ip[8:40]...)
	}
	copy(tcp, was[2:4])
	copy(tcp[2:], was[:2])
	tcp[12], tcp[13] = 5<<4, flagRST
	if was[13]&flagACK != 0 {
		copy(tcp[4:], was[8:12]) // where the peer expects us
	} else {
		tcp[13] |= flagACK
		binary.BigEndian.PutUint32(tcp[8:], binary.BigEndian.Uint32(was[4:])+1) // the SYN is one
	}
	pseudo = append(pseudo, 0, protoTCP, 0, tcpHeader)
	binary.BigEndian.PutUint16(tcp[16:], Checksum(append(pseudo, tcp[:tcpHeader]...)))
	return out
}

// Checksum is RFC 1071's, of an even or odd number of bytes; over something that holds its checksum it is 0.
func Checksum(b []byte) uint16 {
	sum := uint32(0)
	for i, c := range b {
		if i%2 == 0 {
			sum += uint32(c) << 8
		} else {
			sum += uint32(c)
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
