package model

import (
	"encoding/binary"
	"net/netip"
)

// Packet is what a program gets.
type Packet struct {
	Frame   []byte
	L2      int    // 14 on Ethernet, 0 on devices without a link header
	Proto   uint16 // the EtherType behind the outermost tag
	Tagged  bool   // a VLAN tag was taken off
	VLAN    uint16 // its number
	Others  bool   // its Ethernet address is not this interface's
	Mark    uint32
	Ifindex uint32 // of the interface at which the program stands
	Ingress uint32 // of the interface by which it came; 0: made by the gateway
	Cookie  uint64 // of the socket that made it
}

// The kinds of packets.
type kind int

const (
	foreign   kind = iota // none of our business
	outbound              // TCP to a mail port
	reply                 // TCP from a mail port, to another port
	icmp                  // ICMP or ICMPv6, not a fragment
	undecided             // is, or may be, for a mail port but cannot be judged
)

// header is what is known of a packet.
type header struct {
	kind         kind
	why          string // reason of undecided
	src, dst     netip.Addr
	sport, dport uint16
	flags        byte
	l4           int
	plain        bool // neither options nor extension headers: a reset can be made
}

func (h header) syn() bool { return h.flags&(flagSYN|flagACK) == flagSYN }

// Flags of TCP.
const (
	flagFIN = 1
	flagSYN = 2
	flagRST = 4
	flagACK = 16
)

const (
	ethHeader  = 14
	ip4Header  = 20
	ip6Header  = 40
	tcpHeader  = 20
	protoICMP  = 1
	protoTCP   = 6
	protoUDP   = 17
	protoICMP6 = 58

	maxOptions = 12 // IPv4 options that are looked at
	maxHeaders = 8  // IPv6 headers that are passed over
)

func be16(b []byte) int { return int(binary.BigEndian.Uint16(b)) }

// from gives n bytes at an offset, or nothing if the packet is shorter.
func (p Packet) from(at, n int) []byte {
	if at < 0 || at+n > len(p.Frame) {
		return nil
	}
	return p.Frame[at : at+n]
}

func (t *Tables) parse(p Packet) header {
	switch p.Proto {
	case 0x0800:
		return t.parse4(p)
	case 0x86dd:
		return t.parse6(p)
	}
	return header{}
}

// isMail: the ports of any interface count here.
func (t *Tables) isMail(port uint16) bool {
	if port == 25 {
		return true
	}
	for _, r := range t.Ports {
		if r.Port == port {
			return true
		}
	}
	return false
}

func (t *Tables) kindOf(sport, dport uint16) kind {
	switch {
	case t.isMail(dport):
		return outbound
	case t.isMail(sport):
		return reply
	}
	return foreign
}

func (t *Tables) parse4(p Packet) header {
	ip := p.from(p.L2, ip4Header)
	if ip == nil {
		return header{} // the kernel drops it
	}
	size := int(ip[0]&15) * 4
	fragment, more := be16(ip[6:])&0x1fff, be16(ip[6:])&0x2000 != 0
	h := header{src: addr(ip[12:16]), dst: addr(ip[16:20]), l4: p.L2 + size}
	h.plain = size == ip4Header
	switch {
	case size < ip4Header: // the kernel drops it
		return header{}
	case ip[9] == protoICMP && fragment == 0 && !more:
		h.kind = icmp
		return h
	case ip[9] != protoTCP:
		return header{}
	case fragment == 1: // RFC 3128: it would rewrite flags and ports
		return h.undecided("frag_tiny")
	case fragment > 1: // belongs to a first one, which is judged
		return header{}
	}
	end := p.L2 + be16(ip[2:])
	if be16(ip[2:]) == 0 { // merged beyond 64 KiB
		end = len(p.Frame)
	}
	h = t.parseTCP(p, h, end, more)
	if h.kind == outbound && hasSourceRoute(p, p.L2+ip4Header, size-ip4Header) {
		return h.undecided("options")
	}
	return h
}

func (h header) undecided(why string) header {
	h.kind, h.why = undecided, why
	return h
}

// parseTCP reads the TCP header; what lies at `end` or behind is padding of the frame.
func (t *Tables) parseTCP(p Packet, h header, end int, first bool) header {
	short := "truncated"
	if first {
		short = "frag_tiny"
	}
	ports := p.from(h.l4, 4)
	if ports == nil || h.l4+4 > end {
		return h.undecided(short)
	}
	sport, dport := uint16(be16(ports)), uint16(be16(ports[2:]))
	kind := t.kindOf(sport, dport)
	if kind == foreign {
		return header{}
	}
	h.sport, h.dport = sport, dport
	tcp := p.from(h.l4, tcpHeader)
	if tcp == nil || h.l4+tcpHeader > end {
		return h.undecided(short)
	}
	h.kind, h.flags = kind, tcp[13]
	if first && kind == outbound {
		return h.undecided("frag_first")
	}
	return h
}

// hasSourceRoute: what cannot be read or is malformed counts as one.
func hasSourceRoute(p Packet, at, size int) bool {
	options := p.from(at, size)
	if options == nil {
		return size > 0
	}
	for range maxOptions {
		if len(options) == 0 || options[0] == 0 {
			return false
		}
		if options[0] == 1 {
			options = options[1:]
			continue
		}
		if options[0] == 131 || options[0] == 137 || len(options) < 2 || options[1] < 2 || int(options[1]) > len(options) {
			return true
		}
		options = options[options[1]:]
	}
	return true
}

func (t *Tables) parse6(p Packet) header {
	ip := p.from(p.L2, ip6Header)
	if ip == nil {
		return header{}
	}
	h := header{src: addr(ip[8:24]), dst: addr(ip[24:40])}
	at, next := p.L2+ip6Header, ip[6]
	h.plain = next == protoTCP
	end := at + be16(ip[4:])
	if be16(ip[4:]) == 0 { // jumbogram
		end = len(p.Frame)
	}
	first, routed := false, false
	for range maxHeaders {
		h.l4 = at
		switch next {
		case protoTCP:
			return t.finish6(t.parseTCP(p, h, end, first), routed)
		case protoICMP6:
			if first {
				return header{}
			}
			h.kind = icmp
			return h
		case 0, 60, 43, 44, 51, 135, 139, 140: // extension headers
		default:
			return header{}
		}
		// RFC 7112: a first fragment holds all headers.
		ext := p.from(at, 4)
		if ext == nil || at+4 > end {
			if first {
				return h.undecided("frag_tiny")
			}
			return h.undecided("truncated")
		}
		switch next {
		case 44:
			offset := be16(ext[2:]) &^ 7
			if offset == 8 && ext[0] == protoTCP {
				return h.undecided("frag_tiny")
			}
			if offset != 0 {
				return header{}
			}
			first = true
			at += 8
		case 51:
			at += (int(ext[1]) + 2) * 4
		default:
			routed = routed || next == 43 && ext[3] != 0
			at += (int(ext[1]) + 1) * 8
		}
		next = ext[0]
	}
	return h.undecided("options")
}

func (t *Tables) finish6(h header, routed bool) header {
	if h.kind != outbound && h.kind != reply {
		return h
	}
	if h.src.Is4In6() || h.dst.Is4In6() {
		return h.undecided("bad_address")
	}
	if routed && h.kind == outbound {
		return h.undecided("options")
	}
	return h
}

// addr keeps an IPv4-mapped address apart from the IPv4 address.
func addr(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
}
