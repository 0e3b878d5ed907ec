/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* What may leave: fresh connections that nobody has judged, and those of the proxy's own sockets. */
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

/*
 * The proxy, which has no privilege, could disconnect a source-preserving socket and bind and connect it anew. It cannot
 * take the mark away, and it cannot choose the cookie: only the connection that the helper began may leave.
 */
__noinline int is_preserved(struct __sk_buff *skb, const struct packet *p)
{
	__u64 cookie = bpf_get_socket_cookie(skb);
	const struct preserved *is = bpf_map_lookup_elem(&preserved, &cookie);

	if (!is || !p || is->family != p->family || is->dport != p->dport)
		return 0;
	for (int i = 0; i < 4; i++)
		if (is->saddr[i] != p->saddr[i] || is->daddr[i] != p->daddr[i])
			return 0;
	return 1;
}

static __always_inline int own_packet(struct __sk_buff *skb, const struct packet *p, enum kind kind)
{
	if (kind == KIND_OUTBOUND && ((p->flags & (TH_SYN | TH_ACK)) != TH_SYN || is_preserved(skb, p)))
		return TC_ACT_UNSPEC;
	count(REASON_GUARD_SOCKET); /* another connection, or not even to a mail port */
	return TC_ACT_SHOT;
}

static __always_inline int guard(struct __sk_buff *skb, const __u32 l2)
{
	const struct config *cfg = get_config();
	__u32 ifindex = skb->ingress_ifindex, mark;
	struct packet p = {};
	enum kind kind;
	enum mode rule;

	if (!cfg) /* never: it is an array */
		return TC_ACT_UNSPEC;
	mark = skb->mark & (cfg->mark_judged | cfg->mark_intercept);
	if (ifindex ? mark & cfg->mark_judged : mark != cfg->mark_judged) /* a mail_ingress has seen it; the gateway's own */
		return TC_ACT_UNSPEC;
	kind = parse(skb, cfg, &p, l2);
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

/* At the room's end of the door: whatever socket of the proxy it is, no other connection begins but those of the helper. */
static __always_inline int leaving_room(struct __sk_buff *skb)
{
	const struct config *cfg = get_config();
	struct packet p = {};
	enum kind kind;

	if (!cfg) /* never: it is an array */
		return TC_ACT_SHOT;
	kind = parse(skb, cfg, &p, sizeof(struct ethhdr));
	if ((kind == KIND_REPLY || kind == KIND_OUTBOUND) && (p.flags & (TH_SYN | TH_ACK)) != TH_SYN) /* a flow goes on */
		return TC_ACT_UNSPEC;
	if (kind == KIND_OUTBOUND && is_preserved(skb, &p))
		return TC_ACT_UNSPEC;
	if (kind != KIND_OUTBOUND && kind != KIND_REPLY && (!skb->sk || skb->protocol == bpf_htons(ETH_P_ARP))) /* the kernel's own talk, for nobody out there */
		return TC_ACT_SHOT;
	count(REASON_GUARD_SOCKET); /* another connection, or not even to a mail port */
	return TC_ACT_SHOT;
}

#endif
