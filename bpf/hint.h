/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* What spares look-ups: hashes, and hints that a trie holds nothing around an address. */
#ifndef SLUICE_HINT_H
#define SLUICE_HINT_H

#include "packet.h"

static __always_inline __u64 mix(__u64 h, __u64 v)
{
	h = (h ^ v) * 0x9e3779b97f4a7c15ULL;
	return h ^ (h >> 32);
}

/* Is there surely nothing of a kind around an address? What the hints say is true while the configuration has their flag. */
static __always_inline int far_from(const struct config *cfg, enum config_flag complete, __u32 kind, __u16 family, const __u32 *addr)
{
	const struct hint *h;
	__u32 first = (__u8)addr[0];
	__u64 at;

	if (!(cfg->flags & complete))
		return 0;
	h = bpf_map_lookup_elem(&hints, &kind);
	if (!h) /* never: it is an array */
		return 0;
	if (family == FAMILY_4)
		at = mix(FAMILY_4, addr[0] & 0xffffff);
	else
		at = mix(FAMILY_6, addr[0] | (__u64)(addr[1] & 0xffff) << 32);
	/* One condition for both: the verifier follows every branch. */
	at = h->near[(at >> 6) & (HINT_BITS / 64 - 1)] >> (at & 63) | h->wide[(family & 2 ? 4 : 0) + (first >> 6)] >> (first & 63);
	return !(at & 1);
}

#endif
