/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* Whose a source address is: what the tables of hosts and of networks say of it. */
#ifndef SLUICE_SOURCE_H
#define SLUICE_SOURCE_H

#include "hint.h"

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

struct address {
	__u32 word[4];
};

enum found {
	FOUND_NOT = 0,
	FOUND,
	FOUND_PERHAPS, /* source_hosts knows */
};

#ifdef QUICK
/* What the quick table says of an address, or of the /64 around it. */
static __always_inline int find_quick(const struct config *cfg, const struct address *a, __u32 family, struct source *to)
{
	__u32 zero = 0, at;
	void *table = bpf_map_lookup_elem(&quick_hosts, &zero);
	const volatile struct host_bucket *b;
	const struct source *s;
	__u64 addr, kind;
	int left = FOUND_PERHAPS;

	if (!table || !cfg || !a || !to)
		return FOUND_PERHAPS;
	b = bpf_map_lookup_elem(table, &zero);
	if (!b)
		return FOUND_PERHAPS;
	addr = a->word[0];
	if (family == FAMILY_6)
		addr |= (__u64)a->word[1] << 32;
	kind = family == FAMILY_6 ? QUICK_6 : QUICK_4;
	at = 1 + (mix(mix(cfg->seed, addr), family) & b->cell[0].addr);
	b = bpf_map_lookup_elem(table, &at);
	if (!b)
		return FOUND_PERHAPS;
	for (int i = 0; i < 4; i++) {
		__u64 what = b->cell[i].what;

		if (!(what >> QUICK_KIND))
			left = FOUND_NOT;
		if (b->cell[i].addr != addr || what >> QUICK_KIND != kind)
			continue;
		if (b->cell[i].what != what) /* in change */
			return FOUND_PERHAPS;
		if (what >> QUICK_BOUND & 1) {
			at = what;
			s = at ? bpf_map_lookup_elem(table, &at) : 0;
			if (!s)
				return FOUND_PERHAPS;
			*to = *s;
			return FOUND;
		}
		to->user = what;
		to->syn_rate = what >> QUICK_RATE;
		to->owner = what >> QUICK_OWNER & 127;
		to->mode = what >> QUICK_MODE & 7;
		to->fail = what >> QUICK_FAIL & 1;
		to->flags = what >> QUICK_RPF & 1 ? SOURCE_RPF : 0;
		to->bits = family == FAMILY_6 ? 64 : 32;
		return FOUND;
	}
	return left;
}
#endif

/* The entry of the longest prefix: the exact tables first, since they cost a third of the trie. `to` is empty before. */
__noinline int find_source(const struct config *cfg, const struct address *a, __u32 family, struct source *to)
{
	struct host_key h = {.family = family, .bits = family == FAMILY_4 ? 32 : 128};
	const struct source *s = 0, *subnet = 0;
	int quick = FOUND_PERHAPS, single;
	struct net_key n;

	if (!cfg || !a || !to)
		return 0;
	__builtin_memcpy(h.addr, a, 16);
	single = family == FAMILY_6 && !far_from(cfg, CONFIG_HINT_HOSTS6, HINTED_HOSTS6, family, a->word);
#ifdef QUICK
	if (cfg->flags & CONFIG_QUICK && !single) {
		quick = find_quick(cfg, a, family, to);
		if (quick == FOUND && (family == FAMILY_4 || !(cfg->flags & CONFIG_LONG6)))
			return 0;
	}
#endif
	if (quick != FOUND_NOT) {
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
	return 0;
}

#endif
