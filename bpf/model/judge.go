package model

import (
	"net/netip"
)

// Action is what a program answers.
type Action int

// The answers.
const (
	Next  Action = iota // not ours, or forwarded: other programs have their say
	Local               // the proxy gets it
	Shot                // dropped
	Reset               // turned round into a reset
)

// Verdict is all that a program does with a packet.
type Verdict struct {
	Action  Action
	Mark    uint32
	Reasons []string // counters that move
	User    uint32
	Counts  []string // the user's counters that move
}

// State is what the programs keep, and what only the kernel knows.
type State struct {
	LockBudgets map[uint32]Budget
	OpenBudgets map[netip.Prefix]Budget
	Buckets     map[Sender]uint64 // when the bucket of SYNs is empty
	EmptySince  uint64            // the listener's slot was first seen empty; 0: it was filled

	// Socket finds the socket of exactly a connection here: whether there is one, and whether it only listens.
	Socket func(src, dst netip.AddrPort) (found, listens bool)
	// RoutedBack tells whether a packet from dst to src would leave by an interface; nil: never.
	RoutedBack func(src, dst netip.Addr, ifindex uint32) bool
	// Cookie tells whether a packet is the last ACK of a handshake that was answered with a SYN cookie; nil: never.
	Cookie func(Packet) bool
	// Preserved tells whether the helper connected the socket with a cookie so; nil: never.
	Preserved func(cookie uint64, src netip.Addr, dst netip.AddrPort) bool
	// CannotAssign: the kernel refuses to assign sockets, as it does in test runs.
	CannotAssign bool
}

// Sender is a user, or a host (of IPv6 its /64) that is nobody's.
type Sender struct {
	User uint32
	Host netip.Prefix
}

// Budget counts the connections of a window that begins with its first use.
type Budget struct{ Start, Count uint64 }

const (
	second     = 1_000_000_000
	beatMaxAge = 1 * second
	closedWait = 20 * second
	restartMax = 60 * second
	window     = 60 * second
	openSYNs   = 30
	burst      = 2 * second
)

func (b Budget) spend(most, now uint64) (Budget, bool) {
	if now > b.Start && now-b.Start >= window {
		b = Budget{Start: now}
	}
	b.Count++
	return b, b.Count <= most
}

// judgement is one packet on its way through a program.
type judgement struct {
	*Tables
	*State
	p   Packet
	h   header
	now uint64
	v   Verdict
}

func (t *Tables) judge(s *State, p Packet, now uint64) *judgement {
	return &judgement{Tables: t, State: s, p: p, h: t.parse(p), now: now, v: Verdict{Mark: p.Mark}}
}

func (j *judgement) count(reason string) { j.v.Reasons = append(j.v.Reasons, reason) }

func (j *judgement) note(reason string, s Source, user string) {
	j.count(reason)
	j.countUser(s, user)
}

func (j *judgement) countUser(s Source, what string) {
	j.v.User = s.User
	j.v.Counts = append(j.v.Counts, what)
}

func (j *judgement) end(a Action) Verdict {
	j.v.Action = a
	return j.v
}

func (j *judgement) mark(bits uint32) {
	j.v.Mark = j.v.Mark&^(j.Tables.Intercept|j.Judged) | bits
}

// forward tells the guard that the packet was judged.
func (j *judgement) forward() Verdict {
	j.mark(j.Judged)
	return j.end(Next)
}

// deliver sends to the proxy by the policy route.
func (j *judgement) deliver() Verdict {
	j.mark(j.Tables.Intercept | j.Judged)
	return j.end(Local)
}

// reset answers for the server, where TCP stands at its usual place.
func (j *judgement) reset() Verdict {
	if !j.h.plain {
		return j.end(Shot)
	}
	return j.end(Reset)
}

func (j *judgement) ends() (src, dst netip.AddrPort) {
	return netip.AddrPortFrom(j.h.src, j.h.sport), netip.AddrPortFrom(j.h.dst, j.h.dport)
}

// ownSocket: any socket of the connection but a listener.
func (j *judgement) ownSocket() bool {
	src, dst := j.ends()
	found, listens := j.Socket(src, dst)
	return found && !listens
}

// Ingress is mail_ingress: a packet from a customer.
func (t *Tables) Ingress(s *State, p Packet, now uint64) Verdict {
	j := t.judge(s, p, now)
	if p.Tagged {
		if p.VLAN != 0 { // a VLAN device's, where it comes in again
			return j.end(Next)
		}
		if p.L2 != 0 && hidesInPriorityTag(p) {
			j.count("nested_vlan")
			return j.end(Shot)
		}
	}
	if j.h.kind == foreign || p.Others { // the kernel routes only its own
		return j.end(Next)
	}
	switch j.h.kind {
	case icmp:
		return j.icmp()
	case reply:
		return j.reply(true)
	case undecided:
		return j.unparsed()
	}
	rule, known := t.portMode(p.Ifindex, j.h.dport)
	switch {
	case !known: // a mail port elsewhere
		return j.end(Next)
	case j.ownSocket():
		j.count("established")
		return j.deliver()
	case j.h.syn():
		return j.fresh(rule)
	case j.foreignReply(true): // from port 25 to port 25
		return j.end(Shot)
	}
	return j.oldFlow(rule)
}

// hidesInPriorityTag: such tags are stripped only after the programs ran.
func hidesInPriorityTag(p Packet) bool {
	if p.Proto != 0x8100 && p.Proto != 0x88a8 {
		return false
	}
	tci := p.from(ethHeader, 2)
	return tci == nil || be16(tci)&0xfff == 0
}

