//go:build ignore
/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * The programs at the gateway's interfaces. Each has two entries: with an Ethernet header, and without one (_l3).
 *
 *   mail_ingress    customer interface: every packet to a mail port finds its socket, its listener, its reset or its way on
 *   uplink_ingress  uplink: answers to the proxy's source-preserving connections
 *   uplink_guard    uplink, outgoing: fresh mail connections that no mail_ingress has judged
 *
 * The proxy's sockets stand in a namespace of their own, the room; so intercepting needs no policy rule, whose mere existence
 * slows every forwarded packet down. A pair of interfaces, the door, joins it with the gateway's namespace:
 *
 *   door_ingress    gateway's end of the door: what the proxy sends goes on as the gateway's routes say
 *   room_ingress    room's end: fresh connections find the listener
 *   room_egress     room's end, outgoing: source-preserving sockets that were turned elsewhere
 *
 * They return TC_ACT_UNSPEC (TCX_NEXT) for what is not ours or goes on, so that other programs on the interface have
 * their say; TC_ACT_OK (TCX_PASS) for what the proxy gets.
 */
#define QUICK /* see quick_hosts */
#include "judge.h"
#include "path.h"
#include "packet.h"
#include "reset.h"
#include "socket.h"
#include "elsewhere.h"
#include "room.h"
#include "guard.h"

#define VLAN_ID 0xfff

/* Forwards, and tells the guard that this packet was judged. */
static __always_inline int forward(struct __sk_buff *skb, const struct config *cfg)
{
	set_mark(skb, cfg, cfg->mark_judged);
	return TC_ACT_UNSPEC;
}

/* To a connection's socket: into the room, or to local delivery by the policy route. */
static __always_inline int deliver(struct __sk_buff *skb, const struct config *cfg, enum place at)
{
	if (at == PLACE_ROOM)
		return enter_room(skb, cfg, 0);
	set_mark(skb, cfg, cfg->mark_intercept | cfg->mark_judged);
	return TC_ACT_OK;
}

/* To the listener. */
static __always_inline int deliver_fresh(struct __sk_buff *skb, const struct config *cfg, const struct packet *p)
{
	if (cfg->door)
		return enter_room(skb, cfg, cfg->mark_intercept);
	return deliver(skb, cfg, PLACE_HERE);
}

/* Puts the packet's fate down for both sets of counters. */
static __always_inline void note(enum reason why, const struct source *src, enum user_reason user_why)
{
	count_with_user(why, src->user, user_why);
}

/* A fresh connection that the proxy shall have. */
static __always_inline int intercept(struct __sk_buff *skb, const struct config *cfg, const struct packet *p, const struct source *src, __u64 now)
{
	if (!spend_syn(src, p, now)) { /* one host must not take the proxy from all others */
		note(REASON_SYN_LIMITED, src, USER_SYN_LIMITED);
		return TC_ACT_SHOT;
	}
	switch (try_listener(skb, cfg, src->fail, 0, now)) {
	case ANSWER_ASSIGN: /* the usual way */
		note(REASON_INTERCEPT, src, USER_INTERCEPTED);
		return deliver_fresh(skb, cfg, p);
	case ANSWER_WAIT: /* kept in the listener's queue until the proxy is back */
		note(REASON_WAIT, src, USER_INTERCEPTED);
		return deliver_fresh(skb, cfg, p);
	case ANSWER_RETRY: /* nobody to give it to, but soon: the client sends its SYN again */
		note(REASON_WAIT_DROP, src, USER_DROPPED);
		return TC_ACT_SHOT;
	}
	if (src->fail == FAIL_CLOSED) { /* away for too long, and this source must not go round the proxy */
		note(REASON_FAIL_CLOSED, src, USER_FAILED_CLOSED);
		return reset(skb, p);
	}
	if (!spend_open(p, now)) { /* fail-open is no invitation to flood */
		note(REASON_FAIL_OPEN_CAP, src, USER_DROPPED);
		return TC_ACT_SHOT;
	}
	note(REASON_FAIL_OPEN, src, USER_FAILED_OPEN); /* mail before filtering */
	return forward(skb, cfg);
}

/* A fresh connection of a locked source; a lock never loosens what the mode says. */
static __always_inline int locked(struct __sk_buff *skb, const struct config *cfg, const struct packet *p, const struct source *src, const struct lock *lock, __u64 now)
{
	if (src->mode == MODE_DROP) { /* stricter than the lock */
		note(REASON_DROP, src, USER_DROPPED);
		return TC_ACT_SHOT;
	}
	if (src->mode != MODE_REJECT) {
		switch (try_listener(skb, cfg, FAIL_CLOSED, lock, now)) {
		case ANSWER_ASSIGN:
		case ANSWER_WAIT: /* the proxy explains */
			note(REASON_LOCK_EXPLAIN, src, USER_EXPLAINED);
			return deliver_fresh(skb, cfg, p);
		}
	}
	note(REASON_LOCK_RESET, src, USER_LOCK_RESET); /* explained often enough, or nobody to explain */
	return reset(skb, p);
}

