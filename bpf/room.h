/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* The proxy's own namespace: how packets get into it, to the listener, and out again to whom they are for. */
#ifndef SLUICE_ROOM_H
#define SLUICE_ROOM_H

#include "judge.h"
#include "packet.h"
#include "reset.h"
#include "way.h"

#define TCPOPT_MSS 2

static __always_inline const struct config *get_config(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&config, &zero);
}

static __always_inline void set_mark(struct __sk_buff *skb, const struct config *cfg, __u32 bits)
{
	skb->mark = (skb->mark & ~(cfg->mark_intercept | cfg->mark_judged)) | bits;
}

/* Everything is local in there; the mark tells what the listener shall have. */
static __always_inline int enter_room(struct __sk_buff *skb, const struct config *cfg, __u32 mark)
{
	set_mark(skb, cfg, mark);
	return bpf_redirect_peer(cfg->door, 0);
}

/* In the room: what is for the listener is assigned, since a socket can be assigned in its own namespace only. */
static __always_inline int in_room(struct __sk_buff *skb)
{
	const struct config *cfg = get_config();
	struct bpf_sock *sk;
	__u32 zero = 0;
	long bad;

	if (!cfg) /* never: it is an array */
		return TC_ACT_SHOT;
	if (!(skb->mark & cfg->mark_intercept)) /* finds its socket by itself */
		return TC_ACT_UNSPEC;
	set_mark(skb, cfg, 0);
	sk = bpf_map_lookup_elem(&listeners, &zero);
	if (!sk) { /* closed a moment ago: the client tries again */
		slot_empty_for(0, coarse_now());
		return TC_ACT_SHOT;
	}
	bad = bpf_sk_assign(skb, sk, 0);
	bpf_sk_release(sk);
	if (!bad)
		return TC_ACT_UNSPEC;
	count(REASON_ASSIGN_FAILED);
	return TC_ACT_SHOT;
}

struct too_big4 {
	struct iphdr ip;
	struct { __u8 type, code; __be16 check, unused, mtu; } icmp;
	struct { struct iphdr ip; __u8 tcp[8]; } quote;
};

struct too_big6 {
	struct ipv6hdr ip;
	struct { __u8 type, code; __be16 check; __be32 mtu; } icmp;
	struct { struct ipv6hdr ip; __u8 tcp[20]; } quote;
};

/* RFC 1191 4, to the socket that sent the packet. */
__noinline int too_big4(struct __sk_buff *skb, __u32 mtu)
{
	const __u32 l2 = sizeof(struct ethhdr);
	struct too_big4 m = {};

	if (bpf_skb_load_bytes(skb, l2, &m.quote, sizeof(m.quote)) || m.quote.ip.ihl != 5)
		return -1;
	m.ip.version = 4;
	m.ip.ihl = 5;
	m.ip.tot_len = bpf_htons(sizeof(m));
	m.ip.ttl = 64;
	m.ip.protocol = IPPROTO_ICMP;
	m.ip.saddr = m.quote.ip.daddr;
	m.ip.daddr = m.quote.ip.saddr;
	m.ip.check = ~fold(bpf_csum_diff(0, 0, (__be32 *)&m.ip, sizeof(m.ip), 0));
	m.icmp.type = ICMP_DEST_UNREACH;
	m.icmp.code = ICMP_FRAG_NEEDED;
	m.icmp.mtu = bpf_htons(mtu);
	m.icmp.check = ~fold(bpf_csum_diff(0, 0, (__be32 *)&m.icmp, sizeof(m.icmp) + sizeof(m.quote), 0));
	return bpf_skb_change_tail(skb, l2 + sizeof(m), 0) || bpf_skb_store_bytes(skb, l2, &m, sizeof(m), BPF_F_RECOMPUTE_CSUM);
}

/* RFC 8201 4 */
__noinline int too_big6(struct __sk_buff *skb, __u32 mtu)
{
	struct { __u32 saddr[4], daddr[4]; __be32 len, next; } pseudo = {};
	const __u32 l2 = sizeof(struct ethhdr);
	struct too_big6 m = {};

	if (bpf_skb_load_bytes(skb, l2, &m.quote, sizeof(m.quote)) || m.quote.ip.nexthdr != IPPROTO_TCP)
		return -1;
	m.ip.version = 6;
	m.ip.payload_len = bpf_htons(sizeof(m.icmp) + sizeof(m.quote));
	m.ip.nexthdr = IPPROTO_ICMPV6;
	m.ip.hop_limit = 64;
	m.ip.saddr = m.quote.ip.daddr;
	m.ip.daddr = m.quote.ip.saddr;
	m.icmp.type = ICMPV6_PKT_TOOBIG;
	m.icmp.mtu = bpf_htonl(mtu);
	__builtin_memcpy(pseudo.saddr, &m.ip.saddr, 16);
	__builtin_memcpy(pseudo.daddr, &m.ip.daddr, 16);
	pseudo.len = bpf_htonl(sizeof(m.icmp) + sizeof(m.quote));
	pseudo.next = bpf_htonl(IPPROTO_ICMPV6);
	m.icmp.check = ~fold(bpf_csum_diff(0, 0, (__be32 *)&m.icmp, sizeof(m.icmp) + sizeof(m.quote),
		bpf_csum_diff(0, 0, (__be32 *)&pseudo, sizeof(pseudo), 0)));
	return bpf_skb_change_tail(skb, l2 + sizeof(m), 0) || bpf_skb_store_bytes(skb, l2, &m, sizeof(m), BPF_F_RECOMPUTE_CSUM);
}

