//go:build ignore
/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * The passive path: copies the beginnings of observed flows to a ring buffer and changes nothing. It stands behind
 * mail_ingress at the customer interface, in an object of its own, so that nothing here is paid where nobody observes.
 *
 *   observe_ingress  what the customer sends: a SYN that was forwarded by mode observe begins a flow
 *   observe_egress   what the server answers
 *
 * Each has two entries: with an Ethernet header, and without one (_l3). They always return TC_ACT_UNSPEC.
 */
#include "judge.h"
#include "packet.h"

#define CHUNK 2048 /* a power of two: see copy_chunk */
#define CHUNKS 8   /* of one packet: receive offload merges packets up to 64 KiB */

enum observed_direction {
	FROM_CUSTOMER = 0,
	FROM_SERVER = 1,
};

/* Marks in place of TCP's ECE and CWR. */
#define MARK_CUT 0x40     /* from seq on this direction is not copied ... */
#define MARK_RESUMED 0x80 /* ... and from this seq on it is again */

enum observed_count {
	OBSERVED_FLOWS = 0, /* flows begun */
	OBSERVED_SEGMENTS,  /* records handed over */
	OBSERVED_LOST,      /* records that found the ring full */
	OBSERVED_UNREAD,    /* packets whose bytes could not be read */
	OBSERVED_MAX,
};

/* A flow, as its first SYN says it: from the customer to the server. */
struct observed_flow {
	__u32 client[4]; /* IPv4 in the first word, the rest zero; network order */
	__u32 server[4];
	__be16 client_port;
	__be16 server_port;
	__u16 family;
	__u16 pad;
};

struct observed_state {
	__u64 began_ns; /* tells a flow from an earlier one with the same addresses and ports */
	__u32 seen[2];  /* bytes copied since the other direction spoke */
	__u32 cut[2];   /* it said more, and the reader knows */
	__u32 ended[2]; /* a FIN or RST was handed over */
};

/* One record of the ring: a piece of one direction. */
struct observed_segment {
	struct observed_flow flow;
	__u64 began_ns;
	__u32 seq;  /* of the first byte, or of the SYN */
	__u16 size; /* bytes in data */
	__u8 direction;
	__u8 flags; /* of TCP, or a mark */
	__u8 data[CHUNK];
};

#define HEAD (__builtin_offsetof(struct observed_segment, data))

/* Bytes of a direction that are copied before the other one speaks; set by the loader. */
volatile const __u32 observe_limit = 8192;

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct observed_flow);
	__type(value, struct observed_state);
} observed SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4194304);
} observe_ring SEC(".maps");

/* Where a record is put together: more than the stack holds. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct observed_segment);
} observe_scratch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, OBSERVED_MAX);
	__type(key, __u32);
	__type(value, __u64);
} observe_counts SEC(".maps");


static __always_inline void tally(enum observed_count what)
{
	__u32 key = what;
	__u64 *n = bpf_map_lookup_elem(&observe_counts, &key);

	if (n)
		*n += 1;
}

static __always_inline void hand_over(struct observed_segment *s, __u64 size)
{
	tally(bpf_ringbuf_output(&observe_ring, s, size, 0) ? OBSERVED_LOST : OBSERVED_SEGMENTS);
}

/*
 * Copies `size` bytes, 1 to CHUNK, from `at`. The mask around a barrier is what the verifier follows: the compiler would
 * compare one copy of the register and pass another one on.
 */
static __always_inline int copy_chunk(struct __sk_buff *skb, struct observed_segment *s, __u32 at, __u32 size)
{
	__u32 n = (size - 1) & (CHUNK - 1);

	asm volatile("" : "+r"(n));
	n = (n & (CHUNK - 1)) + 1;
	if (bpf_skb_load_bytes(skb, at, s->data, n))
		return 0;
	s->size = n;
	hand_over(s, HEAD + n);
	return 1;
}

/* Where the payload begins and how long it is; what stands behind the IP packet is padding. */
static __always_inline int find_payload(struct __sk_buff *skb, const struct packet *p, __u32 whole, __u32 *at, __u32 *size)
{
	__u8 offset;
	__be16 len;
	__u32 end;

	if (bpf_skb_load_bytes(skb, p->l4 + 12, &offset, 1))
		return 0;
	if (bpf_skb_load_bytes(skb, p->l2 + (p->family == FAMILY_4 ? 2 : 4), &len, 2))
		return 0;
	end = p->l2 + bpf_ntohs(len) + (p->family == FAMILY_4 ? 0 : sizeof(struct ipv6hdr));
	if (!len || end > whole) /* merged beyond 64 KiB, or a lie */
		end = whole;
	*at = p->l4 + (offset >> 4) * 4;
	*size = end > *at ? end - *at : 0;
	return 1;
}

static __always_inline void hand_mark(struct observed_segment *s, __u32 direction, __u32 seq, __u8 flags)
{
	s->seq = seq;
	s->direction = direction;
	s->flags = flags;
	s->size = 0;
	hand_over(s, HEAD);
}

/* One side has spoken: the other one's next words are copied again. They begin where this packet acknowledges. */
static __always_inline void give_turn(struct observed_state *state, struct observed_segment *s, __u32 d, __u32 ack)
{
	d &= 1;
	state->seen[d] = 0;
	if (state->cut[d]) {
		state->cut[d] = 0;
		hand_mark(s, d, ack, MARK_RESUMED);
	}
}

