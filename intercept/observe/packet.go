package observe

import (
	"net/netip"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"sluice/bpf"
)

// Packets turns IP packets, or their beginnings, into segments of flows. It is for one goroutine.
type Packets struct {
	mail   func(port uint16) bool
	ip4    layers.IPv4
	ip6    layers.IPv6
	skip   layers.IPv6ExtensionSkipper
	tcp    layers.TCP
	four   *gopacket.DecodingLayerParser
	six    *gopacket.DecodingLayerParser
	layers []gopacket.LayerType
}

// NewPackets takes the ports of servers.
func NewPackets(mail func(port uint16) bool) *Packets {
	p := &Packets{mail: mail}
	p.four = gopacket.NewDecodingLayerParser(layers.LayerTypeIPv4, &p.ip4, &p.tcp)
	p.six = gopacket.NewDecodingLayerParser(layers.LayerTypeIPv6, &p.ip6, &p.skip, &p.tcp)
	p.four.IgnoreUnsupported, p.six.IgnoreUnsupported = true, true
	return p
}

// packet is what one tells of a flow.
type packet struct {
	bpf.Segment        // without its end
	fin, rst    bool   // it has
	whole       uint32 // bytes of payload, of which Data may be the beginning
	ack         uint32 // 0 where nothing is acknowledged
}

// parse reads one; false where it is none of a mail flow.
func (p *Packets) parse(b []byte) (out packet, ok bool) {
	if len(b) == 0 {
		return out, false
	}
	var src, dst netip.Addr
	var length, header int
	switch b[0] >> 4 {
	case 4:
		if p.four.DecodeLayers(b, &p.layers) != nil && len(p.layers) < 2 {
			return out, false
		}
		src, _ = netip.AddrFromSlice(p.ip4.SrcIP)
		dst, _ = netip.AddrFromSlice(p.ip4.DstIP)
		length, header = int(p.ip4.Length), 4*int(p.ip4.IHL)
	case 6:
		if p.six.DecodeLayers(b, &p.layers) != nil && len(p.layers) < 2 {
			return out, false
		}
		src, _ = netip.AddrFromSlice(p.ip6.SrcIP)
		dst, _ = netip.AddrFromSlice(p.ip6.DstIP)
		length, header = 40+int(p.ip6.Length), 40
	default:
		return out, false
	}
	if n := len(p.layers); n == 0 || p.layers[n-1] != layers.LayerTypeTCP || len(p.tcp.Contents) == 0 {
		return out, false
	}
	if len(p.layers) == 3 { // extension headers: where TCP begins tells how long they are
		header = len(b) - len(p.tcp.Contents) - len(p.tcp.Payload)
	}
	t := &p.tcp
	out.whole = uint32(max(len(t.Payload), length-header-len(t.Contents)))
	out.Seq, out.Data, out.SYN, out.fin, out.rst = t.Seq, t.Payload, t.SYN, t.FIN, t.RST
	if t.ACK {
		out.ack = t.Ack
	}
	client, server := netip.AddrPortFrom(src, uint16(t.SrcPort)), netip.AddrPortFrom(dst, uint16(t.DstPort))
	switch {
	case p.mail(server.Port()) && !(t.SYN && t.ACK):
	case p.mail(client.Port()):
		client, server, out.FromServer = server, client, true
	default:
		return out, false
	}
	out.Client, out.Server = client, server
	return out, true
}

// AddPacket takes an IP packet from a source that passes on the beginning of what a side says, and not where it left off:
// that shows when the other side answers.
func (o *Observer) AddPacket(p *Packets, b []byte, at time.Time) {
	k, ok := p.parse(b)
	if !ok {
		return
	}
	d := side(k.FromServer)
	if k.SYN {
		s := k.Segment
		s.Data = nil
		o.Add(s, at)
		return
	}
	f := o.flows[flowKey{k.Client, k.Server}]
	if f == nil {
		return
	}
	o.now = at
	if k.whole > 0 && k.ack != 0 {
		o.answered(f, 1-d, k.ack)
	}
	end := k.fin || k.rst
	if end && int32(k.Seq-f.last[d]) > 0 { // an end comes in any case; what stands before it does not
		o.leaveOff(f, d)
	}
	if len(k.Data) > 0 && !f.cut[d] { // else it follows bytes that did not come, in the same breath
		o.Add(k.Segment, at)
		if k.whole > uint32(len(k.Data)) {
			o.leaveOff(f, d)
		}
	}
	if end {
		s := k.Segment
		s.Data, s.Seq, s.FIN, s.RST = nil, k.Seq+k.whole, k.fin, k.rst
		o.Add(s, at)
	}
}

// leaveOff says that the rest of what a direction says now does not come.
func (o *Observer) leaveOff(f *flow, d int) {
	if !f.cut[d] {
		f.cut[d] = true
		f.dialogue.fill(d == 1, o.now)
	}
}

// answered hears that the other side has all that a direction said up to a sequence number.
func (o *Observer) answered(f *flow, d int, seq uint32) {
	if f.last[d] == 0 || int32(seq-f.last[d]) <= 0 {
		return
	}
	o.leaveOff(f, d)
	o.resume(f, d, seq)
}
