/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * From an skb to what the programs decide upon. The usual packet is read in place; options, extension headers, fragments and
 * headers outside the linear part take the slow way through bpf_skb_load_bytes, which has no blind spot.
 *
 * Functions that are __noinline and not static are verified once and for themselves, which keeps the verifier's work small.
 */
#ifndef SLUICE_PACKET_H
#define SLUICE_PACKET_H

#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>

#include "maps.h"

/* linux/icmp.h would need the C library. */
#define ICMP_DEST_UNREACH 3
#define ICMP_FRAG_NEEDED 4
#define ICMPV6_PKT_TOOBIG 2
#define IP_MF 0x2000
#define IP_OFFSET 0x1fff
#define IP6_OFFSET 0xfff8
#define MAX_OPTIONS 12 /* more than any sane stack sends */
#define MAX_HEADERS 8 /* likewise */
#define TH_FIN 1
#define TH_SYN 2
#define TH_RST 4
#define TH_ACK 16
#define usually(x) __builtin_expect(!!(x), 1)

struct address {
	__u32 word[4];
};

/* What a packet is to us. */
enum kind {
	KIND_FOREIGN = 0, /* none of our business */
	KIND_OUTBOUND,    /* TCP to a mail port */
	KIND_REPLY,       /* TCP from a mail port, to another port */
	KIND_ICMP,        /* ICMP or ICMPv6, not a fragment */
	KIND_UNDECIDED,   /* is or may be for a mail port, but cannot be judged: see `why` */
};

struct packet {
	__u32 saddr[4]; /* IPv4 in the first word, the rest zero; network order */
	__u32 daddr[4];
	__u32 ifindex;
	__u16 l2; /* where IP begins */
	__u16 l4; /* where TCP begins */
	__be16 sport;
	__be16 dport;
	__u16 family;
	__u8 flags;      /* of TCP */
	__u8 plain;      /* no options, no extension headers */
	enum mode rule;  /* of the port */
	__u8 why;        /* enum reason of KIND_UNDECIDED */
	__u8 challenge;  /* what turns it round writes an ACK with the two numbers below, not a reset */
	__u8 direct;     /* plain, and in the linear part */
	__be32 seq;
	__be32 ack_seq;
};

/* Mail ports of any interface; whether this interface has it is asked later, since few packets get so far. */
static __always_inline int is_mail_port(const struct config *cfg, __be16 port)
{
	if (port == bpf_htons(MAIL_PORT))
		return 1;
#pragma unroll
	for (int i = 0; i < EXTRA_PORTS; i++) {
		if (cfg->ports[i] == 0)
			return 0;
		if (cfg->ports[i] == port)
			return 1;
	}
	return 0;
}

/* The destination decides: a flow from port 25 to port 25 is outbound. */
static __always_inline enum kind kind_of_ports(const struct config *cfg, __be16 sport, __be16 dport)
{
	if (is_mail_port(cfg, dport))
		return KIND_OUTBOUND;
	return is_mail_port(cfg, sport) ? KIND_REPLY : KIND_FOREIGN;
}

static __always_inline void set_tcp(struct packet *p, const struct tcphdr *tcp)
{
	p->sport = tcp->source;
	p->dport = tcp->dest;
	p->flags = ((const __u8 *)tcp)[13];
}

static __always_inline void set_addresses4(struct packet *p, const struct iphdr *ip)
{
	p->family = FAMILY_4;
	p->saddr[0] = ip->saddr;
	p->daddr[0] = ip->daddr;
}

static __always_inline void set_addresses6(struct packet *p, const struct ipv6hdr *ip)
{
	p->family = FAMILY_6;
	__builtin_memcpy(p->saddr, &ip->saddr, 16);
	__builtin_memcpy(p->daddr, &ip->daddr, 16);
}

static __always_inline enum kind undecided(struct packet *p, enum reason why)
{
	p->why = why;
	return KIND_UNDECIDED;
}

/* An IPv6 packet that says ::ffff:192.0.2.1 would borrow an IPv4 source's entry in logs and rules: nobody sends such. */
static __always_inline int is_mapped(const __u32 *a)
{
	return a[0] == 0 && a[1] == 0 && a[2] == bpf_htonl(0xffff);
}