/* Hands over what of this packet is within the limit. */
static __noinline int copy_packet(struct __sk_buff *skb, const struct packet *p, const struct observed_flow *flow, int direction)
{
	__u32 zero = 0, whole = skb->len, at, size, left;
	struct observed_segment *s = bpf_map_lookup_elem(&observe_scratch, &zero);
	struct observed_state *state;
	__u32 d = direction ? FROM_SERVER : FROM_CUSTOMER, seq;
	__be32 numbers[2]; /* sequence, acknowledged */

	if (!s || !p || !flow)
		return 0;
	state = bpf_map_lookup_elem(&observed, flow);
	if (!state)
		return 0;
	if (state->cut[d] && (state->ended[d] || !(p->flags & (TH_FIN | TH_RST))))
		return 0; /* the way of all packets behind the limit */
	if (bpf_skb_load_bytes(skb, p->l4 + 4, numbers, 8) || !find_payload(skb, p, whole, &at, &size)) {
		tally(OBSERVED_UNREAD);
		return 0;
	}
	seq = bpf_ntohl(numbers[0]);
	s->flow = *flow;
	s->began_ns = state->began_ns;
	if (size && !state->cut[d])
		give_turn(state, s, d ^ 1, bpf_ntohl(numbers[1]));
	s->seq = seq;
	s->direction = d;
	s->flags = p->flags & TH_SYN;
	left = observe_limit > state->seen[d] ? observe_limit - state->seen[d] : 0;
	if (left > size)
		left = size;
	for (int i = 0; i < CHUNKS && left; i++) {
		__u32 n = left > CHUNK ? CHUNK : left;

		if (!copy_chunk(skb, s, at, n)) {
			tally(OBSERVED_UNREAD);
			break;
		}
		__sync_fetch_and_add(&state->seen[d], n);
		at += n;
		s->seq += n;
		left -= n;
	}
	if (size && !state->cut[d] && s->seq - seq < size) { /* not all of it was copied */
		state->cut[d] = 1;
		hand_mark(s, d, s->seq, MARK_CUT);
	}
	if (p->flags & TH_SYN || (p->flags & (TH_FIN | TH_RST) && !state->ended[d])) {
		if (p->flags & (TH_FIN | TH_RST))
			state->ended[d] = 1;
		/* The end has the number behind all bytes of the packet, copied or not. */
		hand_mark(s, d, seq + (p->flags & TH_SYN ? 0 : size), p->flags & (TH_SYN | TH_FIN | TH_RST));
	}
	return 0;
}

/* Does a flow of mode observe begin with this forwarded SYN? The same questions as mail_ingress asks. */
static __noinline int begins(const struct config *cfg, const struct packet *p)
{
	__u64 now = bpf_ktime_get_ns();
	struct source src = {};

	if (!cfg || !p || port_mode(p->ifindex, p->dport) != MODE_NONE || in_set(&local, p->family, p->daddr))
		return 0;
	find_source(cfg, (const struct address *)p->saddr, p->family, &src);
	return mode_towards(cfg, &src, p->family, p->daddr, p->dport, now) == MODE_OBSERVE;
}

static __always_inline int from_customer(struct __sk_buff *skb, const __u32 l2)
{
	__u32 zero = 0, ifindex = skb->ifindex;
	const struct config *cfg = bpf_map_lookup_elem(&config, &zero);
	struct observed_flow flow = {};
	struct packet p = {};

	if (!cfg || !(skb->mark & cfg->mark_judged)) /* not mail, or not forwarded: the way of nearly all packets */
		return TC_ACT_UNSPEC;
	if (parse(skb, cfg, &p, l2) != KIND_OUTBOUND)
		return TC_ACT_UNSPEC;
	p.ifindex = ifindex;
	__builtin_memcpy(flow.client, p.saddr, 16);
	__builtin_memcpy(flow.server, p.daddr, 16);
	flow.client_port = p.sport;
	flow.server_port = p.dport;
	flow.family = p.family;
	if ((p.flags & (TH_SYN | TH_ACK)) == TH_SYN) {
		struct observed_state fresh = {.began_ns = bpf_ktime_get_ns()};

		if (!begins(cfg, &p)) {
			bpf_map_delete_elem(&observed, &flow); /* the mode has changed and the port is used again */
			return TC_ACT_UNSPEC;
		}
		bpf_map_update_elem(&observed, &flow, &fresh, BPF_ANY);
		tally(OBSERVED_FLOWS);
	}
	copy_packet(skb, &p, &flow, FROM_CUSTOMER);
	return TC_ACT_UNSPEC;
}

static __always_inline int from_server(struct __sk_buff *skb, const __u32 l2)
{
	__u32 zero = 0;
	const struct config *cfg = bpf_map_lookup_elem(&config, &zero);
	struct observed_flow flow = {};
	struct packet p = {};

	if (!cfg || parse(skb, cfg, &p, l2) == KIND_FOREIGN || !is_mail_port(cfg, p.sport))
		return TC_ACT_UNSPEC;
	__builtin_memcpy(flow.client, p.daddr, 16);
	__builtin_memcpy(flow.server, p.saddr, 16);
	flow.client_port = p.dport;
	flow.server_port = p.sport;
	flow.family = p.family;
	copy_packet(skb, &p, &flow, FROM_SERVER);
	return TC_ACT_UNSPEC;
}

SEC("tc")
int observe_ingress(struct __sk_buff *skb)
{
	return from_customer(skb, sizeof(struct ethhdr));
}

SEC("tc")
int observe_ingress_l3(struct __sk_buff *skb)
{
	return from_customer(skb, 0);
}

SEC("tc")
int observe_egress(struct __sk_buff *skb)
{
	return from_server(skb, sizeof(struct ethhdr));
}

SEC("tc")
int observe_egress_l3(struct __sk_buff *skb)
{
	return from_server(skb, 0);
}

char _license[] SEC("license") = "Dual MIT/GPL";
