/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* What may leave by an uplink: not fresh connections that nobody has judged, nor those of sockets that were turned elsewhere. */
#ifndef SLUICE_GUARD_H
#define SLUICE_GUARD_H

#include "judge.h"
#include "packet.h"
#include "room.h"

/* Would this source's connection have been filtered, and must it not leave unfiltered? */
__noinline int guarded(const struct config *cfg, const struct packet *p)
{
	__u64 now = bpf_ktime_get_ns();
	struct source src = {};
	enum mode mode;

	if (!cfg || !p)
		return 0;
	find_source(cfg, (const struct address *)p->saddr, p->family, &src);
	if (src.fail != FAIL_CLOSED)
		return 0;
	mode = mode_towards(cfg, &src, p->family, p->daddr, p->dport, now);
	if (mode == MODE_PASS || mode == MODE_OBSERVE)
		return 0;
	return mode >= MODE_REJECT || !bypassed(cfg, p->family, p->saddr, now);
}

static __always_inline int own_packet(struct __sk_buff *skb, const struct packet *p, enum kind kind)
{
	if (kind == KIND_OUTBOUND && ((p->flags & (TH_SYN | TH_ACK)) != TH_SYN || is_preserved(skb, p)))
		return TC_ACT_UNSPEC;
	count(REASON_GUARD_SOCKET); /* another connection, or not even to a mail port */
	return TC_ACT_SHOT;
}

/* A packet that no mail_ingress has judged, or one of the gateway's own sockets that says so. */
static __always_inline int unjudged(struct __sk_buff *skb, const struct config *cfg, __u32 ifindex, const __u32 l2)
{
	struct packet p = {};
	enum kind kind = parse(skb, cfg, &p, l2);
	enum mode rule;

	if (!ifindex)
		return own_packet(skb, &p, kind);
	if (kind != KIND_OUTBOUND && kind != KIND_UNDECIDED) /* not mail */
		return TC_ACT_UNSPEC;
	if (kind == KIND_OUTBOUND && (p.flags & (TH_SYN | TH_ACK)) != TH_SYN) /* a flow goes on as it began */
		return TC_ACT_UNSPEC;
	rule = port_mode(ifindex, p.dport);
	if (kind == KIND_OUTBOUND && (rule == MODE_DROP || rule == MODE_PASS)) /* not opened on that interface */
		return TC_ACT_UNSPEC;
	if (!guarded(cfg, &p)) /* open, passed or exempt */
		return TC_ACT_UNSPEC;
	count(kind == KIND_OUTBOUND ? REASON_GUARD_DROP : REASON_GUARD_UNPARSED); /* an interface nobody judges */
	return TC_ACT_SHOT;
}

static __always_inline int guard(struct __sk_buff *skb, const __u32 l2)
{
	__u32 ifindex = skb->ingress_ifindex, mark;
	const struct config *cfg;

	if (usually(ifindex)) /* what is forwarded */
		let_udp_go_on(skb, l2);
	cfg = get_config();
	if (!cfg) /* never: it is an array */
		return TC_ACT_UNSPEC;
	mark = skb->mark & (cfg->mark_judged | cfg->mark_intercept);
	if (ifindex ? mark & cfg->mark_judged : mark != cfg->mark_judged) /* a mail_ingress has seen it; the gateway's own */
		return TC_ACT_UNSPEC;
	if (usually(ifindex))
		let_tcp_go_on(skb, cfg, l2);
	return unjudged(skb, cfg, ifindex, l2);
}

#endif
