/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* How much one may have: of explanations of a lock, of fail-open, of connections to the proxy. */
#ifndef SLUICE_BUDGET_H
#define SLUICE_BUDGET_H

#include "count.h"

/* Takes one from a budget of `most` per window; the window begins with its first use. */
static __always_inline int spend(struct budget *b, __u64 most, __u64 now)
{
	__u64 start = b->start_ns;

	/* Two CPUs may both find the window over: one of them resets it, and at most its neighbour's one is forgotten. */
	if (now - start >= BUDGET_WINDOW && now > start && __sync_val_compare_and_swap(&b->start_ns, start, now) == start)
		__sync_lock_test_and_set(&b->count, 0);
	return __sync_fetch_and_add(&b->count, 1) < most;
}

__noinline int spend_lock(__u32 id, __u32 most, __u64 now)
{
	struct budget *b = bpf_map_lookup_elem(&lock_budgets, &id);

	if (!b) {
		struct budget fresh = {.start_ns = now};

		bpf_map_update_elem(&lock_budgets, &id, &fresh, BPF_NOEXIST);
		b = bpf_map_lookup_elem(&lock_budgets, &id);
	}
	return b ? spend(b, most, now) : 0; /* no room to count: no budget */
}

__noinline int spend_open(const struct packet *p, __u64 now)
{
	struct host_key k = {};
	struct budget *b;

	if (!p)
		return 0;
	k.family = p->family;
	k.bits = p->family == FAMILY_4 ? 32 : 64; /* whoever has an IPv6 address has its /64 */
	__builtin_memcpy(k.addr, p->saddr, 8);
	b = bpf_map_lookup_elem(&open_budgets, &k);
	if (!b) {
		struct budget fresh = {.start_ns = now};

		bpf_map_update_elem(&open_budgets, &k, &fresh, BPF_NOEXIST);
		b = bpf_map_lookup_elem(&open_budgets, &k);
	}
	return b ? spend(b, OPEN_SYN_CAP, now) : 0;
}

/* The bucket of whoever has no counters; null where it was full until now. */
static __noinline __u64 *other_bucket(const struct source *src, const struct packet *p, __u64 due)
{
	struct host_key k = {};
	__u64 *owed;

	if (!src || !p)
		return 0;
	if (src->user) { /* family 0: not an address */
		__builtin_memcpy(k.addr, &src->user, sizeof(src->user));
	} else {
		k.family = p->family;
		k.bits = p->family == FAMILY_4 ? 32 : 64;
		__builtin_memcpy(k.addr, p->saddr, 8);
	}
	owed = bpf_map_lookup_elem(&syn_buckets, &k);
	if (!owed)
		bpf_map_update_elem(&syn_buckets, &k, &due, BPF_NOEXIST);
	return owed;
}

static __always_inline __u64 *bucket_of(const struct source *src, const struct packet *p, __u64 due)
{
	struct user_slot *slot = bpf_map_lookup_elem(&user_slots, &src->user);
	struct user_counts *c;

	if (src->user && slot)
		return &slot->syn_due;
	c = src->user ? counts_of(src->user) : 0;
	return c ? &c->syn_due : other_bucket(src, p, due);
}

/* Takes one SYN from the user's bucket: a fresh one costs the time in which it is filled again, and SYN_BURST may be owed. */
static __always_inline int spend_syn(const struct source *src, const struct packet *p, __u64 now)
{
	__u64 *owed, step, was, due;

	if (!src || !p || !src->syn_rate)
		return 1;
	step = NSEC_PER_SEC / src->syn_rate;
	owed = bucket_of(src, p, now + step);
	if (!owed)
		return 1;
	for (int i = 0; i < 4; i++) {
		was = *(volatile __u64 *)owed;
		due = (was > now ? was : now) + step;
		if (due - now > SYN_BURST * NSEC_PER_SEC)
			return 0;
		if (__sync_val_compare_and_swap(owed, was, due) == was)
			return 1;
	}
	return 1; /* so many CPUs at once: one too many does no harm */
}

#endif
