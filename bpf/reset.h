/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* Turns a TCP packet round into a reset, or into a challenge (RFC 5961 4), and sends it back out of the interface it came in by. */
#ifndef SLUICE_RESET_H
#define SLUICE_RESET_H

#include "packet.h"

struct reset4 {
	struct iphdr ip;
	struct tcphdr tcp;
};

struct reset6 {
	struct ipv6hdr ip;
	struct tcphdr tcp;
};

static __always_inline __u32 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* RFC 9293 3.10.7.1: answer to a SYN acknowledges it; answer to an ACK stands where the peer expects us. */
static __always_inline void fill_reset(struct tcphdr *out, const struct tcphdr *in, const struct packet *p)
{
	out->source = in->dest;
	out->dest = in->source;
	out->doff = sizeof(*out) / 4;
	if (p->challenge) {
		out->ack = 1;
		out->seq = p->seq;
		out->ack_seq = p->ack_seq;
		return;
	}
	out->rst = 1;
	if (in->ack) {
		out->seq = in->ack_seq;
	} else {
		out->ack = 1;
		out->ack_seq = bpf_htonl(bpf_ntohl(in->seq) + 1);
	}
}

/*
 * The checksum depends on what the device left to do: with CHECKSUM_PARTIAL the field holds the pseudo header's sum and is
 * completed on the way out, else it holds everything. Programs cannot see which. So the field is stored as the pseudo
 * header's sum P, and the difference to the full sum is added with a helper that does nothing in the first case and computes
 * ~(difference - P) in the second: the difference is 2P + T, where T is the sum of the TCP header.
 */
static __always_inline int finish_sum(struct __sk_buff *skb, __u32 at, __u32 pseudo, __u32 tcp)
{
	return bpf_l4_csum_replace(skb, at + __builtin_offsetof(struct tcphdr, check), 0, fold(fold(2 * pseudo) + tcp), 0);
}

__noinline int reset4(struct __sk_buff *skb, const struct packet *p)
{
	struct { __be32 saddr, daddr; __u8 zero, protocol; __be16 len; } pseudo = {};
	struct reset4 r = {};
	struct tcphdr in;
	__u32 l2, seed, sum;

	if (!p || bpf_skb_load_bytes(skb, p->l4, &in, sizeof(in)))
		return -1;
	l2 = p->l2;
	fill_reset(&r.tcp, &in, p);
	r.ip.version = 4;
	r.ip.ihl = 5;
	r.ip.tot_len = bpf_htons(sizeof(r));
	r.ip.frag_off = bpf_htons(0x4000); /* do not fragment */
	r.ip.ttl = 64;
	r.ip.protocol = IPPROTO_TCP;
	r.ip.saddr = pseudo.saddr = p->daddr[0];
	r.ip.daddr = pseudo.daddr = p->saddr[0];
	r.ip.check = ~fold(bpf_csum_diff(0, 0, (__be32 *)&r.ip, sizeof(r.ip), 0));
	pseudo.protocol = IPPROTO_TCP;
	pseudo.len = bpf_htons(sizeof(r.tcp));
	seed = fold(bpf_csum_diff(0, 0, (__be32 *)&pseudo, sizeof(pseudo), 0));
	sum = fold(bpf_csum_diff(0, 0, (__be32 *)&r.tcp, sizeof(r.tcp), 0));
	r.tcp.check = seed;
	if (bpf_skb_change_tail(skb, l2 + sizeof(r), 0) ||
	    bpf_skb_store_bytes(skb, l2, &r, sizeof(r), BPF_F_RECOMPUTE_CSUM))
		return -1;
	return finish_sum(skb, l2 + sizeof(r.ip), seed, sum);
}

__noinline int reset6(struct __sk_buff *skb, const struct packet *p)
{
	struct { __u32 saddr[4], daddr[4]; __be32 len, next; } pseudo = {};
	struct reset6 r = {};
	struct tcphdr in;
	__u32 l2, seed, sum;

	if (!p || bpf_skb_load_bytes(skb, p->l4, &in, sizeof(in)))
		return -1;
	l2 = p->l2;
	fill_reset(&r.tcp, &in, p);
	r.ip.version = 6;
	r.ip.payload_len = bpf_htons(sizeof(r.tcp));
	r.ip.nexthdr = IPPROTO_TCP;
	r.ip.hop_limit = 64;
	__builtin_memcpy(&r.ip.saddr, p->daddr, 16);
	__builtin_memcpy(&r.ip.daddr, p->saddr, 16);
	__builtin_memcpy(pseudo.saddr, p->daddr, 16);
	__builtin_memcpy(pseudo.daddr, p->saddr, 16);
	pseudo.len = bpf_htonl(sizeof(r.tcp));
	pseudo.next = bpf_htonl(IPPROTO_TCP);
	seed = fold(bpf_csum_diff(0, 0, (__be32 *)&pseudo, sizeof(pseudo), 0));
	sum = fold(bpf_csum_diff(0, 0, (__be32 *)&r.tcp, sizeof(r.tcp), 0));
	r.tcp.check = seed;
	if (bpf_skb_change_tail(skb, l2 + sizeof(r), 0) ||
	    bpf_skb_store_bytes(skb, l2, &r, sizeof(r), BPF_F_RECOMPUTE_CSUM))
		return -1;
	return finish_sum(skb, l2 + sizeof(r.ip), seed, sum);
}

__noinline int swap_macs(struct __sk_buff *skb)
{
	__u8 in[12], out[12];

	if (bpf_skb_load_bytes(skb, 0, in, sizeof(in)))
		return -1;
	__builtin_memcpy(out, in + 6, 6);
	__builtin_memcpy(out + 6, in, 6);
	return bpf_skb_store_bytes(skb, 0, out, sizeof(out), 0);
}

/*
 * With IP options or extension headers TCP would have to move, and where a device completes checksums it would do so at the
 * old place: such a packet is dropped instead of answered, as is one that the kernel does not let us rewrite.
 */
static __always_inline int reset(struct __sk_buff *skb, const struct packet *p)
{
	if (!p->plain)
		return TC_ACT_SHOT;
	if ((p->family == FAMILY_4 ? reset4(skb, p) : reset6(skb, p)) || (p->l2 && swap_macs(skb)))
		return TC_ACT_SHOT;
	return bpf_redirect(p->ifindex, 0);
}

#endif
