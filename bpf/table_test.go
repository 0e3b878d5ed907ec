//go:build bpftest

package bpf

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"strings"
	"testing"

	"sluice/bpf/model"
)

// A verdict is one packet in one state: what the program answers, the one counter that moves, and the mark.
type verdict struct {
	name    string
	state   func(*lab)
	program string // empty: mail_ingress
	packet  frame
	raw     []byte // instead of packet
	in      skb
	want    uint32
	reason  string // empty: not counted at all
	mark    uint32
	taken   string // the reason where sockets can be assigned, if the one above is `assigned`; empty: intercept
	beside  string // a second counter that moves

	indoors  bool // only a test run shows it
	ethernet bool // it is about Ethernet
}

// The kernel refuses to assign sockets in a test run, so a SYN for the listener shows as this reason beside another; at a
// device it shows as what it is.
const assigned = "assign_failed"

func (v verdict) frame() []byte {
	if v.raw != nil {
		return v.raw
	}
	return v.packet.build()
}

func (v verdict) on() string {
	if v.program == "" {
		return MailIngress
	}
	return v.program
}

// prepare makes the state that the verdict is about.
func (v verdict) prepare(t testing.TB, l *lab) {
	t.Helper()
	l.TB = t
	l.reset()
	if v.state != nil {
		v.state(l)
	}
}

// inTestRun gives the packet to the program directly.
func (v verdict) inTestRun(t testing.TB, l *lab) {
	t.Helper()
	v.prepare(t, l)
	ret, out, mark := l.run(v.on(), v.frame(), v.in)
	if v.reason == assigned {
		v.beside = map[uint32]string{shot: "wait_drop", redirect: "lock_reset"}[v.want]
	}
	if mark != v.mark {
		t.Errorf("mark is %#x, want %#x", mark, v.mark)
	}
	v.check(t, l, ret, v.frame(), out, 14)
}

// atDevice sends the packet through a device at which the program stands.
func (v verdict) atDevice(t testing.TB, l *lab, w *wire) {
	t.Helper()
	v.prepare(t, l)
	w.TB = t
	frame, program, l2 := v.frame(), v.on(), 14
	if !w.device.ethernet {
		frame, program, l2 = frame[14:], program+"_l3", 0
	}
	w.use(l.Program(program))
	if v.reason == assigned {
		v.want, v.reason, v.mark = okay, v.taken, markIntercept|markJudged
		if v.taken == "" {
			v.reason = "intercept"
		}
	}
	ret, out, mark := w.give(frame, 0)
	if (ret == next || ret == okay) && mark != v.mark {
		t.Errorf("mark is %#x, want %#x", mark, v.mark)
	}
	v.check(t, l, ret, frame, out, l2)
}

func (v verdict) check(t testing.TB, l *lab, ret uint32, in, out []byte, l2 int) {
	t.Helper()
	if ret != v.want {
		t.Errorf("answer is %d, want %d", int32(ret), int32(v.want))
	}
	want := map[string]uint64{}
	for _, reason := range []string{v.reason, v.beside} {
		if reason != "" {
			want[reason] = 1
		}
	}
	if got := l.counts(); !maps.Equal(got, want) {
		t.Errorf("counters are %v, want %v", got, want)
	}
	switch {
	case ret == redirect:
		proto := uint16(0x0800)
		if src := v.packet.src; v.raw == nil && strings.Contains(src, ":") {
			proto = 0x86dd
		}
		if whole := model.ResetOf(model.Packet{Frame: in, L2: l2, Proto: proto}); !bytes.Equal(out, whole) {
			t.Errorf("the reset is\n%x, want\n%x", out, whole)
		}
	case ret != shot && !bytes.Equal(out, in):
		t.Errorf("the packet was changed to %x", out)
	}
}

var tables = map[string]func() []verdict{
	"foreign": foreignPackets, "modes": modes, "longest prefix": longestPrefix, "destinations": destinations, "ports": portsBeside25,
	"binding and reverse path": bindingAndReversePath, "bypass": bypassOpen, "locks": locksInForce, "proxy away": proxyAway,
	"options and headers": optionsAndHeaders, "fragments": fragments, "guard": guardAtTheUplink,
	"answers on the uplink": answersOnTheUplink, "answers at a customer": answersAtACustomer, "sockets": socketsHere, "SYNs": synsAboveTheRate,
}

// named puts a name before what a test says. Subtests would run in goroutines of their own, outside the namespace.
type named struct {
	testing.TB
	name string
}

func (n named) Errorf(format string, args ...any) {
	n.Helper()
	n.TB.Errorf(n.name+": "+format, args...)
}

// TestPacketTable gives every packet of the tables to its program: in a test run, at a device with Ethernet and at one
// without. Then each reason and each program must have had a packet of each family.
func TestPacketTable(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	l := newLab(t, Options{})
	tap, tun := newWire(t, &p.tap, l.Program(MailIngress)), newWire(t, &p.tun, l.Program(MailIngressL3))
	seen := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(tables)) {
		for _, v := range tables[name]() {
			packet := v.frame()
			family := map[string]string{"\x08\x00": "IPv4", "\x86\xdd": "IPv6"}[string(packet[12:14])]
			v.inTestRun(named{t, name + ", " + v.name}, l)
			seen[v.on()+family], seen[v.reason+family] = true, true
			if v.indoors || v.in.Mark != 0 || v.on() == UplinkGuard && v.in.IngressIfindex == 0 {
				continue
			}
			v.atDevice(named{t, name + ", " + v.name + ", with Ethernet"}, l, tap)
			if v.reason == assigned {
				seen[cmp.Or(v.taken, "intercept")+family] = true
			}
			if family == "" || v.ethernet {
				continue
			}
			v.atDevice(named{t, name + ", " + v.name + ", without Ethernet"}, l, tun)
			seen[v.on()+"_l3"+family] = true
		}
	}
	l.TB, tap.TB, tun.TB = t, t, t
	programs := []string{MailIngress, MailIngressL3, UplinkIngress, UplinkIngressL3, UplinkGuard, UplinkGuardL3}
	for _, name := range append(programs, reasons[:]...) {
		for _, family := range []string{"IPv4", "IPv6"} {
			if !seen[name+family] && elsewhere[name] != "both" && elsewhere[name] != family {
				t.Errorf("no packet of %s in the tables is for %s", family, name)
			}
		}
	}
}

// elsewhere names what the tables cannot show, and the family that does not have it.
var elsewhere = map[string]string{
	"cookie":      "both", // TestOnTheWire: only a real handshake has cookies
	"challenge":   "both", // TestOnTheWire: only a real end has a last ACK
	"too_big":     "both", // TestOnTheWire: only what leaves the room is measured
	"nested_vlan": "both", // TestTagsInsideAPriorityTag: such a packet is not IP
	"user_full":   "both", // TestUserCounters: it has no family
	"bad_address": "IPv4",
}
