package kernel

import (
	"encoding/binary"
	"net"
	"net/netip"
)

const (
	interceptMark = 0x100
	judgedMark    = 0x200
	frameSize     = 96
	bulk4         = 0xc6120000 // 198.18.0.0, whose /15 has room for 131,072 hosts
	bulk6         = 0x80000000 // the second word of 2001:db8:8000::/33, whose /64s are hosts
)

var (
	gatewayMAC = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	farMAC     = net.HardwareAddr{2, 0, 0, 0, 0, 2}
	server4    = netip.MustParseAddr("198.51.100.25")
	server6    = netip.MustParseAddr("2001:db8:100::25")
	// An address whose tables have everything that a SYN can be asked for, and one whose connection the proxy has.
	checked4, checked6 = netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("2001:db8:1::10")
	taken4, taken6     = netip.MustParseAddr("192.0.2.20"), netip.MustParseAddr("2001:db8:2::20")
)

// kind is a kind of packet. Its source is fixed, or, if from is invalid, one of the bulk addresses of the family.
type kind struct {
	name  string
	v6    bool
	from  netip.Addr
	proto byte
	sport uint16
	dport uint16
	flags byte
}

const (
	tcp, udp = 6, 17
	syn, ack = 2, 16
)

// bulkHost is the i-th of the bulk addresses.
func bulkHost(v6 bool, i uint32) netip.Prefix {
	if v6 {
		a := [16]byte{0x20, 0x01, 0x0d, 0xb8}
		binary.BigEndian.PutUint32(a[4:], bulk6+i)
		return netip.PrefixFrom(netip.AddrFrom16(a), 64)
	}
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], bulk4+i)
	return netip.PrefixFrom(netip.AddrFrom4(a), 32)
}

// frame is the packet with the first bulk address, or the fixed one, as its source. The TCP checksum is wrong: what a
// program lets through to a listener goes no further than that.
func (k kind) frame() []byte {
	b := make([]byte, frameSize)
	copy(b, gatewayMAC)
	copy(b[6:], farMAC)
	from := k.from
	if !from.IsValid() {
		from = bulkHost(k.v6, 0).Addr()
	}
	at := 14 + 20
	if k.v6 {
		at = 14 + 40
		b[12], b[13], b[14], b[20], b[21] = 0x86, 0xdd, 0x60, k.proto, 64
		binary.BigEndian.PutUint16(b[18:], uint16(len(b)-at))
		copy(b[22:], from.AsSlice())
		copy(b[38:], server6.AsSlice())
	} else {
		b[12], b[13], b[14], b[22], b[23] = 0x08, 0x00, 0x45, 64, k.proto
		binary.BigEndian.PutUint16(b[16:], uint16(len(b)-14))
		copy(b[26:], from.AsSlice())
		copy(b[30:], server4.AsSlice())
		binary.BigEndian.PutUint16(b[24:], ^fold(headerSum(b)))
	}
	binary.BigEndian.PutUint16(b[at:], k.sport)
	binary.BigEndian.PutUint16(b[at+2:], k.dport)
	if k.proto == tcp {
		b[at+12], b[at+13] = 5<<4, k.flags
	} else {
		binary.BigEndian.PutUint16(b[at+4:], uint16(len(b)-at))
	}
	return b
}

// headerSum adds up an IPv4 header whose checksum is not set.
func headerSum(b []byte) (sum uint32) {
	for i := 14; i < 34; i += 2 {
		if i != 24 {
			sum += uint32(binary.BigEndian.Uint16(b[i:]))
		}
	}
	return sum
}

func fold(sum uint32) uint16 {
	sum = sum&0xffff + sum>>16
	return uint16(sum + sum>>16)
}

// kinds are what all parts measure. The hot ones come from one source.
func kinds() []kind {
	k := []kind{
		{name: "UDP", proto: udp, sport: 40000, dport: 53},
		{name: "TCP 443", proto: tcp, sport: 40000, dport: 443, flags: ack},
		{name: "port 25, data of a passed flow", proto: tcp, sport: 40000, dport: 25, flags: ack},
		{name: "port 25, data of an intercepted flow", proto: tcp, from: taken4, sport: 40000, dport: 25, flags: ack},
		// From another port: a SYN would have the flows of those above asked about anew.
		{name: "SYN to 25, passed", proto: tcp, sport: 40001, dport: 25, flags: syn},
		{name: "SYN to 25, intercepted, every check on", proto: tcp, from: checked4, sport: 40001, dport: 25, flags: syn},
	}
	for _, k4 := range k[:len(k):len(k)] {
		k6 := k4
		k6.v6 = true
		switch k4.from {
		case taken4:
			k6.from = taken6
		case checked4:
			k6.from = checked6
		}
		k = append(k, k6)
	}
	return k
}

func (k kind) String() string {
	if k.v6 {
		return k.name + ", IPv6"
	}
	return k.name
}
