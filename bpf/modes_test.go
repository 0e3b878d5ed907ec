//go:build bpftest

package bpf

import (
	"fmt"
	"net"
	"net/netip"
	"time"
)

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

func foreignPackets() []verdict {
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
	return []verdict{
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
		{name: "ARP", ethernet: true, state: state, raw: append(append(append([]byte{}, gwMAC...), custMAC...), append([]byte{8, 6}, make([]byte, 40)...)...), want: next},
	}
}

func modes() []verdict {
	list := []struct {
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
	for _, m := range list {
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
		verdict{name: "IPv6 flow older than us", state: fallback(ModeDrop), packet: with(v6, func(f *frame) { f.flags = ack }), want: next, reason: "old_flow", mark: markJudged},
		verdict{name: "flow older than us", state: fallback(ModeDrop), packet: with(v4, func(f *frame) { f.flags = ack }), want: next, reason: "old_flow", mark: markJudged},
		verdict{name: "before SetConfig", state: func(l *lab) {
			l.must(l.objects.Config.Put(uint32(0), mailConfig{Fallback: mailSource{Mode: mailModeMODE_PASS}}))
		},
			packet: v4, want: next, reason: "pass"},
	)
	return cases
}

func longestPrefix() []verdict {
	table := func(list ...Source) func(*lab) {
		return func(l *lab) { l.configure(Source{Mode: ModePass}); l.sources(list...) }
	}
	src := func(p string, m Mode) Source { return Source{Prefix: prefix(p), Mode: m, User: 7} }
	return []verdict{
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
	}
}

func destinations() []verdict {
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
		_, err := l.ReplaceDelivery([]netip.Prefix{prefix("192.0.2.8/29"), prefix("2001:db8:1::/64")})
		l.must(err)
	}
	mx := prefix("198.51.100.25/32")
	return []verdict{
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
		{name: "the gateway itself, IPv6", state: local(prefix("2001:db8:100::/64")), packet: v6, want: next, reason: "local", mark: markJudged},
		{name: "the gateway's flow", state: local(mx), packet: with(v4, func(f *frame) { f.flags = ack }), want: next, reason: "old_flow", mark: markJudged},
		{name: "not the gateway", state: local(prefix("198.51.100.26/32")), packet: with(v4, func(f *frame) {}), want: shot, reason: "drop"},
		{name: "loop, IPv6", state: loop, packet: v6, want: shot, reason: "loop"},
		{name: "loop", state: loop, packet: v4, want: shot, reason: "loop"},
	}
}

func portsBeside25() []verdict {
	state := func(m Mode, rules ...PortRule) func(*lab) {
		return func(l *lab) {
			l.configure(Source{Mode: m}, rules...)
			l.locks(Lock{Prefix: prefix("192.0.2.99/32")})
		}
	}
	to := func(port uint16) frame { f := v4; f.dport = port; return f }
	to6 := func(port uint16) frame { f := v6; f.dport = port; return f }
	locked := func(l *lab) {
		l.configure(Source{Mode: ModeIntercept}, PortRule{Port: 587, Mode: ModePass})
		l.locks(Lock{Prefix: prefix("192.0.2.0/24")})
	}
	rules := []PortRule{{Port: 2525}, {Ifindex: 1, Port: 26}, {Ifindex: 99, Port: 24}, {Port: 587, Mode: ModePass}, {Port: 465, Mode: ModeReject}}
	return []verdict{
		{name: "everywhere", state: state(ModeDrop, rules...), packet: to(2525), want: shot, reason: "drop"},
		{name: "on this interface", indoors: true, state: state(ModeDrop, rules...), packet: to(26), want: shot, reason: "drop"},
		{name: "on another interface", state: state(ModeDrop, rules...), packet: to(24), want: next},
		{name: "submission passed", state: state(ModeDrop, rules...), packet: to(587), want: next, reason: "port_pass", mark: markJudged},
		{name: "submission passed, IPv6", state: state(ModeDrop, rules...), packet: to6(587), want: next, reason: "port_pass", mark: markJudged},
		{name: "submission refused, IPv6", state: state(ModePass, rules...), packet: to6(465), want: redirect, reason: "port_reject"},
		{name: "submission refused", state: state(ModePass, rules...), packet: to(465), want: redirect, reason: "port_reject"},
		{name: "submission of a locked source", state: locked, packet: to(587), want: next, reason: "port_pass", mark: markJudged},
		{name: "submission flow of a locked source", state: locked, packet: with(to(587), func(f *frame) { f.flags = ack }), want: next, reason: "old_flow", mark: markJudged},
		{name: "25 as ever", state: state(ModeDrop, rules...), packet: to(25), want: shot, reason: "drop"},
	}
}

