//go:build bpftest

package bpf

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"testing"
	"time"
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
}

// The kernel refuses to assign sockets in a test run, so a SYN for the listener shows as this reason beside wait_drop; the
// assignment itself is proven in network namespaces.
const assigned = "assign_failed"

func (v verdict) check(t *testing.T, l *lab) {
	t.Helper()
	l.TB = t
	l.reset()
	if v.state != nil {
		v.state(l)
	}
	packet := v.raw
	if packet == nil {
		packet = v.packet.build()
	}
	program := v.program
	if program == "" {
		program = MailIngress
	}
	ret, out, mark := l.run(program, packet, v.in)
	if ret != v.want {
		t.Errorf("answer is %d, want %d", int32(ret), int32(v.want))
	}
	want := map[string]uint64{}
	if v.reason != "" {
		want[v.reason] = 1
	}
	if v.reason == assigned {
		want["wait_drop"] = 1
	}
	if got := l.counts(); !maps.Equal(got, want) {
		t.Errorf("counters are %v, want %v", got, want)
	}
	if mark != v.mark {
		t.Errorf("mark is %#x, want %#x", mark, v.mark)
	}
	if ret == redirect {
		checkReset(t, packet, out)
	} else if string(out) != string(packet) {
		t.Errorf("the packet was changed to %x", out)
	}
}

func checkAll(t *testing.T, cases []verdict) {
	l := newLab(t, Options{})
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { c.check(t, l) })
	}
}

var (
	v4  = frame{src: "192.0.2.10", dst: "198.51.100.25"}
	v6  = frame{src: "2001:db8:1::10", dst: "2001:db8:100::25"}
	udp = frame{src: v4.src, dst: v4.dst, proto: 17}
)

// with changes a copy of a frame.
func with(f frame, change func(*frame)) frame {
	change(&f)
	return f
}

func fallback(m Mode) func(*lab) {
	return func(l *lab) { l.configure(Source{Mode: m}) }
}

func TestForeignPacketsAreLetAlone(t *testing.T) {
	all := Source{Mode: ModeDrop}
	state := func(l *lab) {
		l.configure(all)
		l.locks(Lock{Prefix: prefix("0.0.0.0/0"), ID: 1}, Lock{Prefix: prefix("::/0"), ID: 1})
	}
	to := func(f frame, sport, dport uint16) frame {
		f.sport, f.dport = sport, dport
		return f
	}
	answer := func(f frame, flags byte) frame {
		f.sport, f.dport, f.flags = 25, 40000, flags
		return f
	}
	checkAll(t, []verdict{
		{name: "UDP", state: state, packet: udp, want: next},
		{name: "UDP of IPv6", state: state, packet: with(v6, func(f *frame) { f.proto = 17 }), want: next},
		{name: "short UDP", state: state, packet: with(udp, func(f *frame) { f.cut = 12 }), want: next},
		{name: "port 443", state: state, packet: to(v4, 40000, 443), want: next},
		{name: "port 443 of IPv6", state: state, packet: to(v6, 40000, 443), want: next},
		{name: "port 587 without a rule", state: state, packet: to(v4, 40000, 587), want: next},
		{name: "customer's server accepts", state: state, packet: answer(v4, syn|ack), want: next},
		{name: "customer's server sends", state: state, packet: answer(v6, ack), want: next},
		{name: "customer's server ends", state: state, packet: answer(v4, fin|ack), want: next},
		{name: "ICMP echo", state: state, packet: with(v4, func(f *frame) { f.proto = 1 }), want: next},
		{name: "ARP", state: state, raw: append(append(append([]byte{}, gwMAC...), custMAC...), append([]byte{8, 6}, make([]byte, 40)...)...), want: next},
	})
}

