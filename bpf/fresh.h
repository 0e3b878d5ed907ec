/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* What becomes of a connection that begins. */
#ifndef SLUICE_FRESH_H
#define SLUICE_FRESH_H

#include "judge.h"
#include "path.h"
#include "socket.h"
#include "room.h"

/* Forwards, and tells the guard that this packet was judged. */
static __always_inline int forward(struct __sk_buff *skb, const struct config *cfg)
{
	set_mark(skb, cfg, cfg->mark_judged);
	return TC_ACT_UNSPEC;
}

/* To a connection's socket: into the room, or to local delivery by the policy route. */
static __always_inline int deliver(struct __sk_buff *skb, const struct config *cfg, enum place at)
{
	if (at == PLACE_ROOM)
		return enter_room(skb, cfg, 0);
	set_mark(skb, cfg, cfg->mark_intercept | cfg->mark_judged);
	return TC_ACT_OK;
}

/* To the listener. */
static __always_inline int deliver_fresh(struct __sk_buff *skb, const struct config *cfg, const struct packet *p)
{
	if (cfg->door)
		return enter_room(skb, cfg, cfg->mark_intercept);
	return deliver(skb, cfg, PLACE_HERE);
}

/* A source, and where in a quick table it was found. */
struct sender {
	struct source src;
	struct host_bucket *bucket;
	__u32 cell;
};

/* Puts the packet's fate down for both sets of counters. */
static __always_inline void note(enum reason why, const struct sender *from, enum user_reason user_why)
{
	count_with_user(why, from->src.user, user_why, from->bucket, from->cell);
}

/* A fresh connection that the proxy shall have. */
static __always_inline int intercept(struct __sk_buff *skb, const struct config *cfg, const struct packet *p, const struct sender *from, __u64 now)
{
	if (!spend_syn(&from->src, p, now)) { /* one host must not take the proxy from all others */
		note(REASON_SYN_LIMITED, from, USER_SYN_LIMITED);
		return TC_ACT_SHOT;
	}
	switch (try_listener(skb, cfg, from->src.fail, 0, now)) {
	case ANSWER_ASSIGN: /* the usual way */
		note(REASON_INTERCEPT, from, USER_INTERCEPTED);
		return deliver_fresh(skb, cfg, p);
	case ANSWER_WAIT: /* kept in the listener's queue until the proxy is back */
		note(REASON_WAIT, from, USER_INTERCEPTED);
		return deliver_fresh(skb, cfg, p);
	case ANSWER_RETRY: /* nobody to give it to, but soon: the client sends its SYN again */
		note(REASON_WAIT_DROP, from, USER_DROPPED);
		return TC_ACT_SHOT;
	}
	if (from->src.fail == FAIL_CLOSED) { /* away for too long, and this source must not go round the proxy */
		note(REASON_FAIL_CLOSED, from, USER_FAILED_CLOSED);
		return reset(skb, p);
	}
	if (!spend_open(p, now)) { /* fail-open is no invitation to flood */
		note(REASON_FAIL_OPEN_CAP, from, USER_DROPPED);
		return TC_ACT_SHOT;
	}
	note(REASON_FAIL_OPEN, from, USER_FAILED_OPEN); /* mail before filtering */
	return forward(skb, cfg);
}

/* A fresh connection of a locked source; a lock never loosens what the mode says. */
static __always_inline int locked(struct __sk_buff *skb, const struct config *cfg, const struct packet *p, const struct sender *from, const struct lock *lock, __u64 now)
{
	if (from->src.mode == MODE_DROP) { /* stricter than the lock */
		note(REASON_DROP, from, USER_DROPPED);
		return TC_ACT_SHOT;
	}
	if (from->src.mode != MODE_REJECT) {
		switch (try_listener(skb, cfg, FAIL_CLOSED, lock, now)) {
		case ANSWER_ASSIGN:
		case ANSWER_WAIT: /* the proxy explains */
			note(REASON_LOCK_EXPLAIN, from, USER_EXPLAINED);
			return deliver_fresh(skb, cfg, p);
		}
	}
	note(REASON_LOCK_RESET, from, USER_LOCK_RESET); /* explained often enough, or nobody to explain */
	return reset(skb, p);
}

/* A SYN that meets no connection. */
static __always_inline int fresh(struct __sk_buff *skb, const struct config *cfg, struct packet *p, const struct sender *from)
{
	__u64 now = coarse_now();
	const struct lock *lock;
	enum mode mode;

	if (is_local(cfg, p->family, p->daddr)) { /* the gateway's own mail server, or whatever listens there */
		count(REASON_LOCAL);
		return forward(skb, cfg);
	}
	if (is_delivery(cfg, p->family, p->saddr)) { /* our own delivery came back at a customer interface */
		count(REASON_LOOP);
		return TC_ACT_SHOT;
	}
	if (from->src.flags & (SOURCE_BIND_IF | SOURCE_BIND_MAC) && !binding_ok(skb, p, &from->src)) { /* a neighbour borrows the address */
		note(REASON_SPOOF_BIND, from, USER_SPOOFED);
		return TC_ACT_SHOT;
	}
	if ((cfg->flags & CONFIG_RPF || from->src.flags & SOURCE_RPF) && !reverse_path_ok(skb, cfg, p, now)) { /* an address from elsewhere */
		note(REASON_SPOOF_PATH, from, USER_SPOOFED);
		return TC_ACT_SHOT;
	}
	if (p->rule == MODE_PASS) { /* submission to others: counted, never opened */
		note(REASON_PORT_PASS, from, USER_PASSED);
		return forward(skb, cfg);
	}
	if (p->rule == MODE_REJECT) { /* submission to others is forbidden here */
		note(REASON_PORT_REJECT, from, USER_REJECTED);
		return reset(skb, p);
	}
	lock = find_lock(cfg, p->family, p->saddr, now);
	if (lock && lock_means(lock, &from->src) && !in_set(&lock_exempt, p->family, p->daddr))
		return locked(skb, cfg, p, from, lock, now);
	mode = mode_towards(cfg, &from->src, p->family, p->daddr, p->dport, now);
	switch (mode) {
	case MODE_REJECT:
		note(REASON_REJECT, from, USER_REJECTED);
		return reset(skb, p);
	case MODE_PASS:
		note(REASON_PASS, from, USER_PASSED);
		return forward(skb, cfg);
	case MODE_OBSERVE:
	case MODE_SHADOW:
	case MODE_INTERCEPT:
		break;
	default: /* MODE_DROP, and what no loader writes */
		note(REASON_DROP, from, USER_DROPPED);
		return TC_ACT_SHOT;
	}
	if (bypassed(cfg, p->family, p->saddr, now)) { /* the operator's way out */
		note(REASON_BYPASS, from, USER_PASSED);
		return forward(skb, cfg);
	}
	if (mode == MODE_OBSERVE) { /* forwarded untouched */
		note(REASON_OBSERVE, from, USER_PASSED);
		return forward(skb, cfg);
	}
	return intercept(skb, cfg, p, from, now);
}

#endif
