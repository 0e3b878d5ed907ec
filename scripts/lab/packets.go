package lab

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"time"
)

// Packet is one captured TCP segment.
type Packet struct {
	Time               time.Time
	Src, Dst           netip.AddrPort
	SYN, ACK, FIN, RST bool
	Seq, AckNo         uint32
	Payload            []byte
}

// Packets in the order of capture.
type Packets []Packet

// Match says whether a packet is meant.
type Match func(Packet) bool

// To matches a destination: a port number ("25"), an address, a prefix, or
// address and port. A string that is none of them matches nothing.
func To(what string) Match {
	m := endpoint(what)
	return func(p Packet) bool { return m(p.Dst) }
}

// From matches a source, as To does.
func From(what string) Match {
	m := endpoint(what)
	return func(p Packet) bool { return m(p.Src) }
}

func endpoint(what string) func(netip.AddrPort) bool {
	if a, err := netip.ParseAddrPort(what); err == nil {
		return func(x netip.AddrPort) bool { return x == a }
	}
	if a, err := netip.ParseAddr(what); err == nil {
		return func(x netip.AddrPort) bool { return x.Addr() == a }
	}
	if n, err := netip.ParsePrefix(what); err == nil {
		return func(x netip.AddrPort) bool { return n.Contains(x.Addr()) }
	}
	return func(x netip.AddrPort) bool { return fmt.Sprint(x.Port()) == what }
}

// Not turns a match around.
func Not(m Match) Match { return func(p Packet) bool { return !m(p) } }

// Where keeps the packets that all matches accept.
func (ps Packets) Where(all ...Match) Packets {
	var out Packets
next:
	for _, p := range ps {
		for _, m := range all {
			if !m(p) {
				continue next
			}
		}
		out = append(out, p)
	}
	return out
}

// SYNs are the connection attempts (SYN without ACK) among them.
func (ps Packets) SYNs(all ...Match) Packets {
	return ps.Where(append([]Match{func(p Packet) bool { return p.SYN && !p.ACK }}, all...)...)
}

// RSTs are the resets among them.
func (ps Packets) RSTs(all ...Match) Packets {
	return ps.Where(append([]Match{func(p Packet) bool { return p.RST }}, all...)...)
}

// Attempts counts connection attempts: SYNs without their retransmissions.
func (ps Packets) Attempts(all ...Match) int {
	type key struct {
		src, dst netip.AddrPort
		seq      uint32
	}
	seen := map[key]bool{}
	for _, p := range ps.SYNs(all...) {
		seen[key{p.Src, p.Dst, p.Seq}] = true
	}
	return len(seen)
}

// ReadCapture reads the TCP segments of a pcap file with Ethernet frames. What
// is not TCP, or is a later fragment, is left out.
func ReadCapture(path string) (Packets, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("could not read a capture: %w", err)
	}
	if len(data) < 24 {
		return nil, fmt.Errorf("could not read capture %s: it is too short", path)
	}
	order := binary.ByteOrder(binary.LittleEndian)
	nano := false
	switch binary.LittleEndian.Uint32(data) {
	case 0xa1b2c3d4:
	case 0xa1b23c4d:
		nano = true
	case 0xd4c3b2a1:
		order = binary.BigEndian
	default:
		return nil, fmt.Errorf("could not read capture %s: it is no pcap file", path)
	}
	if link := order.Uint32(data[20:]); link != 1 {
		return nil, fmt.Errorf("could not read capture %s: link type %d is not Ethernet", path, link)
	}
	var all Packets
	for rest := data[24:]; len(rest) >= 16; {
		sec, frac, n := order.Uint32(rest), order.Uint32(rest[4:]), int(order.Uint32(rest[8:]))
		if n > len(rest)-16 {
			break // cut off while writing
		}
		if !nano {
			frac *= 1000
		}
		if p, ok := segment(rest[16 : 16+n]); ok {
			p.Time = time.Unix(int64(sec), int64(frac))
			all = append(all, p)
		}
		rest = rest[16+n:]
	}
	return all, nil
}

// segment reads one Ethernet frame.
func segment(f []byte) (Packet, bool) {
	if len(f) < 14 {
		return Packet{}, false
	}
	switch binary.BigEndian.Uint16(f[12:]) {
	case 0x0800:
		return segment4(f[14:])
	case 0x86dd:
		return segment6(f[14:])
	}
	return Packet{}, false
}

func segment4(ip []byte) (Packet, bool) {
	if len(ip) < 20 {
		return Packet{}, false
	}
	head, total := int(ip[0]&15)*4, int(binary.BigEndian.Uint16(ip[2:]))
	fragment := binary.BigEndian.Uint16(ip[6:]) & 0x1fff
	if ip[9] != 6 || fragment != 0 || head < 20 || total < head || total > len(ip) {
		return Packet{}, false
	}
	src, dst := netip.AddrFrom4([4]byte(ip[12:16])), netip.AddrFrom4([4]byte(ip[16:20]))
	return tcp(src, dst, ip[head:total])
}

func segment6(ip []byte) (Packet, bool) {
	if len(ip) < 40 {
		return Packet{}, false
	}
	src, dst := netip.AddrFrom16([16]byte(ip[8:24])), netip.AddrFrom16([16]byte(ip[24:40]))
	next, rest := ip[6], ip[40:]
	for {
		switch next {
		case 6:
			return tcp(src, dst, rest)
		case 0, 43, 60: // hop-by-hop, routing, destination options
			if len(rest) < 8 || len(rest) < 8+int(rest[1])*8 {
				return Packet{}, false
			}
			next, rest = rest[0], rest[8+int(rest[1])*8:]
		default:
			return Packet{}, false
		}
	}
}

func tcp(src, dst netip.Addr, t []byte) (Packet, bool) {
	if len(t) < 20 || int(t[12]>>4)*4 > len(t) || t[12]>>4 < 5 {
		return Packet{}, false
	}
	flags := t[13]
	return Packet{
		Src: netip.AddrPortFrom(src, binary.BigEndian.Uint16(t)),
		Dst: netip.AddrPortFrom(dst, binary.BigEndian.Uint16(t[2:])),
		FIN: flags&1 != 0, SYN: flags&2 != 0, RST: flags&4 != 0, ACK: flags&16 != 0,
		Seq: binary.BigEndian.Uint32(t[4:]), AckNo: binary.BigEndian.Uint32(t[8:]),
		Payload: append([]byte(nil), t[int(t[12]>>4)*4:]...),
	}, true
}
