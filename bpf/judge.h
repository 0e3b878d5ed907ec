/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* What the maps say about a packet: source, exemption, lock, and the proxy's sign of life. */
#ifndef SLUICE_JUDGE_H
#define SLUICE_JUDGE_H

#include "packet.h"
#include "hint.h"
#include "source.h"
#include "count.h"
#include "budget.h"

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
static __always_inline int any_urgent(void)
{
	__u32 zero = 0;
	const volatile struct urgent *u = bpf_map_lookup_elem(&urgent, &zero);

	return u && u->limit_ns;
}

/* The one that means an address, or 0. Another process writes them: what it says for longer than a moment is not heeded. */
__noinline int find_urgent(const struct address *a, __u32 family, __u64 now)
{
	if (!a)
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
	__u32 i = any_urgent() ? find_urgent((const struct address *)addr, family, now) : 0;
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