func bindingAndReversePath() []verdict {
	bound := func(s Source) func(*lab) {
		s.Prefix, s.Mode = prefix("192.0.2.10/32"), ModePass
		return func(l *lab) { l.sources(s) }
	}
	bound6 := func(s Source) func(*lab) {
		s.Prefix, s.Mode = prefix("2001:db8:1::/64"), ModePass
		return func(l *lab) { l.sources(s) }
	}
	return []verdict{
		{name: "right interface", indoors: true, state: bound(Source{Ifindex: 1}), packet: v4, want: next, reason: "pass", mark: markJudged},
		{name: "wrong interface", state: bound(Source{Ifindex: 99}), packet: v4, want: shot, reason: "spoof_bind"},
		{name: "right MAC", ethernet: true, state: bound(Source{MAC: custMAC}), packet: v4, want: next, reason: "pass", mark: markJudged},
		{name: "wrong MAC", ethernet: true, state: bound(Source{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 0x11}}), packet: v4, want: shot, reason: "spoof_bind"},
		{name: "wrong interface, IPv6", state: bound6(Source{Ifindex: 99}), packet: v6, want: shot, reason: "spoof_bind"},
		{name: "wrong MAC, IPv6", ethernet: true, state: bound6(Source{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 0x11}}), packet: v6, want: shot, reason: "spoof_bind"},
		{name: "no route back for anybody, IPv6", ethernet: true, state: func(l *lab) {
			l.must(l.SetConfig(Config{InterceptMark: markIntercept, JudgedMark: markJudged, Default: Source{Mode: ModePass}, ReversePath: true}))
		}, packet: v6, want: shot, reason: "spoof_path"},
		{name: "no route back", ethernet: true, state: bound(Source{ReversePath: true}), packet: v4, want: shot, reason: "spoof_path"},
	}
}

func bypassOpen() []verdict {
	state := func(m Mode, until time.Time, locks ...Lock) func(*lab) {
		return func(l *lab) {
			l.configure(Source{Mode: m})
			l.locks(locks...)
			l.must(l.ReplaceBypasses([]Bypass{{Until: until}}))
		}
	}
	lock := Lock{Prefix: prefix("192.0.2.10/32"), ID: 7}
	all := []verdict{
		{name: "intercept", state: state(ModeIntercept, in(time.Hour)), packet: v4, want: next, reason: "bypass", mark: markJudged},
		{name: "for good", state: state(ModeShadow, BypassForGood), packet: v6, want: next, reason: "bypass", mark: markJudged},
		{name: "over", state: state(ModeIntercept, in(-time.Second)), packet: v4, want: shot, reason: "wait_drop"},
		{name: "reject stays", state: state(ModeReject, in(time.Hour)), packet: v4, want: redirect, reason: "reject"},
		{name: "drop stays", state: state(ModeDrop, in(time.Hour)), packet: v4, want: shot, reason: "drop"},
		{name: "locks stay", state: state(ModeIntercept, in(time.Hour), lock), packet: v4, want: redirect, reason: "lock_reset"},
	}
	some := func(m Mode, list ...Bypass) func(*lab) {
		return func(l *lab) {
			l.configure(Source{Mode: m})
			l.must(l.ReplaceBypasses(list))
		}
	}
	hour, gone := in(time.Hour), in(-time.Second)
	mine, around, other := prefix("192.0.2.10/32"), prefix("192.0.2.0/24"), prefix("203.0.113.0/24")
	return append(all, []verdict{
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
	}...)
}
