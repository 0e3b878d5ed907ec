/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* The proxy's sockets, and which packets are theirs: of a connection, a fresh one, a SYN cookie's last ACK, a path MTU message. */
#ifndef SLUICE_SOCKET_H
#define SLUICE_SOCKET_H

#include "judge.h"
#include "reset.h"

#define TCP_LAST_ACK 9
#define TCP_LISTEN 10

/* Where a socket of the proxy was found; never FLOW_PASSES. */
enum place {
	PLACE_NONE = 0,
	PLACE_HERE, /* in the gateway's own namespace */
	PLACE_ROOM,
};

/* The socket of exactly this connection in a namespace, listeners included; release it. */
static __always_inline struct bpf_sock *find_socket(struct __sk_buff *skb, const struct packet *p, __u64 netns)
{
	struct bpf_sock_tuple t = {};

	if (p->family == FAMILY_4) {
		t.ipv4.saddr = p->saddr[0];
		t.ipv4.daddr = p->daddr[0];
		t.ipv4.sport = p->sport;
		t.ipv4.dport = p->dport;
		return bpf_skc_lookup_tcp(skb, &t, sizeof(t.ipv4), netns, 0);
	}
	__builtin_memcpy(t.ipv6.saddr, p->saddr, 16);
	__builtin_memcpy(t.ipv6.daddr, p->daddr, 16);
	t.ipv6.sport = p->sport;
	t.ipv6.dport = p->dport;
	return bpf_skc_lookup_tcp(skb, &t, sizeof(t.ipv6), netns, 0);
}

/*
 * A SYN from a port used again, while the connection before lacks but its last ACK. That ACK was perhaps just before it, and
 * waits until the proxy comes out of close(), and a SYN that joined it would be lost, for a second. So the challenge with
 * which the kernel would answer (RFC 5961 4.2) goes out from here: the client's reset ends the old connection, if it is still
 * there, and a client who hears an ACK out of place sends its SYN again within milliseconds (Linux 5.18).
 */
static __always_inline void challenge(struct bpf_sock *sk, struct packet *p)
{
	struct bpf_tcp_sock *tp = bpf_tcp_sock(sk);

	if (!tp || !p->plain)
		return;
	p->challenge = 1;
	p->seq = bpf_htonl(tp->snd_nxt);
	p->ack_seq = bpf_htonl(tp->rcv_nxt);
}

/* Gives the packet to the socket of its connection in a namespace, unless there is none. Consumes nothing else. */
static __always_inline int to_socket_in(struct __sk_buff *skb, struct packet *p, __u64 netns)
{
	struct bpf_sock *sk = find_socket(skb, p, netns);
	int found;

	if (!sk)
		return 0;
	found = sk->state != TCP_LISTEN;
	if (sk->state == TCP_LAST_ACK && (p->flags & (TH_SYN | TH_ACK)) == TH_SYN)
		challenge(sk, p);
	/* May fail, since the mark alone leads there: this only spares the kernel a second look-up. */
	else if (found && netns == (__u64)BPF_F_CURRENT_NETNS)
		bpf_sk_assign(skb, sk, 0);
	bpf_sk_release(sk);
	return found;
}

/* Are there sockets of the proxy in the gateway's own namespace? */
static __always_inline int sockets_here(const struct config *cfg)
{
	return !cfg->door || cfg->flags & CONFIG_HOST_SOCKETS;
}

static __always_inline enum place to_own_socket(struct __sk_buff *skb, const struct config *cfg, struct packet *p)
{
	if (cfg->door && to_socket_in(skb, p, cfg->room))
		return PLACE_ROOM;
	return sockets_here(cfg) && to_socket_in(skb, p, BPF_F_CURRENT_NETNS) ? PLACE_HERE : PLACE_NONE;
}

