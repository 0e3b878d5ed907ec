//go:build bpftest

package bpf

import (
	"net/netip"
	"time"
)

func optionsAndHeaders() []verdict {
	options := func(b ...byte) frame { f := v4; f.options = b; return f }
	headers := func(first byte, b ...byte) frame { f := v6; f.next, f.headers = first, b; return f }
	pad := []byte{1, 4, 0, 0, 0, 0} // PadN
	hop := func(next byte) []byte { return append([]byte{next, 0}, pad...) }
	chain := func(n int) (b []byte) {
		for range n - 1 {
			b = append(b, hop(60)...)
		}
		return append(b, hop(6)...)
	}
	drop, pass := fallback(ModeDrop), fallback(ModePass)
	return []verdict{
		{name: "no operation", state: drop, packet: options(1, 1, 1, 1), want: shot, reason: "drop"},
		{name: "end of list", state: drop, packet: options(0, 131, 131, 131), want: shot, reason: "drop"},
		{name: "record route", state: drop, packet: options(7, 7, 4, 0, 0, 0, 0, 0), want: shot, reason: "drop"},
		{name: "options of a reset source", state: fallback(ModeReject), packet: options(1, 1, 1, 1), want: shot, reason: "reject"},
		{name: "options, passed", state: pass, packet: options(1, 1, 1, 1), want: next, reason: "pass", mark: markJudged},
		{name: "options, foreign", state: drop, packet: with(options(1, 1, 1, 1), func(f *frame) { f.dport = 80 }), want: next},
		{name: "loose source route", state: drop, packet: options(131, 7, 4, 198, 51, 100, 26, 0), want: shot, reason: "options"},
		{name: "strict source route behind no operation", state: drop, packet: options(1, 137, 7, 4, 198, 51, 100, 26), want: shot, reason: "options"},
		{name: "source route, passed", state: pass, packet: options(131, 7, 4, 198, 51, 100, 26, 0), want: next, reason: "unparsed_pass", mark: markJudged},
		{name: "option without length", state: drop, packet: options(7, 0, 1, 1), want: shot, reason: "options"},
		{name: "forty bytes of no operation", state: drop, packet: options(make40()...), want: shot, reason: "options"},
		{name: "destination options", state: drop, packet: headers(60, chain(1)...), want: shot, reason: "drop"},
		{name: "hop by hop", state: drop, packet: headers(0, chain(2)...), want: shot, reason: "drop"},
		{name: "headers of a reset source", state: fallback(ModeReject), packet: headers(60, chain(1)...), want: shot, reason: "reject"},
		{name: "headers, foreign", state: drop, packet: with(headers(60, chain(1)...), func(f *frame) { f.dport = 80 }), want: next},
		{name: "headers before UDP", state: drop, packet: headers(60, append([]byte{17, 0}, pad...)...), want: next},
		{name: "seven headers", state: drop, packet: headers(60, chain(7)...), want: shot, reason: "drop"},
		{name: "nine headers", state: drop, packet: headers(60, chain(9)...), want: shot, reason: "options"},
		{name: "nine headers, passed", state: pass, packet: headers(60, chain(9)...), want: next, reason: "unparsed_pass", mark: markJudged},
		{name: "authentication header", state: drop, packet: headers(51, append([]byte{6, 4}, make([]byte, 22)...)...), want: shot, reason: "drop"},
		{name: "routing header at its end", state: drop, packet: headers(43, 6, 2, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), want: shot, reason: "drop"},
		{name: "routing header with segments left", state: drop, packet: headers(43, 6, 2, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), want: shot, reason: "options"},
		{name: "ESP", state: drop, packet: headers(50, make([]byte, 16)...), want: next},
		{name: "mapped source", state: pass, raw: mapped(), want: shot, reason: "bad_address"},
	}
}

func make40() []byte {
	b := make([]byte, 40)
	for i := range b {
		b[i] = 1
	}
	return b
}

// mapped is an IPv6 packet from ::ffff:192.0.2.10.
func mapped() []byte {
	p := v6.build()
	a := netip.MustParseAddr("::ffff:192.0.2.10").As16()
	copy(p[14+8:], a[:])
	return p
}