func TestModes(t *testing.T) {
	modes := []struct {
		mode   Mode
		want   uint32
		reason string
		mark   uint32
	}{
		{ModePass, next, "pass", markJudged},
		{ModeObserve, next, "observe", markJudged},
		{ModeReject, redirect, "reject", 0},
		{ModeDrop, shot, "drop", 0},
		{ModeIntercept, shot, assigned, 0},
		{ModeShadow, shot, assigned, 0},
	}
	var cases []verdict
	for _, m := range modes {
		for i, f := range []frame{v4, v6} {
			state := func(l *lab) { l.configure(Source{Mode: m.mode}); l.listener(); l.beat(time.Millisecond, 0) }
			cases = append(cases, verdict{name: fmt.Sprint(m.mode, i), state: state, packet: f, want: m.want, reason: m.reason, mark: m.mark})
		}
	}
	// Bits of the mark that are not ours stay, ours from elsewhere do not count.
	cases = append(cases,
		verdict{name: "mark of others", state: fallback(ModePass), packet: v4, in: skb{Mark: 0x1007 | markIntercept}, want: next, reason: "pass", mark: 0x1007 | markJudged},
		verdict{name: "SYN with data", state: fallback(ModeReject), packet: with(v4, func(f *frame) { f.payload = 100 }), want: redirect, reason: "reject"},
		verdict{name: "IPv6 SYN with data", state: fallback(ModeReject), packet: with(v6, func(f *frame) { f.payload = 33 }), want: redirect, reason: "reject"},
		verdict{name: "SYN with FIN", state: fallback(ModeDrop), packet: with(v4, func(f *frame) { f.flags = syn | fin }), want: shot, reason: "drop"},
		verdict{name: "padded frame", state: fallback(ModeReject), packet: with(v4, func(f *frame) { f.padding = make([]byte, 6) }), want: redirect, reason: "reject"},
		verdict{name: "from port 25 to port 25", state: fallback(ModeDrop), packet: with(v4, func(f *frame) { f.sport = 25 }), want: shot, reason: "drop"},
		verdict{name: "flow older than us", state: fallback(ModeDrop), packet: with(v4, func(f *frame) { f.flags = ack }), want: next, reason: "old_flow", mark: markJudged},
		verdict{name: "before SetConfig", state: func(l *lab) {
			l.must(l.objects.Config.Put(uint32(0), mailConfig{Fallback: mailSource{Mode: mailModeMODE_PASS}}))
		},
			packet: v4, want: next, reason: "pass"},
	)
	checkAll(t, cases)
}

func TestSourceOfTheLongestPrefixDecides(t *testing.T) {
	table := func(list ...Source) func(*lab) {
		return func(l *lab) { l.configure(Source{Mode: ModePass}); l.sources(list...) }
	}
	src := func(p string, m Mode) Source { return Source{Prefix: prefix(p), Mode: m, User: 7} }
	checkAll(t, []verdict{
		{name: "unknown", state: table(src("192.0.2.11/32", ModeDrop)), packet: v4, want: next, reason: "pass", mark: markJudged},
		{name: "exact", state: table(src("192.0.2.10/32", ModeDrop), src("192.0.2.0/24", ModePass)), packet: v4, want: shot, reason: "drop"},
		{name: "prefix", state: table(src("192.0.2.0/24", ModeDrop), src("192.0.0.0/16", ModePass)), packet: v4, want: shot, reason: "drop"},
		{name: "all of IPv4", state: table(src("0.0.0.0/0", ModeDrop)), packet: v4, want: shot, reason: "drop"},
		{name: "all of IPv6 is not IPv4", state: table(src("::/0", ModeDrop)), packet: v4, want: next, reason: "pass", mark: markJudged},
		{name: "all of IPv4 is not IPv6", state: table(src("0.0.0.0/0", ModeDrop)), packet: v6, want: next, reason: "pass", mark: markJudged},
		{name: "IPv6 exact", state: table(src("2001:db8:1::10/128", ModeDrop), src("2001:db8:1::/64", ModePass)), packet: v6, want: shot, reason: "drop"},
		{name: "IPv6 subnet", state: table(src("2001:db8:1::/64", ModeDrop), src("2001:db8::/32", ModePass)), packet: v6, want: shot, reason: "drop"},
		{name: "IPv6 first address is not its subnet", state: table(src("2001:db8:1::/128", ModeDrop)), packet: v6, want: next, reason: "pass", mark: markJudged},
		{name: "IPv6 prefix", state: table(src("2001:db8::/32", ModeDrop)), packet: v6, want: shot, reason: "drop"},
		{name: "IPv6 inside a subnet", state: table(src("2001:db8:1::/112", ModeDrop), src("2001:db8:1::/64", ModePass)), packet: v6, want: shot, reason: "drop"},
		{name: "IPv6 beside what is inside a subnet", state: table(src("2001:db8:1::1:0/112", ModePass), src("2001:db8:1::/64", ModeDrop)), packet: v6, want: shot, reason: "drop"},
	})
}