/* Where known_flows says the socket of a connection was, given its word there. */
static __always_inline enum place known_place(__u64 found, __u64 word)
{
	return (found | FLOW_PASSES) == word && found != word ? found & FLOW_PASSES : PLACE_NONE;
}

/* What becomes of a fresh connection that the proxy should have. */
enum answer {
	ANSWER_ASSIGN, /* the proxy is there, or was announced to come back */
	ANSWER_WAIT,   /* it is away for a moment: its listener's queue keeps the connection */
	ANSWER_RETRY,  /* it is away for a moment, with its listener: the client sends its SYN again */
	ANSWER_AWAY,   /* it is away: the fail mode holds */
};

static __always_inline enum answer ask_proxy(const struct config *cfg, enum fail fail, int filled, __u64 now)
{
	struct proxy s = proxy_state(cfg, now);
	__u64 empty = slot_empty_for(filled, now);

	if (s.restarting || s.age <= BEAT_MAX_AGE) {
		if (filled)
			return ANSWER_ASSIGN;
		if (s.restarting)
			return ANSWER_RETRY;
		/* It beats and has no listener: a fault that must not last, so the slot's age counts. */
	}
	if (!filled && empty > s.age)
		s.age = empty;
	if (s.age <= BEAT_MAX_AGE)
		return ANSWER_RETRY;
	if (fail == FAIL_CLOSED && s.age <= CLOSED_WAIT)
		return filled ? ANSWER_WAIT : ANSWER_RETRY;
	return ANSWER_AWAY;
}

/*
 * Does the proxy surely listen, in the room? It beats, and nobody has seen the slot empty: where the room's program does, which
 * looks there for each fresh connection, it says so.
 */
static __always_inline int listens_inside(const struct config *cfg, __u64 now)
{
	struct proxy s = proxy_state(cfg, now);
	__u32 zero = 0;
	const struct runtime *r = bpf_map_lookup_elem(&runtime, &zero);

	return cfg->door && (s.restarting || s.age <= BEAT_MAX_AGE) && r && !r->empty_since_ns;
}

/* Assigns to the listener, or leaves that to the room, if the proxy is there to be asked and, for a locked source, its budget is not used up. */
__noinline int try_listener(struct __sk_buff *skb, const struct config *cfg, enum fail fail, const struct lock *lock, __u64 now)
{
	__u32 zero = 0;
	struct bpf_sock *sk;
	enum answer a;

	if (!cfg)
		return ANSWER_AWAY;
	if (listens_inside(cfg, now))
		return lock && !spend_lock(lock->id, lock->budget, now) ? ANSWER_AWAY : ANSWER_ASSIGN;
	sk = bpf_map_lookup_elem(&listeners, &zero);
	a = ask_proxy(cfg, fail, sk != 0, now);
	if (!sk)
		return a;
	if (a == ANSWER_ASSIGN || a == ANSWER_WAIT) {
		if (lock && !spend_lock(lock->id, lock->budget, now)) {
			a = ANSWER_AWAY;
		} else if (!cfg->door && bpf_sk_assign(skb, sk, 0)) {
			count(REASON_ASSIGN_FAILED);
			a = ANSWER_RETRY;
		}
	}
	bpf_sk_release(sk);
	return a;
}

/* Headers where they are in the packet, if they are whole in its linear part. */
static __always_inline long check_cookie(struct __sk_buff *skb, const struct packet *p, struct bpf_sock *sk)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	const __u32 l2 = p->l2 & 15;

	if (p->family == FAMILY_4) {
		struct reset4 *h = data + l2;

		return (void *)(h + 1) <= end ? bpf_tcp_check_syncookie(sk, &h->ip, sizeof(h->ip), &h->tcp, sizeof(h->tcp)) : 1;
	}
	struct reset6 *h = data + l2;

	return (void *)(h + 1) <= end ? bpf_tcp_check_syncookie(sk, &h->ip, sizeof(h->ip), &h->tcp, sizeof(h->tcp)) : 1;
}