/* A SYN that meets no connection. */
static __always_inline int fresh(struct __sk_buff *skb, const struct config *cfg, struct packet *p, const struct source *src)
{
	__u64 now = coarse_now();
	const struct lock *lock;
	enum mode mode;

	if (is_local(cfg, p->family, p->daddr)) { /* the gateway's own mail server, or whatever listens there */
		count(REASON_LOCAL);
		return forward(skb, cfg);
	}
	if (is_delivery(cfg, p->family, p->saddr)) { /* our own delivery came back at a customer interface */
		count(REASON_LOOP);
		return TC_ACT_SHOT;
	}
	if (src->flags & (SOURCE_BIND_IF | SOURCE_BIND_MAC) && !binding_ok(skb, p, src)) { /* a neighbour borrows the address */
		note(REASON_SPOOF_BIND, src, USER_SPOOFED);
		return TC_ACT_SHOT;
	}
	if ((cfg->flags & CONFIG_RPF || src->flags & SOURCE_RPF) && !reverse_path_ok(skb, cfg, p, now)) { /* an address from elsewhere */
		note(REASON_SPOOF_PATH, src, USER_SPOOFED);
		return TC_ACT_SHOT;
	}
	if (p->rule == MODE_PASS) { /* submission to others: counted, never opened */
		note(REASON_PORT_PASS, src, USER_PASSED);
		return forward(skb, cfg);
	}
	if (p->rule == MODE_REJECT) { /* submission to others is forbidden here */
		note(REASON_PORT_REJECT, src, USER_REJECTED);
		return reset(skb, p);
	}
	lock = find_lock(cfg, p->family, p->saddr, now);
	if (lock && lock_means(lock, src) && !in_set(&lock_exempt, p->family, p->daddr))
		return locked(skb, cfg, p, src, lock, now);
	mode = mode_towards(cfg, src, p->family, p->daddr, p->dport, now);
	switch (mode) {
	case MODE_REJECT:
		note(REASON_REJECT, src, USER_REJECTED);
		return reset(skb, p);
	case MODE_PASS:
		note(REASON_PASS, src, USER_PASSED);
		return forward(skb, cfg);
	case MODE_OBSERVE:
	case MODE_SHADOW:
	case MODE_INTERCEPT:
		break;
	default: /* MODE_DROP, and what no loader writes */
		note(REASON_DROP, src, USER_DROPPED);
		return TC_ACT_SHOT;
	}
	if (bypassed(cfg, p->family, p->saddr, now)) { /* the operator's way out */
		note(REASON_BYPASS, src, USER_PASSED);
		return forward(skb, cfg);
	}
	if (mode == MODE_OBSERVE) { /* forwarded untouched */
		note(REASON_OBSERVE, src, USER_PASSED);
		return forward(skb, cfg);
	}
	return intercept(skb, cfg, p, src, now);
}

/* No SYN and no socket: a cookie's last ACK, or a flow that began before us or was passed. */
static __always_inline int old_flow(struct __sk_buff *skb, const struct config *cfg, struct packet *p, __u64 *slot, __u64 word)
{
	struct source src = {};
	const struct lock *lock;
	__u64 now = bpf_ktime_get_ns();

	/* No flow holds such a segment (RFC 9293 3.10.7.4), but a server that got its SYN from an accomplice would answer it
	 * with the number that the SYN-ACK should have told. */
	if (!(p->flags & (TH_ACK | TH_SYN | TH_RST)) && p->rule == MODE_NONE) {
		count(REASON_HALF_OPEN);
		return TC_ACT_SHOT;
	}
	lock = find_lock(cfg, p->family, p->saddr, now);
	if ((p->flags & (TH_ACK | TH_SYN | TH_RST)) == TH_ACK && p->rule == MODE_NONE && try_cookie(skb, cfg, p)) {
		/* A passed flow's ACK looks like a cookie once in a few million, and only in a flood. */
		enum mode mode;

		find_source(cfg, (const struct address *)p->saddr, p->family, &src);
		mode = mode_towards(cfg, &src, p->family, p->daddr, p->dport, now);
		if (mode == MODE_INTERCEPT || mode == MODE_SHADOW || lock) {
			forget_flow(cfg, p);
			count(REASON_COOKIE);
			return deliver_fresh(skb, cfg, p);
		}
	}
	/* The customer's own server answering from port 25 is never touched; submission is not the lock's matter. */
	if (lock && !(lock->flags & LOCK_KEEP_FLOWS) && !(p->flags & TH_RST) && p->rule == MODE_NONE && !is_mail_port(cfg, p->sport)) {
		find_source(cfg, (const struct address *)p->saddr, p->family, &src);
		if (lock_means(lock, &src) && !in_set(&local, p->family, p->daddr) && !in_set(&lock_exempt, p->family, p->daddr)) {
			note(REASON_LOCK_CUT, &src, USER_LOCK_CUT); /* its sender sees "connection reset" */
			return reset(skb, p);
		}
	}
	if (slot && !(p->flags & TH_RST)) /* that much passes in any case */
		*slot = word;
	count(REASON_OLD_FLOW);
	return forward(skb, cfg);
}

