/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* What the maps say about a packet: source, exemption, lock, budgets, and the proxy's sign of life. */
#ifndef SLUICE_JUDGE_H
#define SLUICE_JUDGE_H

#include "packet.h"
#include "hint.h"
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

/*
 * Time for what is compared with times of some milliseconds or more. Where the machine paused between the tick and the clock, it
 * is as old as the pause was long, for the rest of the tick.
 */
static __always_inline __u64 coarse_now(void)
{
	__u64 tick = bpf_jiffies64();
	__u32 zero = 0;
	struct clock *c = bpf_map_lookup_elem(&clock, &zero);

	if (!c) /* never: it is an array */
		return bpf_ktime_get_coarse_ns();
	if (c->tick != tick) {
		c->ns = bpf_ktime_get_coarse_ns();
		c->tick = tick;
	}
	return c->ns;
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

/* Both in one call, since a call costs as much as what it does here. */
__noinline int count_with_user(enum reason reason, __u32 user, enum user_reason why)
{
	struct user_slot *slot = bpf_map_lookup_elem(&user_slots, &user);
	struct user_counts *c;
	__u64 more = 1;

	count_one(reason);
	if (slot && (why == USER_PASSED || why == USER_INTERCEPTED)) {
		if (__sync_fetch_and_add(why == USER_PASSED ? &slot->passed : &slot->intercepted, 1) != 0xffffffff)
			return 0;
		more = 1ULL << 32;
	}
	c = counts_of(user);
	if (c && why < USER_MAX)
		__sync_fetch_and_add(&c->n[why], more);
	return 0;
}

/* Asks memory for a user's slot long before it is needed: the answer may take longer than all that is done meanwhile. */
static __always_inline int expect_user(__u32 user)
{
	const volatile struct user_slot *slot = bpf_map_lookup_elem(&user_slots, &user);

	return slot ? slot->syn_due & 1 : 0;
}

static __always_inline int is_local(const struct config *cfg, __u16 family, const __u32 *addr)
{
	return !far_from(cfg, CONFIG_HINT_LOCAL, HINTED_LOCAL, family, addr) && in_set(&local, family, addr);
}

static __always_inline int is_delivery(const struct config *cfg, __u16 family, const __u32 *addr)
{
	return !far_from(cfg, CONFIG_HINT_DELIVERY, HINTED_DELIVERY, family, addr) && in_set(&delivery, family, addr);
}

static __always_inline const struct exemption *find_exemption(struct net_key *k, __be16 port, __u64 now)
{
	const struct exemption *e;

	k->prefixlen = 32 + (k->family == FAMILY_4 ? 32 : 128);
	k->port = port;
	for (int i = 0; i < EXPIRED_MAX; i++) {
		e = bpf_map_lookup_elem(&exempt, k);
		if (!e || !e->until_ns || e->until_ns > now)
			return e;
		if (!e->bits)
			return 0;
		k->prefixlen = 32 + e->bits - 1; /* an expired one must not hide a wider one */
	}
	return 0;
}

/* The mode of a source towards a destination that may be exempt. Beside the family stands whether none is for one port. */
static __noinline enum mode exempt_mode(const struct source *src, __u32 family_portless, const __u32 *addr, __be16 port, __u64 now)
{
	const struct exemption *one, *all;
	struct net_key k;

	if (!src || !addr)
		return MODE_NONE;
	set_net_key(&k, family_portless & ~CONFIG_NO_EXEMPT_PORTS, addr, 0);
	one = family_portless & CONFIG_NO_EXEMPT_PORTS ? 0 : find_exemption(&k, port, now);
	all = find_exemption(&k, 0, now);
	if (one && (!all || one->bits >= all->bits))
		return one->mode;
	return all ? all->mode : src->mode;
}

/* The mode of a source towards a destination. */
static __always_inline enum mode mode_towards(const struct config *cfg, const struct source *src, enum family family, const __u32 *addr, __be16 port, __u64 now)
{
	if (cfg->flags & CONFIG_NO_EXEMPT || far_from(cfg, CONFIG_HINT_EXEMPT, HINTED_EXEMPT, family, addr))
		return src->mode;
	return exempt_mode(src, family | (cfg->flags & CONFIG_NO_EXEMPT_PORTS), addr, port, now); /* five arguments are the most */
}

static __always_inline const struct lock *find_host_lock(const struct config *cfg, enum family family, const __u32 *addr, __u64 now)
{
	struct host_key h = {.family = family, .bits = family == FAMILY_4 ? 32 : 128};
	const struct lock *l;

	__builtin_memcpy(h.addr, addr, 16);
	if (family == FAMILY_4 || cfg->flags & CONFIG_LOCK_128) {
		l = bpf_map_lookup_elem(&lock_hosts, &h);
		if (family == FAMILY_4 || (l && (!l->until_ns || l->until_ns > now)))
			return l && (!l->until_ns || l->until_ns > now) ? l : 0;
	}
	h.bits = 64;
	__builtin_memset(h.addr + 8, 0, 8);
	l = bpf_map_lookup_elem(&lock_hosts, &h);
	return l && (!l->until_ns || l->until_ns > now) ? l : 0;
}

/* May there be locks that are on their way to the tables? */
__noinline int any_urgent(void)
{
	__u32 zero = 0;
	const volatile struct urgent *u = bpf_map_lookup_elem(&urgent, &zero);

	return u && u->limit_ns;
}

/* The one that means an address, or 0. Another process writes them: what it says for longer than a moment is not heeded. */
__noinline int find_urgent(const struct address *a, __u32 family, __u64 now)
{
	if (!a || !any_urgent())
		return 0;
	for (__u32 i = 1; i <= URGENT_LOCKS; i++) {
		const volatile struct urgent *u;
		__u32 key = i, other = 0;
		__u64 limit;

		u = bpf_map_lookup_elem(&urgent, &key);
		if (!u)
			return 0;
		limit = u->limit_ns;
		if (limit <= now || limit > now + URGENT_MAX || u->family != family)
			continue;
		for (int w = 0; w < 4; w++)
			other |= (a->word[w] ^ u->addr[w]) & u->mask[w];
		if (!other)
			return i;
	}
	return 0;
}

static __always_inline const struct lock *urgent_lock(__u32 family, const __u32 *addr, __u64 now)
{
	__u32 i = find_urgent((const struct address *)addr, family, now);
	const struct urgent *u = i ? bpf_map_lookup_elem(&urgent, &i) : 0;

	return u ? &u->lock : 0;
}

/* The lock in force on an address, if any; whether it is this source's is asked next. */
static __noinline const struct lock *find_lock(const struct config *cfg, enum family family, const __u32 *addr, __u64 now)
{
	const struct lock *l;
	struct net_key k;

	if (!cfg || !addr)
		return 0;
	l = urgent_lock(family, addr, now);
	if (l)
		return l;
	if (far_from(cfg, CONFIG_HINT_LOCKS, HINTED_LOCKS, family, addr))
		return 0;
	if (cfg->flags & CONFIG_LOCK_HOSTS)
		return find_host_lock(cfg, family, addr, now);
	set_net_key(&k, family, addr, 0);
	for (int i = 0; i < EXPIRED_MAX; i++) {
		l = bpf_map_lookup_elem(&locks, &k);
		if (!l || !l->until_ns || l->until_ns > now)
			return l;
		if (!l->bits)
			return 0;
		k.prefixlen = 32 + l->bits - 1; /* an expired one must not hide a wider one */
	}
	return 0;
}

/* A user's longer prefix inside the locked one is another's, whom the lock does not mean; unless it is the same. */
static __always_inline int lock_means(const struct lock *l, const struct source *src)
{
	return l->bits >= src->owner || (src->user && src->user == l->id);
}

/* Has the operator opened a way out for this source, or for all? */
static __always_inline int bypassed(const struct config *cfg, __u16 family, const __u32 *addr, __u64 now)
{
	const __u64 *until;
	struct net_key k;

	if (cfg->bypass_until_ns > now)
		return 1;
	if (!(cfg->flags & CONFIG_BYPASS_NETS))
		return 0;
	set_net_key(&k, family, addr, 0);
	until = bpf_map_lookup_elem(&bypass_nets, &k);
	return until && *until > now;
}

/* Rule of a port on an interface: MODE_DROP when this interface does not know it as a mail port. */
static __always_inline enum mode port_mode(__u32 ifindex, __be16 port)
{
	struct port_key k = {.ifindex = ifindex, .port = port};
	const struct port_rule *r;

	if (port == bpf_htons(MAIL_PORT))
		return MODE_NONE;
	r = bpf_map_lookup_elem(&port_rules, &k);
	if (!r) {
		k.ifindex = 0;
		r = bpf_map_lookup_elem(&port_rules, &k);
	}
	return r ? r->mode : MODE_DROP;
}

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

/* The proxy's sign of life. */
struct proxy {
	__u64 age; /* since its last beat */
	int restarting;
};

static __always_inline struct proxy proxy_state(const struct config *cfg, __u64 now)
{
	struct proxy s = {.age = now > cfg->start_ns ? now - cfg->start_ns : 0};
	__u32 zero = 0;
	const volatile struct heartbeat *hb = bpf_map_lookup_elem(&heartbeat, &zero);
	__u64 beat, until;

	if (!hb)
		return s;
	beat = hb->beat_ns; /* once: another process writes it */
	until = hb->restart_until_ns;
	/* A beat from the future is a lie that would outlive its author, but a moment is the other CPU's clock read. */
	if (beat == 0 || beat > now + BEAT_MAX_AGE)
		beat = cfg->start_ns;
	s.age = beat < now ? now - beat : 0;
	s.restarting = until > now && until <= beat + RESTART_MAX;
	return s;
}

/* How long the slot has been empty; keeps that in `runtime`. */
static __always_inline __u64 slot_empty_for(int filled, __u64 now)
{
	__u32 zero = 0;
	struct runtime *r = bpf_map_lookup_elem(&runtime, &zero);

	if (!r)
		return 0;
	if (filled) {
		if (r->empty_since_ns)
			r->empty_since_ns = 0;
		return 0;
	}
	if (!r->empty_since_ns)
		r->empty_since_ns = now;
	return now > r->empty_since_ns ? now - r->empty_since_ns : 0;
}

/* Is a bound source where it belongs? A device without Ethernet addresses shows none, so a bound MAC fails there. */
static __always_inline int binding_ok(struct __sk_buff *skb, const struct packet *p, const struct source *src)
{
	void *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = (void *)(long)skb->data;
	__u8 mac[6];

	if (!p || !src)
		return 0;
	if (src->flags & SOURCE_BIND_IF && src->ifindex != p->ifindex)
		return 0;
	if (!(src->flags & SOURCE_BIND_MAC))
		return 1;
	if (p->l2 < sizeof(struct ethhdr))
		return 0;
	if ((void *)(eth + 1) <= end)
		__builtin_memcpy(mac, eth->h_source, sizeof(mac));
	else if (bpf_skb_load_bytes(skb, sizeof(mac), mac, sizeof(mac)))
		return 0;
	for (int i = 0; i < 6; i++) /* memcmp would be a call, and there is none */
		if (mac[i] != src->mac[i])
			return 0;
	return 1;
}

/*
 * Where known_flows may hold this connection, and as what: a word that nobody can guess, and another one after each change of
 * the tables. Its last bits tell whose the connection is: FLOW_PASSES, or an enum place.
 */
static __always_inline __u64 *known_slot(const struct config *cfg, const struct packet *p, __u64 *word)
{
	__u64 h = mix(cfg->seed, cfg->changed_ns);
	__u32 slot;

	h = mix(h, p->saddr[0] | (__u64)p->daddr[0] << 32);
	if (p->family == FAMILY_6) {
		h = mix(h, p->saddr[1] | (__u64)p->daddr[1] << 32);
		h = mix(h, p->saddr[2] | (__u64)p->daddr[2] << 32);
		h = mix(h, p->saddr[3] | (__u64)p->daddr[3] << 32);
	}
	h = mix(h, p->sport | (__u64)p->dport << 16 | (__u64)p->family << 32);
	slot = h & (KNOWN_FLOWS - 1);
	*word = h | FLOW_PASSES; /* never 0 */
	return bpf_map_lookup_elem(&known_flows, &slot);
}

/* A connection begins, perhaps with ports that one had which went elsewhere. */
static __always_inline void forget_flow(const struct config *cfg, const struct packet *p)
{
	__u64 word, *slot = known_slot(cfg, p, &word);

	if (slot && (*slot | FLOW_PASSES) == word)
		*slot = 0;
}

/* Is this a segment from the middle of a connection on a port like 25, or its end? */
static __always_inline int goes_on(const struct packet *p)
{
	return !(p->flags & TH_SYN) && p->flags & (TH_ACK | TH_RST) && p->rule == MODE_NONE;
}

#endif