func TestDestinations(t *testing.T) {
	exempt := func(m Mode, list ...Exemption) func(*lab) {
		return func(l *lab) { l.configure(Source{Mode: m}); l.exemptions(list...) }
	}
	local := func(p ...netip.Prefix) func(*lab) {
		return func(l *lab) {
			l.configure(Source{Mode: ModeDrop})
			l.locks(Lock{Prefix: prefix("0.0.0.0/0")})
			_, err := l.ReplaceLocal(p)
			l.must(err)
		}
	}
	loop := func(l *lab) {
		_, err := l.ReplaceDelivery([]netip.Prefix{prefix("192.0.2.8/29")})
		l.must(err)
	}
	mx := prefix("198.51.100.25/32")
	checkAll(t, []verdict{
		{name: "exempt address", state: exempt(ModeDrop, Exemption{Prefix: mx, Mode: ModePass}), packet: v4, want: next, reason: "pass", mark: markJudged},
		{name: "exempt prefix", state: exempt(ModeDrop, Exemption{Prefix: prefix("198.51.100.0/24"), Mode: ModePass}), packet: v4, want: next, reason: "pass", mark: markJudged},
		{name: "exempt IPv6", state: exempt(ModeDrop, Exemption{Prefix: prefix("2001:db8:100::/48"), Mode: ModePass}), packet: v6, want: next, reason: "pass", mark: markJudged},
		{name: "exempt for worse", state: exempt(ModePass, Exemption{Prefix: mx, Mode: ModeReject}), packet: v4, want: redirect, reason: "reject"},
		{name: "longer prefix wins", state: exempt(ModeObserve, Exemption{Prefix: mx, Mode: ModePass}, Exemption{Prefix: prefix("198.51.100.0/24"), Port: 25, Mode: ModeDrop}), packet: v4, want: next, reason: "pass", mark: markJudged},
		{name: "port wins at equal length", state: exempt(ModeObserve, Exemption{Prefix: mx, Port: 25, Mode: ModePass}, Exemption{Prefix: mx, Mode: ModeDrop}), packet: v4, want: next, reason: "pass", mark: markJudged},
		{name: "another port", state: exempt(ModeDrop, Exemption{Prefix: mx, Port: 26, Mode: ModePass}), packet: v4, want: shot, reason: "drop"},
		{name: "expired inside a live one", state: exempt(ModeDrop, Exemption{Prefix: prefix("198.51.100.0/24"), Mode: ModePass}, Exemption{Prefix: mx, Mode: ModeReject, Until: in(-time.Second)}), packet: v4, want: next, reason: "pass", mark: markJudged},
		{name: "expired", state: exempt(ModeDrop, Exemption{Prefix: mx, Mode: ModePass, Until: in(-time.Second)}), packet: v4, want: shot, reason: "drop"},
		{name: "not yet expired", state: exempt(ModeDrop, Exemption{Prefix: mx, Mode: ModePass, Until: in(time.Hour)}), packet: v4, want: next, reason: "pass", mark: markJudged},
		{name: "the gateway itself", state: local(mx), packet: v4, want: next, reason: "local", mark: markJudged},
		{name: "the gateway's flow", state: local(mx), packet: with(v4, func(f *frame) { f.flags = ack }), want: next, reason: "old_flow", mark: markJudged},
		{name: "not the gateway", state: local(prefix("198.51.100.26/32")), packet: with(v4, func(f *frame) {}), want: shot, reason: "drop"},
		{name: "loop", state: loop, packet: v4, want: shot, reason: "loop"},
	})
}

func TestPorts(t *testing.T) {
	state := func(m Mode, rules ...PortRule) func(*lab) {
		return func(l *lab) {
			l.configure(Source{Mode: m}, rules...)
			l.locks(Lock{Prefix: prefix("192.0.2.99/32")})
		}
	}
	to := func(port uint16) frame { f := v4; f.dport = port; return f }
	locked := func(l *lab) {
		l.configure(Source{Mode: ModeIntercept}, PortRule{Port: 587, Mode: ModePass})
		l.locks(Lock{Prefix: prefix("192.0.2.0/24")})
	}
	rules := []PortRule{{Port: 2525}, {Ifindex: 1, Port: 26}, {Ifindex: 99, Port: 24}, {Port: 587, Mode: ModePass}, {Port: 465, Mode: ModeReject}}
	checkAll(t, []verdict{
		{name: "everywhere", state: state(ModeDrop, rules...), packet: to(2525), want: shot, reason: "drop"},
		{name: "on this interface", state: state(ModeDrop, rules...), packet: to(26), want: shot, reason: "drop"},
		{name: "on another interface", state: state(ModeDrop, rules...), packet: to(24), want: next},
		{name: "submission passed", state: state(ModeDrop, rules...), packet: to(587), want: next, reason: "port_pass", mark: markJudged},
		{name: "submission refused", state: state(ModePass, rules...), packet: to(465), want: redirect, reason: "port_reject"},
		{name: "submission of a locked source", state: locked, packet: to(587), want: next, reason: "port_pass", mark: markJudged},
		{name: "submission flow of a locked source", state: locked, packet: with(to(587), func(f *frame) { f.flags = ack }), want: next, reason: "old_flow", mark: markJudged},
		{name: "25 as ever", state: state(ModeDrop, rules...), packet: to(25), want: shot, reason: "drop"},
	})
}