/* A packet that may be for a mail port and cannot be judged: unparsed must never mean unfiltered. */
static __always_inline int unparsed(struct __sk_buff *skb, const struct config *cfg, struct packet *p)
{
	__u64 now = bpf_ktime_get_ns();
	struct source src = {};
	const struct lock *lock;
	int open;

	find_source(cfg, (const struct address *)p->saddr, p->family, &src);
	lock = find_lock(cfg, p->family, p->saddr, now);
	/* Where nothing would be filtered, nothing is dropped for being unfilterable. */
	open = src.mode == MODE_PASS || src.mode == MODE_OBSERVE || (src.mode < MODE_REJECT && bypassed(cfg, p->family, p->saddr, now));
	if (p->why != REASON_BAD_ADDRESS && ((open && !(lock && lock_means(lock, &src))) || in_set(&local, p->family, p->daddr))) {
		count(REASON_UNPARSED_PASS);
		return forward(skb, cfg);
	}
	note(p->why, &src, USER_UNPARSED); /* each kind has its own counter */
	return TC_ACT_SHOT;
}

static __always_inline int icmp(struct __sk_buff *skb, const struct config *cfg, const struct packet *p)
{
	enum place at = icmp_for_proxy(skb, cfg, p);

	if (!at)
		return TC_ACT_UNSPEC; /* anybody else's */
	count(REASON_ICMP_LOCAL);
	return deliver(skb, cfg, at);
}

/*
 * TCP from a mail port. The socket of a source-preserving connection gets it; the gateway's own connections find theirs
 * without us; everything else is a customer's server answering the world, or the world answering a customer.
 */
static __always_inline enum place reply_to_own_socket(struct __sk_buff *skb, const struct config *cfg, struct packet *p)
{
	return in_set(&local, p->family, p->daddr) ? PLACE_NONE : to_own_socket(skb, cfg, p);
}

/* Tags inside a priority tag are stripped after the programs ran, so what they hide would pass unjudged. */
__noinline int hides_in_priority_tag(struct __sk_buff *skb)
{
	__be16 tci;

	if (skb->protocol != bpf_htons(ETH_P_8021Q) && skb->protocol != bpf_htons(ETH_P_8021AD))
		return 0;
	return bpf_skb_load_bytes(skb, sizeof(struct ethhdr), &tci, sizeof(tci)) || !(bpf_ntohs(tci) & VLAN_ID);
}

