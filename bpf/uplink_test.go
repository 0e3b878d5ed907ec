//go:build bpftest

package bpf

import (
	"net/netip"
	"time"
)

func guardAtTheUplink() []verdict {
	closed := func(m Mode, f Fail) func(*lab) {
		return func(l *lab) {
			l.configure(Source{Mode: ModePass}, PortRule{Port: 2525}, PortRule{Port: 587, Mode: ModePass}, PortRule{Ifindex: 99, Port: 26})
			l.sources(Source{Prefix: prefix("192.0.2.0/24"), Mode: m, Fail: f}, Source{Prefix: prefix("2001:db8:1::/64"), Mode: m, Fail: f})
		}
	}
	in1 := skb{IngressIfindex: 1}
	exempt := func(l *lab) {
		closed(ModeIntercept, FailClosed)(l)
		l.exemptions(Exemption{Prefix: prefix("198.51.100.25/32"), Mode: ModePass})
	}
	bypassed := func(l *lab) {
		closed(ModeIntercept, FailClosed)(l)
		l.must(l.ReplaceBypasses([]Bypass{{Until: in(time.Hour)}}))
	}
	to := func(port uint16) frame { f := v4; f.dport = port; return f }
	cases := []verdict{
		{name: "unjudged", state: closed(ModeIntercept, FailClosed), packet: v4, in: in1, want: shot, reason: "guard_drop"},
		{name: "unjudged, IPv6", state: closed(ModeShadow, FailClosed), packet: v6, in: in1, want: shot, reason: "guard_drop"},
		{name: "unjudged, mode drop", state: closed(ModeDrop, FailClosed), packet: v4, in: in1, want: shot, reason: "guard_drop"},
		{name: "unjudged fragment", state: closed(ModeIntercept, FailClosed), packet: with(v4, func(f *frame) { f.fragment = 0x2000 }), in: in1, want: shot, reason: "guard_unparsed"},
		{name: "unjudged fragment, IPv6", state: closed(ModeIntercept, FailClosed), packet: with(v6, func(f *frame) { f.next, f.headers = 44, []byte{6, 0, 0, 1, 0, 0, 0, 1} }), in: in1, want: shot, reason: "guard_unparsed"},
		{name: "unjudged with options", state: closed(ModeIntercept, FailClosed), packet: with(v4, func(f *frame) { f.options = []byte{1, 1, 1, 1} }), in: in1, want: shot, reason: "guard_drop"},
		{name: "judged", state: closed(ModeIntercept, FailClosed), packet: v4, in: skb{IngressIfindex: 1, Mark: markJudged}, want: next, mark: markJudged},
		{name: "the gateway's own", state: closed(ModeIntercept, FailClosed), packet: v4, want: next},
		{name: "open", state: closed(ModeIntercept, FailOpen), packet: v4, in: in1, want: next},
		{name: "pass", state: closed(ModePass, FailClosed), packet: v4, in: in1, want: next},
		{name: "observe", state: closed(ModeObserve, FailClosed), packet: v4, in: in1, want: next},
		{name: "unknown source", state: closed(ModeIntercept, FailClosed), packet: with(v4, func(f *frame) { f.src = "203.0.113.9" }), in: in1, want: next},
		{name: "exempt", state: exempt, packet: v4, in: in1, want: next},
		{name: "bypassed", state: bypassed, packet: v4, in: in1, want: next},
		{name: "its network bypassed", state: func(l *lab) {
			closed(ModeIntercept, FailClosed)(l)
			l.must(l.ReplaceBypasses([]Bypass{{prefix("192.0.2.0/24"), in(time.Hour)}}))
		}, packet: v4, in: in1, want: next},
		{name: "no SYN", state: closed(ModeIntercept, FailClosed), packet: with(v4, func(f *frame) { f.flags = ack }), in: in1, want: next},
		{name: "no mail", state: closed(ModeIntercept, FailClosed), packet: to(80), in: in1, want: next},
		{name: "other mail port", state: closed(ModeIntercept, FailClosed), packet: to(2525), in: in1, want: shot, reason: "guard_drop"},
		{name: "submission", state: closed(ModeIntercept, FailClosed), packet: to(587), in: in1, want: next},
		{name: "mail port of another interface", state: closed(ModeIntercept, FailClosed), packet: to(26), in: in1, want: next},
	}
	for i := range cases {
		cases[i].program = UplinkGuard
	}
	return cases
}

