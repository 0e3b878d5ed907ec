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
 *   door_ingress    gateway's end of the door: what the proxy sends goes on as the gateway's routes say, unless a socket was
 *                   turned elsewhere
 *   room_ingress    room's end: fresh connections find the listener
 *
 * None stands at an interface's egress but the guard: the first one anywhere has every packet of the machine that leaves ask.
 *
 * They return TC_ACT_UNSPEC (TCX_NEXT) for what is not ours or goes on, so that other programs on the interface have
 * their say; TC_ACT_OK (TCX_PASS) for what the proxy gets.
 */
#define QUICK /* see host_cells */
#include "judge.h"
#include "path.h"
#include "packet.h"
#include "reset.h"
#include "socket.h"
#include "elsewhere.h"
#include "room.h"
#include "guard.h"
#include "fresh.h"

#define VLAN_ID 0xfff

/* No SYN and no socket: a cookie's last ACK, or a flow that began before us or was passed. */
static __always_inline int old_flow(struct __sk_buff *skb, const struct config *cfg, struct packet *p, __u64 *slot, __u64 word)
{
	struct sender from = {};
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

		find_source(cfg, (const struct address *)p->saddr, p->family, &from.src);
		mode = mode_towards(cfg, &from.src, p->family, p->daddr, p->dport, now);
		if (mode == MODE_INTERCEPT || mode == MODE_SHADOW || lock) {
			forget_flow(cfg, p);
			count(REASON_COOKIE);
			return deliver_fresh(skb, cfg, p);
		}
	}
	/* The customer's own server answering from port 25 is never touched; submission is not the lock's matter. */
	if (lock && !(lock->flags & LOCK_KEEP_FLOWS) && !(p->flags & TH_RST) && p->rule == MODE_NONE && !is_mail_port(cfg, p->sport)) {
		find_source(cfg, (const struct address *)p->saddr, p->family, &from.src);
		if (lock_means(lock, &from.src) && !in_set(&local, p->family, p->daddr) && !in_set(&lock_exempt, p->family, p->daddr)) {
			note(REASON_LOCK_CUT, &from, USER_LOCK_CUT); /* its sender sees "connection reset" */
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
	struct sender from = {};
	const struct lock *lock;
	int open;

	find_source(cfg, (const struct address *)p->saddr, p->family, &from.src);
	lock = find_lock(cfg, p->family, p->saddr, now);
	/* Where nothing would be filtered, nothing is dropped for being unfilterable. */
	open = from.src.mode == MODE_PASS || from.src.mode == MODE_OBSERVE || (from.src.mode < MODE_REJECT && bypassed(cfg, p->family, p->saddr, now));
	if (p->why != REASON_BAD_ADDRESS && ((open && !(lock && lock_means(lock, &from.src))) || in_set(&local, p->family, p->daddr))) {
		count(REASON_UNPARSED_PASS);
		return forward(skb, cfg);
	}
	note(p->why, &from, USER_UNPARSED); /* each kind has its own counter */
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

static __always_inline int mail(struct __sk_buff *skb, const struct config *cfg, const __u32 l2)
{
	struct sender from = {};
	__u64 *slot = 0, word = 0;
	struct packet p = {};
	enum place at;
	enum kind kind;

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
		from.bucket = expect_source(cfg, p.saddr, p.family); /* memory answers while the sockets are looked through */
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
	if ((p.flags & (TH_SYN | TH_ACK)) == TH_SYN) {
		from.cell = find_expected(cfg, (const struct address *)p.saddr, p.family, &from.src, from.bucket);
		return fresh(skb, cfg, &p, &from);
	}
	if (foreign_reply(cfg, &p, 1) == TC_ACT_SHOT) /* from port 25 to port 25 */
		return TC_ACT_SHOT;
	return old_flow(skb, cfg, &p, slot, word);
}

static __always_inline int uplink(struct __sk_buff *skb, const struct config *cfg, const __u32 l2)
{
	struct packet p = {};
	enum place at;
	enum kind kind;

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
	const struct config *cfg;

	let_udp_go_on(skb, sizeof(struct ethhdr));
	cfg = get_config();
	if (!cfg) /* never: it is an array */
		return TC_ACT_UNSPEC;
	let_tcp_go_on(skb, cfg, sizeof(struct ethhdr));
	return mail(skb, cfg, sizeof(struct ethhdr));
}

SEC("tc")
int mail_ingress_l3(struct __sk_buff *skb)
{
	const struct config *cfg;

	let_udp_go_on(skb, 0);
	cfg = get_config();
	if (!cfg) /* never: it is an array */
		return TC_ACT_UNSPEC;
	let_tcp_go_on(skb, cfg, 0);
	return mail(skb, cfg, 0);
}

SEC("tc")
int uplink_ingress(struct __sk_buff *skb)
{
	const struct config *cfg;

	let_udp_go_on(skb, sizeof(struct ethhdr));
	cfg = get_config();
	if (!cfg) /* never: it is an array */
		return TC_ACT_UNSPEC;
	let_tcp_go_on(skb, cfg, sizeof(struct ethhdr));
	return uplink(skb, cfg, sizeof(struct ethhdr));
}

SEC("tc")
int uplink_ingress_l3(struct __sk_buff *skb)
{
	const struct config *cfg;

	let_udp_go_on(skb, 0);
	cfg = get_config();
	if (!cfg) /* never: it is an array */
		return TC_ACT_UNSPEC;
	let_tcp_go_on(skb, cfg, 0);
	return uplink(skb, cfg, 0);
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

char _license[] SEC("license") = "Dual MIT/GPL";