static __always_inline int mail(struct __sk_buff *skb, const __u32 l2)
{
	const struct config *cfg = get_config();
	struct source src = {};
	__u64 *slot = 0, word = 0;
	struct packet p = {};
	enum place at;
	enum kind kind;

	if (!cfg) /* never: it is an array */
		return TC_ACT_UNSPEC;
	if (skb->vlan_present) {
		if (skb->vlan_tci & VLAN_ID) /* belongs to a VLAN device, where it comes in again */
			return TC_ACT_UNSPEC;
		if (l2 && hides_in_priority_tag(skb)) { /* no honest host sends that */
			count(REASON_NESTED_VLAN);
			return TC_ACT_SHOT;
		}
	}
	kind = parse(skb, cfg, &p, l2);
	if (kind == KIND_FOREIGN) /* not mail: the way of nearly all packets */
		return TC_ACT_UNSPEC;
	/* Between neighbours, or for a device above this one (macvlan), where it comes in again: the kernel routes only its own. */
	if (skb->pkt_type != PACKET_HOST)
		return TC_ACT_UNSPEC;
	p.ifindex = skb->ifindex;
	if (kind == KIND_ICMP)
		return icmp(skb, cfg, &p);
	if (kind == KIND_REPLY) {
		at = reply_to_own_socket(skb, cfg, &p);
		if (!at) /* a customer's own server answers the world: never touched */
			return foreign_reply(cfg, &p, 1);
		count(REASON_REPLY);
		return deliver(skb, cfg, at);
	}
	if (kind == KIND_UNDECIDED)
		return unparsed(skb, cfg, &p);
	p.rule = port_mode(p.ifindex, p.dport);
	if (p.rule == MODE_DROP) /* a mail port, but not on this interface */
		return TC_ACT_UNSPEC;
	if (goes_on(&p)) {
		slot = known_slot(cfg, &p, &word);
		if (slot && *slot == word && !(p.flags & TH_RST) && !any_urgent()) { /* judged before, and nothing has changed since */
			count(REASON_OLD_FLOW);
			return forward(skb, cfg);
		}
		/* The proxy's, also where its socket has just gone: what comes late is answered by the kernel, and never leaves here. */
		at = slot ? known_place(*slot, word) : PLACE_NONE;
		if (at) {
			count(REASON_ESTABLISHED);
			return deliver(skb, cfg, at);
		}
	}
	else if ((p.flags & (TH_SYN | TH_ACK)) == TH_SYN) {
		forget_flow(cfg, &p);
		/* Asked for early: memory answers while the sockets are looked through. */
		find_source(cfg, (const struct address *)p.saddr, p.family, &src);
		expect_user(src.user);
	}
	at = to_own_socket(skb, cfg, &p);
	if (at) { /* SYNs too: a reused port meets TIME_WAIT, a rebooted client is challenged */
		if (p.challenge) { /* by us, since its socket may be busy */
			count(REASON_CHALLENGE);
			return reset(skb, &p);
		}
		if (slot)
			*slot = (word & ~(__u64)FLOW_PASSES) | at;
		count(REASON_ESTABLISHED);
		return deliver(skb, cfg, at);
	}
	if ((p.flags & (TH_SYN | TH_ACK)) == TH_SYN)
		return fresh(skb, cfg, &p, &src);
	if (foreign_reply(cfg, &p, 1) == TC_ACT_SHOT) /* from port 25 to port 25 */
		return TC_ACT_SHOT;
	return old_flow(skb, cfg, &p, slot, word);
}

static __always_inline int uplink(struct __sk_buff *skb, const __u32 l2)
{
	const struct config *cfg = get_config();
	struct packet p = {};
	enum place at;
	enum kind kind;

	if (!cfg) /* never: it is an array */
		return TC_ACT_UNSPEC;
	if (skb->vlan_present && skb->vlan_tci & VLAN_ID) /* belongs to a VLAN device, where it comes in again */
		return TC_ACT_UNSPEC;
	kind = parse(skb, cfg, &p, l2);
	if (kind == KIND_FOREIGN || kind == KIND_UNDECIDED || skb->pkt_type != PACKET_HOST) /* no answer to mail, or not for us */
		return TC_ACT_UNSPEC;
	if (kind == KIND_ICMP)
		return icmp(skb, cfg, &p);
	if (kind == KIND_OUTBOUND) /* mail for a customer, or an answer to his port 25 */
		return foreign_reply(cfg, &p, 0);
	at = reply_to_own_socket(skb, cfg, &p);
	if (at) {
		count(REASON_REPLY);
		return deliver(skb, cfg, at);
	}
	return foreign_reply(cfg, &p, 0);
}

SEC("tc")
int mail_ingress(struct __sk_buff *skb)
{
	return mail(skb, sizeof(struct ethhdr));
}

SEC("tc")
int mail_ingress_l3(struct __sk_buff *skb)
{
	return mail(skb, 0);
}

SEC("tc")
int uplink_ingress(struct __sk_buff *skb)
{
	return uplink(skb, sizeof(struct ethhdr));
}

SEC("tc")
int uplink_ingress_l3(struct __sk_buff *skb)
{
	return uplink(skb, 0);
}

SEC("tc")
int uplink_guard(struct __sk_buff *skb)
{
	return guard(skb, sizeof(struct ethhdr));
}

SEC("tc")
int uplink_guard_l3(struct __sk_buff *skb)
{
	return guard(skb, 0);
}

SEC("tc")
int door_ingress(struct __sk_buff *skb)
{
	return leave_room(skb);
}

SEC("tc")
int room_ingress(struct __sk_buff *skb)
{
	return in_room(skb);
}

SEC("tc")
int room_egress(struct __sk_buff *skb)
{
	return leaving_room(skb);
}

char _license[] SEC("license") = "Dual MIT/GPL";
