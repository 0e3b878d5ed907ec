/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* What is counted: packets by their fate, and what became of a user's connections. */
#ifndef SLUICE_COUNT_H
#define SLUICE_COUNT_H

#include "source.h"

static __always_inline void count_one(enum reason why)
{
	__u32 key = why;
	__u64 *n = bpf_map_lookup_elem(&counters, &key);

	if (n)
		*n += 1; /* per CPU */
}

__noinline int count(enum reason why)
{
	count_one(why);
	return 0;
}

static __noinline struct user_counts *counts_of(__u32 user)
{
	struct user_counts *c = bpf_map_lookup_elem(&user_counters, &user);

	if (!c) {
		struct user_counts zero = {};

		bpf_map_update_elem(&user_counters, &user, &zero, BPF_NOEXIST);
		c = bpf_map_lookup_elem(&user_counters, &user);
		if (!c)
			count(REASON_USER_FULL);
	}
	return c;
}

/*
 * Both in one call, since a call costs as much as what it does here. The cell is where the source was found, or null stands for
 * its bucket; what is counted there can go to the user's slot later.
 */
__noinline int count_with_user(enum reason reason, __u32 user, enum user_reason why, struct host_bucket *bucket, __u32 cell)
{
	struct user_slot *slot = bpf_map_lookup_elem(&user_slots, &user);
	struct user_counts *c;
	__u64 more = 1, n = 0;

	count_one(reason);
#ifdef QUICK
	if (slot && bucket)
		n = count_in_cell(bucket, cell, user, why);
#endif
	if (n) {
		if (n <= 0xffffffff)
			return 0;
		more = 1ULL << 32;
	} else if (slot && (why == USER_PASSED || why == USER_INTERCEPTED)) {
		if (__sync_fetch_and_add(why == USER_PASSED ? &slot->passed : &slot->intercepted, 1) != 0xffffffff)
			return 0;
		more = 1ULL << 32;
	}
	c = counts_of(user);
	if (c && why < USER_MAX)
		__sync_fetch_and_add(&c->n[why], more);
	return 0;
}

#endif
