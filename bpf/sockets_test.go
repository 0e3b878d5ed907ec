//go:build bpftest

package bpf

import (
	"net/netip"
	"time"
)

// socketsHere: what has a socket in the place where the table is run, and what only seems to.
func socketsHere() (all []verdict) {
	const both = markIntercept | markJudged
	known := func(l *lab) {
		l.configure(Source{Mode: ModePass}, PortRule{Port: 2525})
		l.locks(Lock{Prefix: prefix("0.0.0.0/0")}, Lock{Prefix: prefix("::/0")})
	}
	local := func(l *lab) {
		known(l)
		_, err := l.ReplaceLocal([]netip.Prefix{prefix("0.0.0.0/0"), prefix("::/0")})
		l.must(err)
	}
	for i, f := range []frame{{src: "192.0.2.77", dst: "198.51.100.77"}, {src: "2001:db8:1::77", dst: "2001:db8:100::77"}} {
		family := []string{"", ", IPv6"}[i]
		flags := func(b byte) frame { return with(f, func(f *frame) { f.flags = b }) }
		answer := with(f.swap(), func(f *frame) { f.flags = ack })
		stranger := with(f, func(f *frame) { f.sport = 40001 })
		quoted := func(inner frame, kind, code byte) frame {
			proto := []byte{1, 58}[i]
			return frame{src: f.dst, dst: f.src, proto: proto, raw: append([]byte{kind, code, 0, 0, 0, 0, 5, 0}, inner.build()[14:]...)}
		}
		kind, code := []byte{3, 2}[i], []byte{4, 0}[i]
		of := func(program string, list ...verdict) {
			for _, v := range list {
				v.program, v.state = program, known
				v.name += family + " at " + program
				if program == UplinkIngress && v.reason == "established" {
					continue
				}
				all = append(all, v)
			}
		}
		of(MailIngress,
			verdict{name: "data", packet: flags(ack), want: okay, reason: "established", mark: both},
			verdict{name: "reused port", packet: flags(syn), want: okay, reason: "established", mark: both},
			verdict{name: "reset", packet: flags(rst), want: okay, reason: "established", mark: both},
			verdict{name: "nothing set", packet: flags(8), want: okay, reason: "established", mark: both},
			verdict{name: "listens only", packet: stranger, want: redirect, reason: "lock_reset"})
		for _, program := range []string{MailIngress, UplinkIngress} {
			of(program,
				verdict{name: "answer", packet: answer, want: okay, reason: "reply", mark: both},
				verdict{name: "SYN-ACK", packet: with(answer, func(f *frame) { f.flags = syn | ack }), want: okay, reason: "reply", mark: both},
				verdict{name: "answer to another port", packet: with(answer, func(f *frame) { f.dport = 40001 }), want: next},
				verdict{name: "path MTU", packet: quoted(answer, kind, code), want: okay, reason: "icmp_local", mark: both},
				verdict{name: "path MTU, the other direction", packet: quoted(f, kind, code), want: okay, reason: "icmp_local", mark: both},
				verdict{name: "path MTU of another port", packet: quoted(with(answer, func(f *frame) { f.dport = 40001 }), kind, code), want: next},
				verdict{name: "path MTU, no mail", packet: quoted(with(answer, func(f *frame) { f.sport = 80 }), kind, code), want: next},
				verdict{name: "path MTU of UDP", packet: quoted(with(answer, func(f *frame) { f.proto = 17 }), kind, code), want: next},
				verdict{name: "another ICMP", packet: quoted(answer, 11, 0), want: next},
				verdict{name: "another code", packet: quoted(answer, []byte{3, 1}[i], 1), want: next},
				verdict{name: "cut off", packet: with(quoted(answer, kind, code), func(f *frame) { f.raw = f.raw[:8+20+40*i/2] }), want: next})
		}
		all = append(all,
			verdict{name: "answer to the gateway" + family, program: UplinkIngress, state: local, packet: answer, want: next},
			verdict{name: "socket turned elsewhere" + family, program: UplinkGuard, state: known, packet: with(f, func(f *frame) { f.sport = 40001 }), in: skb{Mark: markJudged}, want: shot, reason: "guard_socket", mark: markJudged},
			verdict{name: "socket that is no mail's" + family, program: UplinkGuard, state: known, packet: with(f, func(f *frame) { f.dport = 80 }), in: skb{Mark: markJudged}, want: shot, reason: "guard_socket", mark: markJudged},
			verdict{name: "data of such a socket" + family, program: UplinkGuard, state: known, packet: flags(ack), in: skb{Mark: markJudged}, want: next, mark: markJudged},
			verdict{name: "the proxy's answer" + family, program: UplinkGuard, state: known, packet: answer, in: skb{Mark: both}, want: next, mark: both})
	}
	return all
}

// synsAboveTheRate: budgets that are used up.
func synsAboveTheRate() (all []verdict) {
	used := func(l *lab) {
		now, err := monotonic()
		l.must(err)
		l.configure(Source{Mode: ModeIntercept, PerSecond: 1})
		l.sources(Source{Prefix: prefix("192.0.2.11/32"), Mode: ModeIntercept, User: 7, PerSecond: 1})
		l.setCounts(map[uint32]mailUserCounts{7: {SynDue: now + 2*uint64(time.Second)}})
		for _, k := range []mailHostKey{hostKey(prefix("192.0.2.10/32")), hostKey(prefix("2001:db8:1::/64"))} {
			l.must(l.objects.SynBuckets.Put(k, now+2*uint64(time.Second)))
		}
		l.listener()
		l.beat(time.Millisecond, 0)
	}
	open := func(l *lab) {
		now, err := monotonic()
		l.must(err)
		l.configure(Source{Mode: ModeIntercept})
		l.beat(5*time.Second, 0)
		for _, p := range []string{"192.0.2.10/32", "2001:db8:1::/64"} {
			l.must(l.objects.OpenBudgets.Put(hostKey(prefix(p)), mailBudget{StartNs: now, Count: 30}))
		}
		l.must(l.objects.OpenBudgets.Put(hostKey(prefix("192.0.2.11/32")), mailBudget{StartNs: now - 61*uint64(time.Second), Count: 500}))
	}
	from := func(src string) frame { return with(v4, func(f *frame) { f.src = src }) }
	return []verdict{
		{name: "host above its rate", state: used, packet: v4, want: shot, reason: "syn_limited"},
		{name: "/64 above its rate", state: used, packet: v6, want: shot, reason: "syn_limited"},
		{name: "user above its rate", state: used, packet: from("192.0.2.11"), want: shot, reason: "syn_limited"},
		{name: "another host", state: used, packet: from("192.0.2.12"), want: shot, reason: assigned},
		{name: "another /64", state: used, packet: with(v6, func(f *frame) { f.src = "2001:db8:1:1::10" }), want: shot, reason: assigned},
		{name: "data above the rate", state: used, packet: with(v4, func(f *frame) { f.flags = ack }), want: next, reason: "old_flow", mark: markJudged},
		{name: "fail-open used up", state: open, packet: v4, want: shot, reason: "fail_open_cap"},
		{name: "fail-open used up, IPv6", state: open, packet: v6, want: shot, reason: "fail_open_cap"},
		{name: "fail-open used up a minute ago", state: open, packet: from("192.0.2.11"), want: next, reason: "fail_open", mark: markJudged},
	}
}
