/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* Ways out: where the gateway's routes lead, looked up once for the packets of a moment. */
#ifndef SLUICE_WAY_H
#define SLUICE_WAY_H

#include "judge.h"
#include "packet.h"

#define INET 2   /* AF_INET and AF_INET6, whose header would need the C library */
#define INET6 10
#define EINVAL 22
#define FIB_SKIP_NEIGH 4 /* BPF_FIB_LOOKUP_SKIP_NEIGH */
#define WAYS 1024        /* a power of two */
#define WAY_HOLDS (NSEC_PER_SEC / 10)
#define BORNE_ANYWHERE 1280 /* bytes (RFC 8200 5); for what is larger the way's present MTU counts */

/* What a look-up said. Each processor has its own, so nobody reads half of one. */
struct way {
	__u32 saddr[4]; /* policy rules may ask for it */
	__u32 daddr[4];
	__u64 until_ns; /* CLOCK_MONOTONIC */
	__u32 next[4];  /* hop */
	__u32 ifindex;
	__u32 mtu;
	__u16 family; /* 0: nothing */
	__u8 tos;
	__u8 pad[5];
};

/* Not pinned: other programs begin anew. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, WAYS);
	__type(key, __u32);
	__type(value, struct way);
} ways SEC(".maps");

static __always_inline struct way *way_of(const struct config *cfg, const struct packet *p)
{
	__u64 h = mix(cfg->seed, p->saddr[0] | (__u64)p->daddr[0] << 32);
	__u32 slot;

	if (p->family == FAMILY_6) {
		h = mix(h, p->saddr[1] | (__u64)p->daddr[1] << 32);
		h = mix(h, p->saddr[2] | (__u64)p->daddr[2] << 32);
		h = mix(h, p->saddr[3] | (__u64)p->daddr[3] << 32);
	}
	slot = h & (WAYS - 1);
	return bpf_map_lookup_elem(&ways, &slot);
}

static __always_inline int same_way(const struct way *w, const struct packet *p, __u8 tos)
{
	if (w->family != p->family || w->tos != tos)
		return 0;
	for (int i = 0; i < 4; i++)
		if (w->saddr[i] != p->saddr[i] || w->daddr[i] != p->daddr[i])
			return 0;
	return 1;
}

/* Asks the gateway's routes; not every kernel knows how to leave the neighbour out (Linux 6.3). */
static __always_inline long ask_routes(struct __sk_buff *skb, const struct packet *p, __u8 tos, __u32 size, struct bpf_fib_lookup *f)
{
	long answer;

	f->tot_len = size > 0xffff ? 0xffff : size;
	f->ifindex = skb->ifindex;
	f->l4_protocol = IPPROTO_TCP;
	if (p->family == FAMILY_4) {
		f->family = INET;
		f->tos = tos;
		f->ipv4_src = p->saddr[0];
		f->ipv4_dst = p->daddr[0];
	} else {
		f->family = INET6;
		__builtin_memcpy(f->ipv6_src, p->saddr, 16);
		__builtin_memcpy(f->ipv6_dst, p->daddr, 16);
	}
	answer = bpf_fib_lookup(skb, f, sizeof(*f), FIB_SKIP_NEIGH);
	return answer == -EINVAL ? bpf_fib_lookup(skb, f, sizeof(*f), 0) : answer;
}

static __always_inline void remember_way(struct way *w, const struct packet *p, __u8 tos, const struct bpf_fib_lookup *f, __u64 now)
{
	__builtin_memcpy(w->saddr, p->saddr, 16);
	__builtin_memcpy(w->daddr, p->daddr, 16);
	__builtin_memcpy(w->next, f->ipv6_dst, 16);
	w->ifindex = f->ifindex;
	w->mtu = f->mtu_result;
	w->family = p->family;
	w->tos = tos;
	w->until_ns = now + WAY_HOLDS;
}

static __always_inline int go_to(__u16 family, const __u32 *hop, __u32 ifindex)
{
	struct bpf_redir_neigh next = {};

	next.nh_family = family == FAMILY_4 ? INET : INET6;
	__builtin_memcpy(next.ipv6_nh, hop, 16);
	return bpf_redirect_neigh(ifindex, &next, sizeof(next), 0);
}

#endif