// fresh judges a SYN that meets no connection.
func (j *judgement) fresh(rule Mode) Verdict {
	if inside(j.Local, j.h.dst) {
		j.count("local")
		return j.forward()
	}
	if inside(j.Delivery, j.h.src) {
		j.count("loop")
		return j.end(Shot)
	}
	s := j.source(j.h.src)
	j.countUser(s, "syn")
	if !j.bound(s) {
		j.note("spoof_bind", s, "spoofed")
		return j.end(Shot)
	}
	if (s.ReversePath || j.ReversePath) && (j.RoutedBack == nil || !j.RoutedBack(j.h.src, j.h.dst, j.p.Ifindex)) {
		j.note("spoof_path", s, "spoofed")
		return j.end(Shot)
	}
	switch rule {
	case Pass:
		j.note("port_pass", s, "passed")
		return j.forward()
	case Reject:
		j.note("port_reject", s, "rejected")
		return j.reset()
	}
	if l, ok := j.lock(j.h.src, j.now); ok && l.means(s) && !inside(j.LockExempt, j.h.dst) {
		return j.locked(s, l)
	}
	mode := j.mode(s, j.h.dst, j.h.dport, j.now)
	switch {
	case mode == Reject:
		j.note("reject", s, "rejected")
		return j.reset()
	case mode == Pass:
		j.note("pass", s, "passed")
		return j.forward()
	case mode != Observe && mode != Shadow && mode != Intercept:
		j.note("drop", s, "dropped")
		return j.end(Shot)
	case j.bypassed(j.h.src, j.now):
		j.note("bypass", s, "passed")
		return j.forward()
	case mode == Observe:
		j.note("observe", s, "passed")
		return j.forward()
	}
	return j.intercept(s)
}

// bound: is a source that is tied to an interface and an Ethernet address where it belongs?
func (j *judgement) bound(s Source) bool {
	if s.Ifindex != 0 && s.Ifindex != j.p.Ifindex {
		return false
	}
	return s.MAC == nil || j.p.L2 == ethHeader && string(j.p.Frame[6:12]) == string(s.MAC)
}

// oldFlow: no SYN and no socket, so it began before us, was passed, or ends a handshake by cookie.
func (j *judgement) oldFlow(rule Mode) Verdict {
	likeMail := rule == None
	if j.h.flags&(flagACK|flagSYN|flagRST) == 0 && likeMail { // a server would answer it with its number
		j.count("half_open")
		return j.end(Shot)
	}
	s := j.source(j.h.src)
	l, locked := j.lock(j.h.src, j.now)
	if j.h.flags&(flagACK|flagSYN|flagRST) == flagACK && likeMail && j.Listener && j.Cookie != nil && j.Cookie(j.p) {
		if m := j.mode(s, j.h.dst, j.h.dport, j.now); m == Intercept || m == Shadow || locked {
			j.count("cookie")
			return j.deliver()
		}
	}
	// The customer's own server answering from port 25 is never touched; submission is not the lock's matter.
	if locked && l.means(s) && !l.KeepFlows && j.h.flags&flagRST == 0 && likeMail && !j.isMail(j.h.sport) &&
		!inside(j.Local, j.h.dst) && !inside(j.LockExempt, j.h.dst) {
		j.note("lock_cut", s, "lock_cut")
		return j.reset()
	}
	j.count("old_flow")
	return j.forward()
}

// unparsed must never mean unfiltered; where nothing would be filtered nothing is dropped.
func (j *judgement) unparsed() Verdict {
	s := j.source(j.h.src)
	l, locked := j.lock(j.h.src, j.now)
	open := s.Mode == Pass || s.Mode == Observe || s.Mode < Reject && j.bypassed(j.h.src, j.now)
	free := open && !(locked && l.means(s)) || inside(j.Local, j.h.dst)
	if free && j.h.why != "bad_address" {
		j.count("unparsed_pass")
		return j.forward()
	}
	j.note(j.h.why, s, "unparsed")
	return j.end(Shot)
}

// icmp: path MTU messages about the proxy's connections are the proxy's.
func (j *judgement) icmp() Verdict {
	if !j.quotesOwnSocket() {
		return j.end(Next)
	}
	j.count("icmp_local")
	return j.deliver()
}

func (j *judgement) quotesOwnSocket() bool {
	at, size := j.h.l4+8, ip4Header
	head := j.p.from(j.h.l4, 2)
	if j.h.src.Is6() {
		size = ip6Header
	}
	ip := j.p.from(at, size)
	if head == nil || ip == nil {
		return false
	}
	var src, dst netip.Addr
	if size == ip4Header {
		if head[0] != 3 || head[1] != 4 || ip[9] != protoTCP {
			return false
		}
		src, dst, size = addr(ip[12:16]), addr(ip[16:20]), int(ip[0]&15)*4
	} else {
		if head[0] != 2 || ip[6] != protoTCP {
			return false
		}
		src, dst = addr(ip[8:24]), addr(ip[24:40])
	}
	ports := j.p.from(at+size, 4)
	if ports == nil {
		return false
	}
	sport, dport := uint16(be16(ports)), uint16(be16(ports[2:]))
	if !j.isMail(sport) && !j.isMail(dport) {
		return false
	}
	// What is quoted is what we sent: our socket has its two ends the other way round.
	found, listens := j.Socket(netip.AddrPortFrom(dst, dport), netip.AddrPortFrom(src, sport))
	return found && !listens
}