/* Does an IPv4 header carry a source route? Then the destination is not where the packet ends up. */
static __always_inline int has_source_route(struct __sk_buff *skb, __u32 offset, __u32 len)
{
	__u32 at = 0;

	for (int i = 0; i < MAX_OPTIONS; i++) {
		__u8 opt[2];

		if (at >= len)
			return 0;
		if (bpf_skb_load_bytes(skb, offset + at, opt, 1))
			return 1;
		if (opt[0] == 0) /* end of list */
			return 0;
		if (opt[0] == 1) { /* no operation */
			at++;
			continue;
		}
		if (opt[0] == IPOPT_LSRR || opt[0] == IPOPT_SSRR)
			return 1;
		if (at + 2 > len || bpf_skb_load_bytes(skb, offset + at, opt, 2) || opt[1] < 2 || at + opt[1] > len)
			return 1; /* malformed: as bad */
		at += opt[1];
	}
	return 1; /* more than the loop looks at */
}

/*
 * TCP at p->l4, where `limit` is the end of the IP packet: what stands behind it is padding that an attacker chooses.
 * `first` tells a first fragment.
 */
static __always_inline enum kind slow_tcp(struct __sk_buff *skb, const struct config *cfg, struct packet *p, __u32 limit, int first)
{
	struct tcphdr tcp;
	__be16 ports[2];
	enum kind kind;

	if (p->l4 + sizeof(ports) > limit || bpf_skb_load_bytes(skb, p->l4, ports, sizeof(ports)))
		return undecided(p, first ? REASON_FRAG_TINY : REASON_TRUNCATED);
	kind = kind_of_ports(cfg, ports[0], ports[1]);
	if (kind == KIND_FOREIGN)
		return kind;
	p->sport = ports[0];
	p->dport = ports[1];
	if (p->l4 + sizeof(tcp) > limit || bpf_skb_load_bytes(skb, p->l4, &tcp, sizeof(tcp)))
		return undecided(p, first ? REASON_FRAG_TINY : REASON_TRUNCATED);
	set_tcp(p, &tcp);
	/* Dropping the first fragment is enough: without it the receiver never reassembles. A reply is reassembled by us. */
	if (first && kind == KIND_OUTBOUND)
		return undecided(p, REASON_FRAG_FIRST);
	return kind;
}

__noinline int slow4(struct __sk_buff *skb, const struct config *cfg, struct packet *p)
{
	struct iphdr ip;
	__u32 l2, len, limit, fragment;
	enum kind kind;

	if (!cfg || !p || bpf_skb_load_bytes(skb, p->l2, &ip, sizeof(ip)))
		return KIND_FOREIGN; /* not even an IP header: the kernel drops it */
	l2 = p->l2;
	len = ip.ihl * 4;
	fragment = bpf_ntohs(ip.frag_off) & (IP_MF | IP_OFFSET);
	if (len < sizeof(ip))
		return KIND_FOREIGN; /* the kernel drops it */
	p->l4 = l2 + len;
	p->plain = len == sizeof(ip);
	set_addresses4(p, &ip);
	if (ip.protocol == IPPROTO_ICMP)
		return fragment ? KIND_FOREIGN : KIND_ICMP;
	if (ip.protocol != IPPROTO_TCP)
		return KIND_FOREIGN;
	/* RFC 3128: a fragment at byte 8 rewrites the flags of the first one. One further on cannot touch ports or flags, and
	 * what it belongs to is judged by its first fragment. */
	if ((fragment & IP_OFFSET) == 1)
		return undecided(p, REASON_FRAG_TINY);
	if (fragment & IP_OFFSET)
		return KIND_FOREIGN;
	limit = ip.tot_len ? l2 + bpf_ntohs(ip.tot_len) : skb->len; /* 0: a GRO packet beyond 64 KiB */
	kind = slow_tcp(skb, cfg, p, limit, fragment & IP_MF);
	if (kind == KIND_OUTBOUND && has_source_route(skb, l2 + sizeof(ip), len - sizeof(ip)))
		return undecided(p, REASON_OPTIONS);
	return kind;
}