/*
 * What the proxy offers in its SYN-ACK is cut to what the way to the customer bears, as it would be on that interface: who
 * does not hear of path MTU would else get stuck. TCP's first option is that one (RFC 9293 3.7.1).
 */
__noinline int offer_no_more(struct __sk_buff *skb, __u32 l4, __u32 most)
{
	struct { __u8 kind, len; __be16 mss; } option;
	const __u32 at = l4 + sizeof(struct tcphdr);

	if (bpf_skb_load_bytes(skb, at, &option, sizeof(option)) || option.kind != TCPOPT_MSS || option.len != sizeof(option) ||
	    bpf_ntohs(option.mss) <= most)
		return 0;
	most = bpf_htons(most);
	if (bpf_l4_csum_replace(skb, l4 + __builtin_offsetof(struct tcphdr, check), option.mss, most, 2))
		return 0;
	option.mss = most;
	return bpf_skb_store_bytes(skb, at, &option, sizeof(option), 0);
}

/*
 * The proxy, which has no privilege, could disconnect a source-preserving socket and bind and connect it anew. It cannot
 * take the mark away, and it cannot choose the cookie: only the connection that the helper began may leave.
 */
__noinline int is_preserved(struct __sk_buff *skb, const struct packet *p)
{
	__u64 cookie = bpf_get_socket_cookie(skb);
	const struct preserved *is = bpf_map_lookup_elem(&preserved, &cookie);

	if (!is || !p || is->family != p->family || is->dport != p->dport)
		return 0;
	for (int i = 0; i < 4; i++)
		if (is->saddr[i] != p->saddr[i] || is->daddr[i] != p->daddr[i])
			return 0;
	return 1;
}

/* Whatever socket of the proxy it is, no other connection begins but those of the helper, and nothing but mail's goes on. */
static __always_inline int may_leave(struct __sk_buff *skb, const struct packet *p, enum kind kind)
{
	if ((kind == KIND_REPLY || kind == KIND_OUTBOUND) && (p->flags & (TH_SYN | TH_ACK)) != TH_SYN) /* a flow goes on */
		return 1;
	if (kind == KIND_OUTBOUND && is_preserved(skb, p))
		return 1;
	if (kind == KIND_REPLY || kind == KIND_OUTBOUND || (skb->sk && skb->protocol != bpf_htons(ETH_P_ARP))) /* else the kernel's own talk, for nobody out there */
		count(REASON_GUARD_SOCKET);
	return 0;
}

/* Bytes of the packet, or of its segments, from IP on. */
static __always_inline __u32 size_on_the_way(struct __sk_buff *skb, const struct packet *p)
{
	__u8 offset;

	if (!skb->gso_size)
		return skb->len - p->l2;
	if (bpf_skb_load_bytes(skb, p->l4 + 12, &offset, sizeof(offset)))
		return 0;
	return p->l4 - p->l2 + (offset >> 4) * 4 + skb->gso_size;
}

/*
 * What the proxy sent goes where the gateway's routes lead, past its firewall's rules for what is forwarded. The socket is
 * still known here, though it is of another namespace.
 */
static __always_inline int leave_room(struct __sk_buff *skb)
{
	const struct config *cfg = get_config();
	struct bpf_fib_lookup f = {};
	struct packet p = {};
	__u64 now = coarse_now();
	struct way *w;
	__u32 size;
	__u8 tos = 0;

	if (!cfg || !may_leave(skb, &p, parse(skb, cfg, &p, sizeof(struct ethhdr))))
		return TC_ACT_SHOT;
	if (p.family == FAMILY_4 && bpf_skb_load_bytes(skb, p.l2 + 1, &tos, sizeof(tos)))
		return TC_ACT_SHOT;
	size = size_on_the_way(skb, &p);
	set_mark(skb, cfg, cfg->mark_judged); /* for the guard: the room has one of its own */
	w = way_of(cfg, &p);
	if (size <= BORNE_ANYWHERE && w && w->until_ns > now && size <= w->mtu && same_way(w, &p, tos) && !(p.flags & TH_SYN))
		return go_to(p.family, w->next, w->ifindex);
	switch (ask_routes(skb, &p, tos, size, &f)) {
	case BPF_FIB_LKUP_RET_SUCCESS:
		if (w)
			remember_way(w, &p, tos, &f, now);
		if ((p.flags & (TH_SYN | TH_ACK)) == (TH_SYN | TH_ACK) && f.mtu_result >= 256)
			offer_no_more(skb, p.l4, f.mtu_result - (p.family == FAMILY_4 ? 40 : 60));
		/* fallthrough */
	case BPF_FIB_LKUP_RET_NO_NEIGH: /* the kernel asks for it */
		return go_to(p.family, f.ipv6_dst, f.ifindex);
	case BPF_FIB_LKUP_RET_FRAG_NEEDED:
		count(REASON_TOO_BIG);
		if (p.family == FAMILY_4 ? too_big4(skb, f.mtu_result) : too_big6(skb, f.mtu_result))
			return TC_ACT_SHOT;
		return enter_room(skb, cfg, 0);
	}
	return TC_ACT_UNSPEC; /* a route that only the kernel can go, or none */
}

#endif
