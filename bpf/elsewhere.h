/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* Connections that began elsewhere: answers to SYNs that the proxy did not get. */
#ifndef SLUICE_ELSEWHERE_H
#define SLUICE_ELSEWHERE_H

#include "judge.h"

/* Whose SYN was answered, and may it have left without the proxy? */
enum half {
	HALF_FINE = 0,
	HALF_ASYMMETRIC, /* the customer's packets take another way out */
	HALF_FORBIDDEN,  /* and this one's must not */
};

/*
 * A SYN-ACK without a socket here answers a SYN that the proxy did not get. Perhaps the customer's packets take another way
 * out; perhaps an accomplice elsewhere sent it with the customer's address, and all that follows would pass as a flow that
 * began before us. Nobody honest whose group is `closed`, who is locked or rejected, gets such an answer.
 */
__noinline int half_open(const struct config *cfg, const struct packet *p, int named)
{
	__u64 now = bpf_ktime_get_ns();
	struct source src = {};
	const struct lock *lock;
	struct proxy s;
	enum mode mode;

	if (!cfg || !p)
		return HALF_FINE;
	find_source(cfg, (const struct address *)p->daddr, p->family, &src);
	if (named && !src.bits)
		return HALF_FINE;
	lock = find_lock(cfg, p->family, p->daddr, now);
	if (lock && lock_means(lock, &src) && !in_set(&lock_exempt, p->family, p->saddr))
		return HALF_FORBIDDEN;
	mode = mode_towards(cfg, &src, p->family, p->saddr, p->sport, now);
	if (mode >= MODE_REJECT)
		return HALF_FORBIDDEN;
	if ((mode != MODE_INTERCEPT && mode != MODE_SHADOW) || bypassed(cfg, p->family, p->daddr, now))
		return HALF_FINE;
	if (src.fail == FAIL_CLOSED)
		return HALF_FORBIDDEN;
	s = proxy_state(cfg, now);
	return s.restarting || s.age <= BEAT_MAX_AGE ? HALF_ASYMMETRIC : HALF_FINE; /* else fail-open let the SYN go */
}

/* Remembers for the operator whose connection began elsewhere. */
__noinline int note_elsewhere(const struct config *cfg, const struct packet *p)
{
	struct host_key k = {};
	struct elsewhere *e, first = {.count = 1, .last_ns = bpf_ktime_get_ns()};
	struct source src = {};

	if (!cfg || !p)
		return 0;
	k.family = p->family;
	k.bits = p->family == FAMILY_4 ? 32 : 128;
	__builtin_memcpy(k.addr, p->daddr, 16);
	e = bpf_map_lookup_elem(&elsewhere, &k);
	if (e) {
		__sync_fetch_and_add(&e->count, 1);
		e->last_ns = first.last_ns;
		return 0;
	}
	find_source(cfg, (const struct address *)p->daddr, p->family, &src);
	first.user = src.user;
	bpf_map_update_elem(&elsewhere, &k, &first, BPF_ANY);
	return 0;
}

/* TCP from a mail port that is no socket's of ours. `named`: only customers who stand in the table. */
static __always_inline int foreign_reply(const struct config *cfg, const struct packet *p, int named)
{
	if ((p->flags & (TH_SYN | TH_ACK | TH_RST)) != (TH_SYN | TH_ACK) || in_set(&local, p->family, p->daddr))
		return TC_ACT_UNSPEC;
	if (p->sport != bpf_htons(MAIL_PORT)) /* what the other ports' rules are depends on where the SYN went in */
		return TC_ACT_UNSPEC;
	switch (half_open(cfg, p, named)) {
	case HALF_FORBIDDEN:
		count(REASON_HALF_OPEN);
		note_elsewhere(cfg, p);
		return TC_ACT_SHOT;
	case HALF_ASYMMETRIC:
		if (!named) {
			count(REASON_ASYMMETRIC); /* counted only: it goes to its customer */
			note_elsewhere(cfg, p);
		}
	}
	return TC_ACT_UNSPEC;
}

#endif
