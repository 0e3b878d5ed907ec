//go:build bpftest

package bpf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"sluice/bpf/model"
)

// shapes are packets with every kind of header.
func shapes() map[string]frame {
	dst := []byte{6, 0, 1, 4, 0, 0, 0, 0}
	return map[string]frame{
		"SYN": v4, "SYN of IPv6": v6, "data": with(v4, func(f *frame) { f.flags, f.payload = ack, 30 }),
		"no mail":                with(v4, func(f *frame) { f.dport = 443 }),
		"no mail of IPv6":        with(v6, func(f *frame) { f.dport = 443 }),
		"UDP":                    udp,
		"options":                with(v4, func(f *frame) { f.options = []byte{1, 1, 7, 3, 4, 0, 0, 0} }),
		"source route":           with(v4, func(f *frame) { f.options = []byte{1, 131, 7, 4, 198, 51, 100, 26} }),
		"fragment":               with(v4, func(f *frame) { f.fragment = 0x2000 }),
		"later fragment":         with(v4, func(f *frame) { f.fragment = 0x2001 }),
		"destination options":    with(v6, func(f *frame) { f.next, f.headers = 60, dst }),
		"authentication":         with(v6, func(f *frame) { f.next, f.headers = 51, append([]byte{6, 1, 0, 0}, make([]byte, 8)...) }),
		"routing and a fragment": with(v6, func(f *frame) { f.next, f.headers = 43, []byte{44, 0, 0, 1, 0, 0, 0, 0, 6, 0, 0, 1, 0, 0, 0, 1} }),
		"fragment of IPv6":       with(v6, func(f *frame) { f.next, f.headers = 44, append([]byte{60, 0, 0, 1, 0, 0, 0, 1}, dst...) }),
		"answer":                 with(v4.swap(), func(f *frame) { f.src, f.dst, f.flags = "198.51.100.77", "192.0.2.77", ack }),
		"path MTU": {src: "192.0.2.77", dst: "198.51.100.77", proto: 1, raw: append([]byte{3, 4, 0, 0, 0, 0, 5, 0},
			frame{src: "198.51.100.77", dst: "192.0.2.77", sport: 25, dport: 40000, flags: ack}.build()[14:]...)},
		"path MTU of IPv6": {src: "2001:db8:1::77", dst: "2001:db8:100::77", proto: 58, raw: append([]byte{2, 0, 0, 0, 0, 0, 5, 0},
			frame{src: "2001:db8:100::77", dst: "2001:db8:1::77", sport: 25, dport: 40000, flags: ack}.build()[14:]...)},
	}
}

// TestCutAndSplitAtEveryByte sends each shape cut off behind every byte, and lying in memory in two pieces at every byte,
// and asks the model. Where a packet is split must change nothing.
func TestCutAndSplitAtEveryByte(t *testing.T) {
	t.Parallel()
	c := newComparison(t)
	tun, tap := c.wires[0], c.wires[1]
	tables := &model.Tables{Intercept: markIntercept, Judged: markJudged, Listener: true, Start: c.now(),
		Unknown: model.Source{Mode: model.Reject, Closed: true}, Locks: []model.Lock{{Prefix: prefix("192.0.2.99/32")}}}
	state := &model.State{Socket: c.socket, LockBudgets: map[uint32]model.Budget{}, OpenBudgets: map[netip.Prefix]model.Budget{}}
	c.load(tables, state, c.fill)
	packets := 0
	for _, mode := range []model.Mode{model.Reject, model.Pass} {
		tables.Unknown.Mode = mode
		c.load(tables, state, c.fill)
		for name, f := range shapes() {
			whole := f.build()
			for n := 14; n <= len(whole); n++ {
				c.compare(fmt.Sprintf("%s, mode %v, %d bytes", name, Mode(mode), n), tap, tables.Ingress, state, whole[:n], 0)
				packets++
				if n > 14 {
					c.compare(fmt.Sprintf("%s, mode %v, %d bytes without Ethernet", name, Mode(mode), n-14), tun, tables.Ingress, state, whole[14:n], 0)
					packets++
				}
			}
			for linear := 14; linear <= len(whole); linear++ {
				c.compare(fmt.Sprintf("%s, mode %v, split at %d", name, Mode(mode), linear), tap, tables.Ingress, state, whole, linear)
				packets++
			}
		}
	}
	t.Logf("%d packets", packets)
}

// compare holds that a program at a device and the model say the same of a frame.
func (c *comparison) compare(name string, w *wire, judge func(*model.State, model.Packet, uint64) model.Verdict, s *model.State, frame []byte, linear int) {
	c.Helper()
	if _, d := c.differAtDevice(w, judge, s, frame, linear); d != "" {
		c.Errorf("%s: %s", name, d)
	}
}

// differAtDevice gives a frame to a program at a device and to the model; it tells the model's reasons, and how they differ.
func (c *comparison) differAtDevice(w *wire, judge func(*model.State, model.Packet, uint64) model.Verdict, s *model.State, frame []byte, linear int) (reasons []string, d string) {
	c.Helper()
	p, tag, ok := w.packet(frame, linear)
	if !ok {
		return nil, ""
	}
	now := c.now()
	ret, out, mark := w.give(frame, linear)
	if ret == refused {
		return nil, ""
	}
	want := outcome{Verdict: judge(s, p, now), frame: p.Frame}
	if want.Action == model.Reset {
		want.frame = model.ResetOf(p)
		if tag != nil {
			want.frame = slices.Insert(want.frame, 12, tag...)
		}
	}
	if ret == next || ret == okay {
		out = p.Frame
	}
	got := outcome{Verdict: model.Verdict{Action: actions[ret], Mark: mark, Reasons: c.counted()}, frame: out}
	if d = differ(want, got); d != "" {
		d = fmt.Sprintf("%s\n%x, split at %d", d, frame, linear)
	}
	return want.Reasons, d
}

// packet is the frame as the program will see it. The kernel takes the outermost tag off, or drops a frame that ends in it.
func (w *wire) packet(frame []byte, linear int) (p model.Packet, tag []byte, ok bool) {
	p = model.Packet{Frame: frame, Ifindex: w.device.index, Ingress: w.device.index}
	if linear > 0 {
		p.Frame = append(bytes.Clone(frame), make([]byte, beyondPage)...)
	}
	if !w.device.ethernet {
		p.Proto = map[byte]uint16{4: 0x0800, 6: 0x86dd}[frame[0]>>4]
		return p, nil, true
	}
	p.L2, p.Proto, p.Others = 14, binary.BigEndian.Uint16(frame[12:]), !bytes.Equal(frame[:6], gwMAC)
	if p.Proto != 0x8100 && p.Proto != 0x88a8 {
		return p, nil, true
	}
	if len(p.Frame) < 14+6 {
		return p, nil, false
	}
	p.Tagged, p.VLAN = true, binary.BigEndian.Uint16(p.Frame[14:])&0xfff
	p.Proto = binary.BigEndian.Uint16(p.Frame[16:])
	tag = p.Frame[12:16]
	p.Frame = slices.Delete(bytes.Clone(p.Frame), 12, 16)
	return p, bytes.Clone(tag), true
}