func answersOnTheUplink() []verdict {
	state := func(m Mode, f Fail, beat time.Duration) func(*lab) {
		return func(l *lab) {
			l.sources(Source{Prefix: prefix("192.0.2.0/24"), Mode: m, Fail: f}, Source{Prefix: prefix("2001:db8:1::/64"), Mode: m, Fail: f})
			l.beat(beat, 0)
		}
	}
	answer := func(f frame, flags byte) frame {
		f.src, f.dst, f.sport, f.dport, f.flags = f.dst, f.src, 25, 40000, flags
		return f
	}
	local := func(l *lab) {
		state(ModeIntercept, FailClosed, time.Millisecond)(l)
		_, err := l.ReplaceLocal([]netip.Prefix{prefix("192.0.2.0/24")})
		l.must(err)
	}
	exempt := func(l *lab) {
		state(ModeIntercept, FailClosed, time.Millisecond)(l)
		l.exemptions(Exemption{Prefix: prefix("198.51.100.0/24"), Mode: ModePass})
	}
	locked := func(l *lab) {
		state(ModePass, FailOpen, time.Millisecond)(l)
		l.locks(Lock{Prefix: prefix("192.0.2.0/24"), ID: 7})
	}
	bypassed := func(l *lab) {
		state(ModeIntercept, FailClosed, time.Millisecond)(l)
		l.must(l.ReplaceBypasses([]Bypass{{Until: in(time.Hour)}}))
	}
	cases := []verdict{
		{name: "asymmetric", state: state(ModeIntercept, FailOpen, time.Millisecond), packet: answer(v4, syn|ack), want: next, reason: "asymmetric"},
		{name: "half-open", state: state(ModeIntercept, FailClosed, time.Millisecond), packet: answer(v4, syn|ack), want: shot, reason: "half_open"},
		{name: "half-open IPv6", state: state(ModeShadow, FailClosed, time.Hour), packet: answer(v6, syn|ack), want: shot, reason: "half_open"},
		{name: "half-open, rejected", state: state(ModeReject, FailOpen, time.Hour), packet: answer(v4, syn|ack), want: shot, reason: "half_open"},
		{name: "half-open, locked", state: locked, packet: answer(v4, syn|ack), want: shot, reason: "half_open"},
		{name: "half-open, bypassed", state: bypassed, packet: answer(v4, syn|ack), want: next},
		{name: "half-open, to port 25", state: state(ModeIntercept, FailClosed, time.Millisecond), packet: with(answer(v4, syn|ack), func(f *frame) { f.dport = 25 }), want: shot, reason: "half_open"},
		{name: "asymmetric IPv6", state: state(ModeShadow, FailOpen, time.Millisecond), packet: answer(v6, syn|ack), want: next, reason: "asymmetric"},
		{name: "fail-open let the SYN go", state: state(ModeIntercept, FailOpen, 5*time.Second), packet: answer(v4, syn|ack), want: next},
		{name: "passed", state: state(ModePass, FailClosed, time.Millisecond), packet: answer(v4, syn|ack), want: next},
		{name: "exempt", state: exempt, packet: answer(v4, syn|ack), want: next},
		{name: "the gateway's own", state: local, packet: answer(v4, syn|ack), want: next},
		{name: "data", state: state(ModeIntercept, FailClosed, time.Millisecond), packet: answer(v4, ack), want: next},
		{name: "mail to a customer", state: state(ModeDrop, FailClosed, time.Millisecond), packet: with(v4, func(f *frame) { f.src, f.dst = f.dst, f.src }), want: next},
		{name: "no mail", state: state(ModeIntercept, FailClosed, time.Millisecond), packet: with(answer(v4, syn|ack), func(f *frame) { f.sport = 80 }), want: next},
	}
	for i := range cases {
		cases[i].program = UplinkIngress
	}
	return cases
}

// TestAnswersAtACustomer: an accomplice outside sent the SYN with a customer's address to another customer's server.
func answersAtACustomer() []verdict {
	known := func(l *lab) {
		l.configure(Source{Mode: ModeIntercept, Fail: FailClosed}) // the world, as seen from here
		l.sources(Source{Prefix: prefix("192.0.2.0/24"), Mode: ModeIntercept, Fail: FailClosed})
	}
	answer := func(dst string, flags byte) frame {
		return with(v4, func(f *frame) { f.src, f.dst, f.sport, f.dport, f.flags = "198.51.100.25", dst, 25, 40000, flags })
	}
	return []verdict{
		{name: "to a customer", state: known, packet: answer("192.0.2.10", syn|ack), want: shot, reason: "half_open"},
		{name: "to the world", state: known, packet: answer("203.0.113.9", syn|ack), want: next},
		{name: "to a customer's port 25", state: known, packet: with(answer("192.0.2.10", syn|ack), func(f *frame) { f.dport = 25 }), want: shot, reason: "half_open"},
		{name: "no ACK", state: known, packet: with(v4, func(f *frame) { f.flags = 8 }), want: shot, reason: "half_open"},
		{name: "FIN alone", state: known, packet: with(v6, func(f *frame) { f.flags = fin }), want: shot, reason: "half_open"},
		{name: "SYN and FIN", state: known, packet: with(v4, func(f *frame) { f.flags = syn | fin }), want: shot, reason: "wait_drop"},
		{name: "data to a customer", state: known, packet: answer("192.0.2.10", ack), want: next},
	}
}
