/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * The quick table of hosts. A SYN of a source that was not seen for long waits for memory, and little else: here for one line,
 * which says whose it is and counts it, and which is asked for before the sockets are looked through.
 */
#ifndef SLUICE_QUICK_H
#define SLUICE_QUICK_H

#include "hint.h"

/* What find_quick says. */
enum found {
	FOUND = QUICK_CELLS, /* but not in a cell; smaller ones are numbers of cells */
	FOUND_NOT,
	FOUND_PERHAPS, /* source_hosts knows */
};

static __always_inline __u64 quick_addr(const __u32 *addr, __u32 family)
{
	return family == FAMILY_6 ? addr[0] | (__u64)addr[1] << 32 : addr[0];
}

/* The bucket where an address, or the /64 around it, would stand; null: there is no table. */
static __always_inline struct host_bucket *quick_bucket(const struct config *cfg, void *table, const __u32 *addr, __u32 family)
{
	const struct host_bucket *head;
	__u32 at = 0;

	head = bpf_map_lookup_elem(table, &at);
	if (!head)
		return 0;
	at = 1 + (mix(mix(cfg->seed, quick_addr(addr, family)), family) & head->cell[0].addr);
	return bpf_map_lookup_elem(table, &at);
}

/*
 * Asks memory for what there is to know of a source. By writing: a load would soon hold up whatever comes after it, while a store
 * is waited for by nobody.
 */
static __always_inline struct host_bucket *expect_source(const struct config *cfg, const __u32 *addr, __u32 family)
{
	struct host_bucket *b;
	__u32 zero = 0;
	void *table;

	if (!(cfg->flags & CONFIG_QUICK))
		return 0;
	table = bpf_map_lookup_elem(&host_cells, &zero);
	b = table ? quick_bucket(cfg, table, addr, family) : 0;
	if (b)
		*(volatile __u32 *)&b->asked = 0;
	return b;
}

/* What is said of a bound source; in another table, which came meanwhile, the line may be another's. */
static __always_inline int find_line(__u32 at, __u64 addr, struct source *to)
{
	__u32 zero = 0;
	void *table = bpf_map_lookup_elem(&host_cells, &zero);
	const struct host_line *l = table && at ? bpf_map_lookup_elem(table, &at) : 0;

	if (!l || l->addr != addr)
		return FOUND_PERHAPS;
	*to = l->source;
	return FOUND;
}

/* What the quick table says of an address, or of the /64 around it: the number of its cell, or an enum found. */
static __always_inline int find_quick(const struct config *cfg, const struct address *a, __u32 family, struct source *to, const volatile struct host_bucket *b)
{
	int left = FOUND_PERHAPS;
	__u64 addr, kind;

	if (!cfg || !a || !to)
		return FOUND_PERHAPS;
	if (!b) {
		__u32 zero = 0;
		void *table = bpf_map_lookup_elem(&host_cells, &zero);

		b = table ? quick_bucket(cfg, table, a->word, family) : 0;
		if (!b)
			return FOUND_PERHAPS;
	}
	addr = quick_addr(a->word, family);
	kind = family == FAMILY_6 ? QUICK_6 : QUICK_4;
	for (int i = 0; i < QUICK_CELLS; i++) {
		__u64 what = b->cell[i].what;

		if (!(what >> QUICK_KIND))
			left = FOUND_NOT;
		if (b->cell[i].addr != addr || what >> QUICK_KIND != kind)
			continue;
		if (b->cell[i].what != what) /* in change */
			return FOUND_PERHAPS;
		if (what >> QUICK_BOUND & 1)
			return find_line(what, addr, to);
		to->user = what;
		to->syn_rate = what >> QUICK_RATE;
		to->owner = what >> QUICK_OWNER & 127;
		to->mode = what >> QUICK_MODE & 7;
		to->fail = what >> QUICK_FAIL & 1;
		to->flags = what >> QUICK_RPF & 1 ? SOURCE_RPF : 0;
		to->bits = family == FAMILY_6 ? 64 : 32;
		return i;
	}
	return left;
}

/* Counts in its cell what became of a source's connection, if it is the user's and that is what its mode says; else returns 0. */
static __always_inline __u64 count_in_cell(struct host_bucket *b, __u32 i, __u32 user, enum user_reason why)
{
	enum user_reason usual;
	__u64 what;

	if (i >= QUICK_CELLS)
		return 0;
	what = b->cell[i].what;
	if ((__u32)what != user || what >> QUICK_BOUND & 1)
		return 0;
	switch (what >> QUICK_MODE & 7) {
	case MODE_PASS:
	case MODE_OBSERVE:
		usual = USER_PASSED;
		break;
	case MODE_SHADOW:
	case MODE_INTERCEPT:
		usual = USER_INTERCEPTED;
		break;
	default:
		return 0;
	}
	return why == usual ? 1 + (__u64)__sync_fetch_and_add(&b->count[i], 1) : 0;
}

#endif