func TestBindingAndReversePath(t *testing.T) {
	bound := func(s Source) func(*lab) {
		s.Prefix, s.Mode = prefix("192.0.2.10/32"), ModePass
		return func(l *lab) { l.sources(s) }
	}
	checkAll(t, []verdict{
		{name: "right interface", state: bound(Source{Ifindex: 1}), packet: v4, want: next, reason: "pass", mark: markJudged},
		{name: "wrong interface", state: bound(Source{Ifindex: 99}), packet: v4, want: shot, reason: "spoof_bind"},
		{name: "right MAC", state: bound(Source{MAC: custMAC}), packet: v4, want: next, reason: "pass", mark: markJudged},
		{name: "wrong MAC", state: bound(Source{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 0x11}}), packet: v4, want: shot, reason: "spoof_bind"},
		{name: "no route back", state: bound(Source{ReversePath: true}), packet: v4, want: shot, reason: "spoof_path"},
	})
}

func TestBypass(t *testing.T) {
	state := func(m Mode, until time.Time, locks ...Lock) func(*lab) {
		return func(l *lab) {
			l.configure(Source{Mode: m})
			l.locks(locks...)
			l.must(l.ReplaceBypasses([]Bypass{{Until: until}}))
		}
	}
	lock := Lock{Prefix: prefix("192.0.2.10/32"), ID: 7}
	checkAll(t, []verdict{
		{name: "intercept", state: state(ModeIntercept, in(time.Hour)), packet: v4, want: next, reason: "bypass", mark: markJudged},
		{name: "for good", state: state(ModeShadow, BypassForGood), packet: v6, want: next, reason: "bypass", mark: markJudged},
		{name: "over", state: state(ModeIntercept, in(-time.Second)), packet: v4, want: shot, reason: "wait_drop"},
		{name: "reject stays", state: state(ModeReject, in(time.Hour)), packet: v4, want: redirect, reason: "reject"},
		{name: "drop stays", state: state(ModeDrop, in(time.Hour)), packet: v4, want: shot, reason: "drop"},
		{name: "locks stay", state: state(ModeIntercept, in(time.Hour), lock), packet: v4, want: redirect, reason: "lock_reset"},
	})
	some := func(m Mode, list ...Bypass) func(*lab) {
		return func(l *lab) {
			l.configure(Source{Mode: m})
			l.must(l.ReplaceBypasses(list))
		}
	}
	hour, gone := in(time.Hour), in(-time.Second)
	mine, around, other := prefix("192.0.2.10/32"), prefix("192.0.2.0/24"), prefix("203.0.113.0/24")
	checkAll(t, []verdict{
		{name: "this source", state: some(ModeIntercept, Bypass{mine, hour}), packet: v4, want: next, reason: "bypass", mark: markJudged},
		{name: "its network", state: some(ModeObserve, Bypass{around, BypassForGood}), packet: v4, want: next, reason: "bypass", mark: markJudged},
		{name: "another source", state: some(ModeIntercept, Bypass{other, hour}), packet: v4, want: shot, reason: "wait_drop"},
		{name: "this source, over", state: some(ModeIntercept, Bypass{mine, gone}), packet: v4, want: shot, reason: "wait_drop"},
		{name: "over inside a wider one", state: some(ModeIntercept, Bypass{mine, gone}, Bypass{around, hour}), packet: v4, want: next, reason: "bypass", mark: markJudged},
		{name: "everybody beside one that is over", state: some(ModeIntercept, Bypass{Until: hour}, Bypass{mine, gone}), packet: v4, want: next, reason: "bypass", mark: markJudged},
		{name: "reject stays for this source", state: some(ModeReject, Bypass{mine, hour}), packet: v4, want: redirect, reason: "reject"},
		{name: "IPv6 network", state: some(ModeIntercept, Bypass{prefix("2001:db8:1::/64"), hour}), packet: v6, want: next, reason: "bypass", mark: markJudged},
		{name: "IPv4 network, IPv6 packet", state: some(ModeIntercept, Bypass{around, hour}), packet: v6, want: shot, reason: "wait_drop"},
		{name: "locks stay for this source", state: func(l *lab) { some(ModeIntercept, Bypass{mine, hour})(l); l.locks(lock) }, packet: v4, want: redirect, reason: "lock_reset"},
	})
}