__noinline int slow6(struct __sk_buff *skb, const struct config *cfg, struct packet *p)
{
	struct ipv6hdr ip;
	int first = 0, routed = 0;
	__u32 at, limit;
	enum kind kind;
	__u8 next;

	if (!cfg || !p || bpf_skb_load_bytes(skb, p->l2, &ip, sizeof(ip)))
		return KIND_FOREIGN; /* not even an IP header: the kernel drops it */
	set_addresses6(p, &ip);
	at = p->l2 + sizeof(ip);
	limit = ip.payload_len ? at + bpf_ntohs(ip.payload_len) : skb->len; /* 0: jumbogram */
	next = ip.nexthdr;
	for (int i = 0; i < MAX_HEADERS; i++) {
		struct { __u8 next, len, type, left; } h;

		switch (next) {
		case IPPROTO_TCP:
			p->l4 = at;
			p->plain = !i;
			kind = slow_tcp(skb, cfg, p, limit, first);
			if (kind != KIND_OUTBOUND && kind != KIND_REPLY)
				return kind;
			if (is_mapped(p->saddr) || is_mapped(p->daddr))
				return undecided(p, REASON_BAD_ADDRESS);
			/* Segments left: the destination is not where the packet ends up. */
			return routed && kind == KIND_OUTBOUND ? undecided(p, REASON_OPTIONS) : kind;
		case IPPROTO_ICMPV6:
			p->l4 = at;
			return first ? KIND_FOREIGN : KIND_ICMP;
		case IPPROTO_HOPOPTS:
		case IPPROTO_DSTOPTS:
		case IPPROTO_ROUTING:
		case IPPROTO_FRAGMENT:
		case IPPROTO_AH:
		case IPPROTO_MH:
		case 139: /* HIP */
		case 140: /* Shim6 */
			break;
		default:
			return KIND_FOREIGN; /* another protocol; what is encrypted is not mail on a mail port either */
		}
		/* RFC 7112: the first fragment holds all headers; one that does not may hide a mail port. */
		if (at + sizeof(h) > limit || bpf_skb_load_bytes(skb, at, &h, sizeof(h)))
			return undecided(p, first ? REASON_FRAG_TINY : REASON_TRUNCATED);
		if (next == IPPROTO_FRAGMENT) {
			__u32 offset = ((h.type << 8) | h.left) & IP6_OFFSET;

			/* As with IPv4; RFC 5722 forbids what overlaps, so a later one cannot rewrite ports. */
			if (offset == 8 && h.next == IPPROTO_TCP)
				return undecided(p, REASON_FRAG_TINY);
			if (offset)
				return KIND_FOREIGN;
			first = 1; /* a lone "atomic" fragment too */
			at += 8;
		} else if (next == IPPROTO_AH) {
			at += (h.len + 2) * 4;
		} else {
			if (next == IPPROTO_ROUTING && h.left)
				routed = 1;
			at += (h.len + 1) * 8;
		}
		if (at > 0xffff)
			return KIND_FOREIGN; /* beyond any packet */
		next = h.next;
	}
	return undecided(p, REASON_OPTIONS); /* too many headers: TCP may follow */
}

/* Would ports or flags be read from the frame's padding? A length of 0 is a packet beyond 64 KiB. */
static __always_inline int ends_inside_tcp(__be16 len, __u32 before)
{
	return len && bpf_ntohs(len) < before + sizeof(struct tcphdr);
}

/*
 * Ends the program here: the packet goes on. The compiler would give a program one end only, behind all that is done with mail,
 * in memory that no other packet needs. `where` keeps it from making one end of two.
 */
#define GO_ON(where) \
	do { \
		asm volatile("r0 = -1\n\texit # " where ::: "r0"); \
		__builtin_unreachable(); \
	} while (0)

/* Every packet that a gateway forwards is asked, so by nothing but itself, and by as little code as can be. */
static __always_inline void let_udp_go_on(struct __sk_buff *skb, const __u32 l2)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u32 protocol = skb->protocol;
	struct ipv6hdr *ip6 = data + l2;
	struct iphdr *ip = data + l2;

	if (usually(protocol == bpf_htons(ETH_P_IP)) && usually((void *)(ip + 1) <= end) && usually(ip->protocol == IPPROTO_UDP))
		GO_ON("IPv4");
	if (usually(protocol == bpf_htons(ETH_P_IPV6)) && usually((void *)(ip6 + 1) <= end) && usually(ip6->nexthdr == IPPROTO_UDP))
		GO_ON("IPv6");
}

