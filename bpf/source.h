/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* Whose a source address is: what the tables of hosts and of networks say of it. */
#ifndef SLUICE_SOURCE_H
#define SLUICE_SOURCE_H

#include "hint.h"
#ifdef QUICK
#include "quick.h"
#endif

static __always_inline void set_net_key(struct net_key *k, __u16 family, const __u32 *addr, __be16 port)
{
	k->prefixlen = 32 + (family == FAMILY_4 ? 32 : 128);
	k->family = family;
	k->port = port;
	__builtin_memcpy(k->addr, addr, 16);
}

static __always_inline int in_set(void *set, __u16 family, const __u32 *addr)
{
	struct net_key k;

	set_net_key(&k, family, addr, 0);
	return bpf_map_lookup_elem(set, &k) != 0;
}

static __always_inline int look_for(const struct config *cfg, const struct address *a, __u32 family, struct source *to, const struct host_bucket *bucket)
{
	struct host_key h = {.family = family, .bits = family == FAMILY_4 ? 32 : 128};
	const struct source *s = 0, *subnet = 0;
	int single, known_not = 0;
	struct net_key n;

	if (!cfg || !a || !to)
		return QUICK_CELLS;
	__builtin_memcpy(h.addr, a, 16);
	single = family == FAMILY_6 && !far_from(cfg, CONFIG_HINT_HOSTS6, HINTED_HOSTS6, family, a->word);
#ifdef QUICK
	if (cfg->flags & CONFIG_QUICK && !single) {
		int cell = find_quick(cfg, a, family, to, bucket);

		if (cell <= FOUND && (family == FAMILY_4 || !(cfg->flags & CONFIG_LONG6)))
			return cell;
		known_not = cell == FOUND_NOT;
	}
#endif
	if (!known_not) {
		if (family == FAMILY_4 || single)
			s = bpf_map_lookup_elem(&source_hosts, &h);
		if (!s && family == FAMILY_6) {
			h.bits = 64;
			__builtin_memset(h.addr + 8, 0, 8);
			subnet = bpf_map_lookup_elem(&source_hosts, &h);
		}
	}
	if (!s && (!subnet || cfg->flags & CONFIG_LONG6)) {
		set_net_key(&n, family, a->word, 0);
		s = bpf_map_lookup_elem(&source_nets, &n);
		if (subnet && s && s->bits <= 64)
			s = 0;
	}
	if (!s)
		s = subnet ? subnet : &cfg->fallback;
	*to = *s;
	return QUICK_CELLS;
}

#ifdef QUICK
/* As find_source, of one whose bucket expect_source gave, or null. Returns the number of its cell there, or a larger one. */
__noinline int find_expected(const struct config *cfg, const struct address *a, __u32 family, struct source *to, const struct host_bucket *bucket)
{
	return look_for(cfg, a, family, to, bucket);
}

static __always_inline int find_source(const struct config *cfg, const struct address *a, __u32 family, struct source *to)
{
	return find_expected(cfg, a, family, to, 0);
}
#else
/* The entry of the longest prefix: the exact tables first, since they cost a third of the trie. `to` is empty before. */
__noinline int find_source(const struct config *cfg, const struct address *a, __u32 family, struct source *to)
{
	return look_for(cfg, a, family, to, 0);
}
#endif

#endif
