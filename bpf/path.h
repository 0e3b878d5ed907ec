/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* The reverse path: is a source routed back to where it came from? */
#ifndef SLUICE_PATH_H
#define SLUICE_PATH_H

#include "judge.h"

#define AF_INET 2
#define AF_INET6 10
#define PATH_TICK 28         /* a word's time is in units of 2^28 ns, about a quarter of a second */
#define PATH_TICKS 0xffffffULL /* and has so many bits of it */
#define PATH_HOLDS 4         /* ticks */

/*
 * Is the source routed back through the interface it came in by? Looked up as the reverse packet. Where there are
 * policy rules, walking them costs more than all other checks together: so the main table is asked first, and the rules only
 * where it says no. It does not know the gateway's own addresses.
 */
__noinline int route_leads_back(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_fib_lookup f = {};
	__u32 how = BPF_FIB_LOOKUP_DIRECT;
	int r;

	if (!p)
		return 0;
	if (in_set(&local, p->family, p->saddr))
		how = 0;
	for (int i = 0; i < 2; i++) {
		__builtin_memset(&f, 0, sizeof(f)); /* the answer stands in it as well */
		f.l4_protocol = IPPROTO_TCP;
		f.ifindex = p->ifindex;
		if (p->family == FAMILY_4) {
			f.family = AF_INET;
			f.ipv4_src = p->daddr[0];
			f.ipv4_dst = p->saddr[0];
		} else {
			f.family = AF_INET6;
			__builtin_memcpy(f.ipv6_src, p->daddr, 16);
			__builtin_memcpy(f.ipv6_dst, p->saddr, 16);
		}
		r = bpf_fib_lookup(skb, &f, sizeof(f), how);
		/* The neighbour and the MTU are no matter: the interface stands in the answer all the same. */
		if ((r == BPF_FIB_LKUP_RET_SUCCESS || r == BPF_FIB_LKUP_RET_NO_NEIGH || r == BPF_FIB_LKUP_RET_FRAG_NEEDED) && f.ifindex == p->ifindex)
			return 1;
		if (!how)
			return 0;
		how = 0;
	}
	return 0;
}

/* The same, remembered for a moment: whoever sends one SYN sends more, and the look-up costs more than all other checks. */
static __always_inline int reverse_path_ok(struct __sk_buff *skb, const struct config *cfg, const struct packet *p, __u64 now)
{
	__u64 h = mix(cfg->seed, cfg->changed_ns), tick = now >> PATH_TICK & PATH_TICKS, *seen;
	__u32 slot;

	if (p->family == FAMILY_6 && (__u8)p->daddr[0] == 0xff) /* there is no way back from a multicast address */
		return route_leads_back(skb, p);
	h = mix(h, p->saddr[0] | (__u64)p->ifindex << 32);
	if (p->family == FAMILY_6) {
		h = mix(h, p->saddr[1] | (__u64)p->saddr[2] << 32);
		h = mix(h, p->saddr[3]);
	}
	h = mix(h, p->family);
	slot = h & (KNOWN_PATHS - 1);
	seen = bpf_map_lookup_elem(&known_paths, &slot);
	if (seen && !((*seen ^ h) & ~PATH_TICKS) && ((tick - *seen) & PATH_TICKS) < PATH_HOLDS)
		return 1;
	if (!route_leads_back(skb, p))
		return 0;
	if (seen)
		*seen = (h & ~PATH_TICKS) | tick;
	return 1;
}

#endif