func fragments() []verdict {
	v4at := func(field uint16, f frame) frame { f.fragment = field; return f }
	v6at := func(field uint16, next byte, f frame) frame {
		f.next, f.headers = 44, []byte{next, 0, byte(field >> 8), byte(field), 0, 0, 0, 1}
		return f
	}
	web := func(f frame) frame { f.dport = 80; return f }
	cut := func(n int, f frame) frame { f.cut = n; return f }
	padded := func(f frame) frame { f.padding = web(v6).tcp(); return f }
	drop, pass, observe := fallback(ModeDrop), fallback(ModePass), fallback(ModeObserve)
	// The first fragment holds a destination header only; what looks like TCP behind it is padding of the frame.
	hidden := padded(frame{src: v6.src, dst: v6.dst, next: 44, headers: []byte{60, 0, 0, 1, 0, 0, 0, 1, 6, 0, 1, 4, 0, 0, 0, 0}, cut: 20})
	return []verdict{
		{name: "first", state: drop, packet: v4at(0x2000, v4), want: shot, reason: "frag_first"},
		{name: "first, passed", state: pass, packet: v4at(0x2000, v4), want: next, reason: "unparsed_pass", mark: markJudged},
		{name: "first, observed", state: observe, packet: v4at(0x2000, v4), want: next, reason: "unparsed_pass", mark: markJudged},
		{name: "first, bypassed", state: func(l *lab) {
			l.configure(Source{Mode: ModeIntercept})
			l.must(l.ReplaceBypasses([]Bypass{{Until: in(time.Hour)}}))
		}, packet: v4at(0x2000, v4), want: next, reason: "unparsed_pass", mark: markJudged},
		{name: "first, its network bypassed", state: func(l *lab) {
			l.configure(Source{Mode: ModeIntercept})
			l.must(l.ReplaceBypasses([]Bypass{{prefix("192.0.2.0/24"), in(time.Hour)}}))
		}, packet: v4at(0x2000, v4), want: next, reason: "unparsed_pass", mark: markJudged},
		{name: "first, for the gateway", state: func(l *lab) {
			l.configure(Source{Mode: ModeDrop})
			_, err := l.ReplaceLocal([]netip.Prefix{prefix("198.51.100.25/32")})
			l.must(err)
		}, packet: v4at(0x2000, v4), want: next, reason: "unparsed_pass", mark: markJudged},
		{name: "first, foreign", state: drop, packet: v4at(0x2000, web(v4)), want: next},
		{name: "first, foreign, short", state: drop, packet: cut(12, v4at(0x2000, web(v4))), want: next},
		{name: "first, eight bytes", state: drop, packet: cut(12, v4at(0x2000, v4)), want: shot, reason: "frag_tiny"},
		{name: "first, no port", state: drop, packet: cut(18, v4at(0x2000, web(v4))), want: shot, reason: "frag_tiny"},
		{name: "at byte eight", state: drop, packet: v4at(0x2001, web(v4)), want: shot, reason: "frag_tiny"},
		{name: "last at byte eight", state: drop, packet: v4at(1, web(v4)), want: shot, reason: "frag_tiny"},
		{name: "at byte eight, passed", state: pass, packet: v4at(0x2001, v4), want: next, reason: "unparsed_pass", mark: markJudged},
		{name: "later", state: drop, packet: v4at(0x2002, v4), want: next},
		{name: "UDP", state: drop, packet: v4at(0x2000, udp), want: next},
		{name: "do not fragment", state: drop, packet: v4at(0x4000, v4), want: shot, reason: "drop"},
		{name: "truncated", state: drop, packet: cut(10, v4), want: shot, reason: "truncated"},
		{name: "truncated, passed", state: pass, packet: cut(10, v4), want: next, reason: "unparsed_pass", mark: markJudged},
		{name: "truncated in frame padding", state: drop, packet: with(cut(20, v6), func(f *frame) { f.headers, f.next, f.padding = []byte{6, 0, 1, 4, 0, 0, 0, 0}, 60, web(v6).tcp() }), want: shot, reason: "truncated"},
		{name: "IPv6 first", state: drop, packet: v6at(1, 6, v6), want: shot, reason: "frag_first"},
		{name: "IPv6 atomic", state: drop, packet: v6at(0, 6, v6), want: shot, reason: "frag_first"},
		{name: "IPv6 first, passed", state: pass, packet: v6at(1, 6, v6), want: next, reason: "unparsed_pass", mark: markJudged},
		{name: "IPv6 first, foreign", state: drop, packet: v6at(1, 6, web(v6)), want: next},
		{name: "IPv6 at byte eight", state: drop, packet: v6at(8|1, 6, web(v6)), want: shot, reason: "frag_tiny"},
		{name: "IPv6 later", state: drop, packet: v6at(16|1, 6, v6), want: next},
		{name: "IPv6 first without TCP", state: drop, packet: with(v6, func(f *frame) { f.next, f.headers, f.cut = 44, []byte{6, 0, 0, 1, 0, 0, 0, 1}, 20 }), want: shot, reason: "frag_tiny"},
		{name: "IPv6 first without TCP, in frame padding", state: drop, packet: hidden, want: shot, reason: "frag_tiny"},
	}
}