/* TCP whose ports stand in the linear part, without options or fragments? */
static __always_inline int is_plain_tcp4(const struct iphdr *ip, const void *end)
{
	return usually((void *)(ip + 1) + sizeof(struct tcphdr) <= end) && usually(ip->protocol == IPPROTO_TCP) && usually(ip->ihl == 5) &&
	       usually(!(ip->frag_off & bpf_htons(IP_MF | IP_OFFSET))) && usually(!ends_inside_tcp(ip->tot_len, sizeof(*ip)));
}

static __always_inline int is_plain_tcp6(const struct ipv6hdr *ip, const void *end)
{
	return usually((void *)(ip + 1) + sizeof(struct tcphdr) <= end) && usually(ip->nexthdr == IPPROTO_TCP) &&
	       usually(!ends_inside_tcp(ip->payload_len, 0));
}

/* Most gateways know port 25 alone. */
static __always_inline int is_no_mail(const struct config *cfg, const struct tcphdr *tcp)
{
	return usually(!cfg->ports[0]) && usually(tcp->dest != bpf_htons(MAIL_PORT)) && usually(tcp->source != bpf_htons(MAIL_PORT));
}

/* TCP that is none of our business, as parse would say, likewise. */
static __always_inline void let_tcp_go_on(struct __sk_buff *skb, const struct config *cfg, const __u32 l2)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u32 protocol = skb->protocol;
	struct ipv6hdr *ip6 = data + l2;
	struct iphdr *ip = data + l2;

	if (usually(protocol == bpf_htons(ETH_P_IP)) && is_plain_tcp4(ip, end)) {
		struct tcphdr *tcp = (void *)(ip + 1);

		if (usually(is_no_mail(cfg, tcp)))
			GO_ON("IPv4");
		if (kind_of_ports(cfg, tcp->source, tcp->dest) == KIND_FOREIGN)
			GO_ON("IPv4, other ports");
	} else if (usually(protocol == bpf_htons(ETH_P_IPV6)) && is_plain_tcp6(ip6, end)) {
		struct tcphdr *tcp = (void *)(ip6 + 1);

		if (usually(is_no_mail(cfg, tcp)))
			GO_ON("IPv6");
		if (kind_of_ports(cfg, tcp->source, tcp->dest) == KIND_FOREIGN)
			GO_ON("IPv6, other ports");
	}
}

/* Reads the packet; `l2` is 14 on Ethernet and 0 on devices without a link header. */
static __always_inline enum kind parse(struct __sk_buff *skb, const struct config *cfg, struct packet *p, const __u32 l2)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u32 protocol = skb->protocol;

	p->l2 = l2;
	if (protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = data + l2;
		struct tcphdr *tcp = (void *)(ip + 1);

		if ((void *)(tcp + 1) > end)
			return slow4(skb, cfg, p);
		if (ip->protocol != IPPROTO_TCP)
			return ip->protocol == IPPROTO_ICMP ? slow4(skb, cfg, p) : KIND_FOREIGN;
		if (ip->ihl != 5 || ip->frag_off & bpf_htons(IP_MF | IP_OFFSET))
			return slow4(skb, cfg, p);
		if (ends_inside_tcp(ip->tot_len, sizeof(*ip)))
			return slow4(skb, cfg, p);
		enum kind kind = kind_of_ports(cfg, tcp->source, tcp->dest);
		if (kind == KIND_FOREIGN)
			return kind;
		set_addresses4(p, ip);
		set_tcp(p, tcp);
		p->l4 = l2 + sizeof(*ip);
		p->plain = p->direct = 1;
		return kind;
	}
	if (protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = data + l2;
		struct tcphdr *tcp = (void *)(ip + 1);

		if ((void *)(tcp + 1) > end)
			return slow6(skb, cfg, p);
		if (ip->nexthdr != IPPROTO_TCP)
			return ip->nexthdr == IPPROTO_UDP ? KIND_FOREIGN : slow6(skb, cfg, p);
		if (ends_inside_tcp(ip->payload_len, 0))
			return slow6(skb, cfg, p);
		enum kind kind = kind_of_ports(cfg, tcp->source, tcp->dest);
		if (kind == KIND_FOREIGN)
			return kind;
		set_addresses6(p, ip);
		set_tcp(p, tcp);
		p->l4 = l2 + sizeof(*ip);
		p->plain = p->direct = 1;
		if (is_mapped(p->saddr) || is_mapped(p->daddr))
			return undecided(p, REASON_BAD_ADDRESS);
		return kind;
	}
	return KIND_FOREIGN;
}

#endif