/* The same by copies of the headers. */
static __always_inline long check_cookie_slowly(struct __sk_buff *skb, const struct packet *p, struct bpf_sock *sk)
{
	struct tcphdr tcp;

	if (bpf_skb_load_bytes(skb, p->l4, &tcp, sizeof(tcp)))
		return 1;
	if (p->family == FAMILY_4) {
		struct iphdr ip;

		return bpf_skb_load_bytes(skb, p->l2, &ip, sizeof(ip)) ? 1 : bpf_tcp_check_syncookie(sk, &ip, sizeof(ip), &tcp, sizeof(tcp));
	}
	struct ipv6hdr ip;

	return bpf_skb_load_bytes(skb, p->l2, &ip, sizeof(ip)) ? 1 : bpf_tcp_check_syncookie(sk, &ip, sizeof(ip), &tcp, sizeof(tcp));
}

/* Is this the last ACK of a handshake that the listener answered with a SYN cookie? Assigns it if so, or leaves that to the room. */
__noinline int try_cookie(struct __sk_buff *skb, const struct config *cfg, const struct packet *p)
{
	__u32 zero = 0;
	struct bpf_sock *sk = bpf_map_lookup_elem(&listeners, &zero);
	long bad = 1;

	if (!sk)
		return 0;
	if (p)
		bad = p->direct ? check_cookie(skb, p, sk) : check_cookie_slowly(skb, p, sk);
	if (!bad && cfg && !cfg->door)
		bad = bpf_sk_assign(skb, sk, 0);
	bpf_sk_release(sk);
	return !bad;
}

/* Is there a socket of this connection in a namespace? */
static __always_inline int connection_in(struct __sk_buff *skb, const struct packet *p, __u64 netns)
{
	struct bpf_sock *sk = find_socket(skb, p, netns);
	int found;

	if (!sk)
		return 0;
	found = sk->state != TCP_LISTEN;
	bpf_sk_release(sk);
	return found;
}

/*
 * A path MTU message about one of the proxy's connections would be forwarded to whom it seems to belong, the real server or
 * the customer, and the connection would stall behind a tunnel. Returns an enum place.
 */
__noinline int icmp_for_proxy(struct __sk_buff *skb, const struct config *cfg, const struct packet *p)
{
	struct packet q = {};
	__be16 ports[2];
	__u8 head[2];
	__u32 at;

	if (!cfg || !p || bpf_skb_load_bytes(skb, p->l4, head, sizeof(head)))
		return 0;
	at = p->l4 + 8;
	if (p->family == FAMILY_4) {
		struct iphdr ip;

		if (head[0] != ICMP_DEST_UNREACH || head[1] != ICMP_FRAG_NEEDED || bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) ||
		    ip.protocol != IPPROTO_TCP)
			return 0;
		set_addresses4(&q, &ip);
		at += ip.ihl * 4;
	} else {
		struct ipv6hdr ip;

		if (head[0] != ICMPV6_PKT_TOOBIG || bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.nexthdr != IPPROTO_TCP)
			return 0;
		set_addresses6(&q, &ip);
		at += sizeof(ip);
	}
	if (bpf_skb_load_bytes(skb, at, ports, sizeof(ports)))
		return 0;
	/* The quoted packet is one that we sent; the socket is found by the packet that would answer it. */
	if (!is_mail_port(cfg, ports[0]) && !is_mail_port(cfg, ports[1]))
		return 0;
	struct packet answer = {.family = q.family, .sport = ports[1], .dport = ports[0]};
	__builtin_memcpy(answer.saddr, q.daddr, 16);
	__builtin_memcpy(answer.daddr, q.saddr, 16);

	if (cfg->door && connection_in(skb, &answer, cfg->room))
		return PLACE_ROOM;
	return sockets_here(cfg) && connection_in(skb, &answer, BPF_F_CURRENT_NETNS) ? PLACE_HERE : PLACE_NONE;
}

#endif
