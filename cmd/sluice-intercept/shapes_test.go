//go:build nettest

package main

import (
	bytewise "encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The flags of TCP, and the numbers of headers.
const (
	flagSYN, flagACK = 2, 16

	headerTCP, headerFragment, headerOptions = 6, 44, 60
)

// tcpBytes is a TCP header without options or payload.
func tcpBytes(src, dst netip.Addr, sport, dport uint16, flags byte) []byte {
	h := make([]byte, 20)
	bytewise.BigEndian.PutUint16(h, sport)
	bytewise.BigEndian.PutUint16(h[2:], dport)
	bytewise.BigEndian.PutUint32(h[4:], 1000)
	h[12], h[13] = 5<<4, flags
	bytewise.BigEndian.PutUint16(h[14:], 1024)
	pseudo := append(append([]byte{}, src.AsSlice()...), dst.AsSlice()...)
	pseudo = append(pseudo, 0, headerTCP, 0, 20)
	bytewise.BigEndian.PutUint16(h[16:], checksum(append(pseudo, h...)))
	return h
}

func checksum(b []byte) uint16 {
	sum := uint32(0)
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(bytewise.BigEndian.Uint16(b))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// ipv4 is a packet with options (their length a multiple of 4), at an offset in units of 8 bytes.
func ipv4(src, dst netip.Addr, options []byte, more bool, offset uint16, payload []byte) []byte {
	h := make([]byte, 20, 60)
	h = append(h, options...)
	h[0] = 4<<4 | byte(len(h)/4)
	bytewise.BigEndian.PutUint16(h[2:], uint16(len(h)+len(payload)))
	bytewise.BigEndian.PutUint16(h[4:], 77)
	if more {
		offset |= 1 << 13
	}
	bytewise.BigEndian.PutUint16(h[6:], offset)
	h[8], h[9] = 64, headerTCP
	copy(h[12:], src.AsSlice())
	copy(h[16:], dst.AsSlice())
	bytewise.BigEndian.PutUint16(h[10:], checksum(h))
	return append(h, payload...)
}

// ipv6 is a packet whose first header behind the fixed one is next.
func ipv6(src, dst netip.Addr, next byte, payload ...[]byte) []byte {
	h := make([]byte, 40)
	h[0], h[6], h[7] = 6<<4, next, 64
	copy(h[8:], src.AsSlice())
	copy(h[24:], dst.AsSlice())
	for _, p := range payload {
		h = append(h, p...)
	}
	bytewise.BigEndian.PutUint16(h[4:], uint16(len(h)-40))
	return h
}

// send puts a packet on the wire from the customer to the gateway as it is.
func (g *gateway) send(t *testing.T, packet []byte) {
	t.Helper()
	mac, err := net.ParseMAC(strings.TrimSpace(g.gw.sh("ip -o link show cust0 | grep -o 'ether [0-9a-f:]*' | cut -c7-")))
	if err != nil {
		t.Fatal(err)
	}
	kind := uint16(unix.ETH_P_IP)
	if packet[0]>>4 == 6 {
		kind = unix.ETH_P_IPV6
	}
	g.cust.in(func() {
		var eth *net.Interface
		if eth, err = net.InterfaceByName("eth0"); err != nil {
			return
		}
		var fd int
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return
		}
		defer unix.Close(fd)
		to := unix.SockaddrLinklayer{Protocol: kind>>8 | kind<<8, Ifindex: eth.Index, Halen: 6}
		copy(to.Addr[:], mac)
		err = unix.Sendto(fd, packet, 0, &to)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestHeaderShapes: whatever a SYN to port 25 is wrapped in, the proxy gets it or nobody does, and it is counted. What may
// go on are later fragments, of which nobody can make a packet, and resets by the customer's kernel, which knows nothing
// of these SYNs.
func TestHeaderShapes(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	g.helper(g.config(`path = "nftables"`))
	p := g.proxy()
	g.net.sh(`nft -f - <<-'X'
		table inet seen {
			counter mail { }
			chain prerouting { type filter hook prerouting priority raw
				tcp flags rst accept
				frag frag-off > 0 accept
				ip saddr 192.0.2.10 counter name mail
				ip6 saddr 2001:db8:1::10 counter name mail
			}
		}
		X`)
	c4, m4 := netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("198.51.100.25")
	c6, m6 := netip.MustParseAddr("2001:db8:1::10"), netip.MustParseAddr("2001:db8:100::25")
	syn := func(src, dst netip.Addr, sport uint16) []byte { return tcpBytes(src, dst, sport, 25, flagSYN) }
	fragment := func(next byte, id uint32, offsetAndMore uint16) []byte {
		return bytewise.BigEndian.AppendUint32(bytewise.BigEndian.AppendUint16([]byte{next, 0}, offsetAndMore), id)
	}
	options := func(next byte) []byte { return []byte{next, 0, 1, 4, 0, 0, 0, 0} }
	for i, c := range []struct {
		name, counter string
		packets       [][]byte
	}{
		{"plain", "intercept", [][]byte{ipv4(c4, m4, nil, false, 0, syn(c4, m4, 5001))}},
		{"IPv4 options", "intercept", [][]byte{ipv4(c4, m4, []byte{1, 1, 1, 1}, false, 0, syn(c4, m4, 5002))}},
		{"fragments", "intercept", [][]byte{
			ipv4(c4, m4, nil, true, 0, syn(c4, m4, 5003)[:16]), ipv4(c4, m4, nil, false, 2, syn(c4, m4, 5003)[16:])}},
		{"tiny fragments, the last one first", "intercept", [][]byte{
			ipv4(c4, m4, nil, false, 1, syn(c4, m4, 5004)[8:]), ipv4(c4, m4, nil, true, 0, syn(c4, m4, 5004)[:8])}},
		{"no flag at all", "half_open", [][]byte{ipv4(c4, m4, nil, false, 0, tcpBytes(c4, m4, 5005, 25, 0))}},
		{"IPv6", "intercept", [][]byte{ipv6(c6, m6, headerTCP, syn(c6, m6, 5006))}},
		{"destination options", "intercept", [][]byte{ipv6(c6, m6, headerOptions, options(headerTCP), syn(c6, m6, 5007))}},
		{"fragments of IPv6", "frag_first", [][]byte{
			ipv6(c6, m6, headerFragment, fragment(headerTCP, 1, 1), syn(c6, m6, 5008)[:16]),
			ipv6(c6, m6, headerFragment, fragment(headerTCP, 1, 16), syn(c6, m6, 5008)[16:])}},
		{"a fragment that is the whole", "intercept", [][]byte{ipv6(c6, m6, headerFragment, fragment(headerTCP, 2, 0), syn(c6, m6, 5009))}},
		{"tiny fragments of IPv6", "frag_first", [][]byte{
			ipv6(c6, m6, headerFragment, fragment(headerTCP, 5, 1), syn(c6, m6, 5011)[:8]),
			ipv6(c6, m6, headerFragment, fragment(headerTCP, 5, 8), syn(c6, m6, 5011)[8:])}},
		{"options before fragments", "frag_first", [][]byte{
			ipv6(c6, m6, headerOptions, options(headerFragment), fragment(headerTCP, 3, 1), syn(c6, m6, 5010)[:16]),
			ipv6(c6, m6, headerOptions, options(headerFragment), fragment(headerTCP, 3, 16), syn(c6, m6, 5010)[16:])}},
		{"a first fragment that ends before TCP", "truncated", [][]byte{
			ipv6(c6, m6, headerFragment, fragment(headerOptions, 4, 1), []byte{headerTCP, 1}, make([]byte, 6))}},
	} {
		before := count(t, p, c.counter)
		for _, packet := range c.packets {
			g.send(t, packet)
		}
		for until := time.Now().Add(time.Minute); count(t, p, c.counter) == before; {
			if time.Now().After(until) {
				t.Errorf("%d, %s: not counted as %s:\n%s", i, c.name, c.counter, g.gw.sh("nft list counters | grep -B1 'packets [1-9]'"))
				break
			}
		}
	}
	if got := g.net.sh("nft list counter inet seen mail | grep packets"); !strings.Contains(got, "packets 0 ") {
		t.Errorf("the world saw %s", strings.TrimSpace(got))
	}
}

func count(t *testing.T, p *process, name string) int {
	t.Helper()
	n, err := strconv.Atoi(p.ask("counter %s", name))
	if err != nil {
		t.Fatal(fmt.Errorf("counter %s: %w", name, err))
	}
	return n
}
