/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * What the programs and the loader share: the numbers, and the keys and values of every map; maps.h has the maps.
 * bpf2go makes the Go side of all of it. An upgrade carries the maps over, also back to an older version: each member by
 * its name (a new one is 0, so let 0 mean what was so before), elements of arrays by their index (so only append),
 * counters by their names. A member that comes to mean something else gets another name.
 */
#ifndef SLUICE_H
#define SLUICE_H

#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define NSEC_PER_SEC 1000000000ULL
#define BEAT_MAX_AGE (1 * NSEC_PER_SEC)   /* a younger beat means that the proxy accepts */
#define CLOSED_WAIT (20 * NSEC_PER_SEC)   /* so long a `closed` source waits for a proxy that is away */
#define RESTART_MAX (60 * NSEC_PER_SEC)   /* longest planned restart, counted from the last beat */
#define URGENT_MAX (10 * NSEC_PER_SEC)    /* no urgent lock lasts longer */
#define BUDGET_WINDOW (60 * NSEC_PER_SEC) /* budgets of locks and of fail-open are per minute */

enum number {
	LAYOUT = 1,        /* raise it to have no map shared by programs of two versions, however alike, but heartbeat and listeners */
	MAIL_PORT = 25,    /* always */
	EXTRA_PORTS = 8,   /* mail ports beside it */
	OPEN_SYN_CAP = 30, /* SYNs per source and minute that fail-open forwards */
	EXPIRED_MAX = 4,   /* expired prefixes inside each other that a look-up passes over */
	LOCK_BUDGET = 10,  /* connections per minute in which a lock is explained, if it says nothing else */
	KNOWN_FLOWS = 65536, /* a power of two */
	FLOW_PASSES = 3,     /* of a word of known_flows: the last bits of one that is not the proxy's */
	KNOWN_PATHS = 16384, /* a power of two */
	HINT_BITS = 4096,    /* a power of two */
	URGENT_LOCKS = 8,
	HINTED_LOCAL = 0,    /* keys of hints */
	HINTED_DELIVERY = 1,
	HINTED_EXEMPT = 2,
	HINTED_LOCKS = 3,
	HINTED_HOSTS6 = 4,
	HINTED_MAX = 5,
	SYN_BURST = 2,     /* seconds of a source's rate that may come at once */
	/* Where things stand in host_cell.what: the user in the first 32 bits, then these. */
	QUICK_RATE = 32,  /* 16 bits */
	QUICK_OWNER = 48, /* 7 */
	QUICK_MODE = 55,  /* 3 */
	QUICK_FAIL = 58,
	QUICK_RPF = 59,
	QUICK_BOUND = 60, /* instead of all but the kind the number of a line with a whole struct source; 0: ask source_hosts */
	QUICK_KIND = 61,  /* 3 bits, of which 0 is free */
	QUICK_4 = 1,
	QUICK_6 = 2,
	QUICK_CELLS = 3,  /* of a bucket */
	QUICK_GONE = 3,   /* not free: what found no place here may be in source_hosts */
};

/* What happens to a fresh connection. The numbers are kept on disk and on the wire: never renumber. */
enum mode {
	MODE_NONE = 0, /* nothing said: the next wider rule holds */
	MODE_PASS = 1,
	MODE_OBSERVE = 2,
	MODE_SHADOW = 3,
	MODE_INTERCEPT = 4,
	MODE_REJECT = 5,
	MODE_DROP = 6,
} __attribute__((packed));

/* What happens when the proxy is away. */
enum fail {
	FAIL_OPEN = 0,
	FAIL_CLOSED = 1,
} __attribute__((packed));

enum source_flag {
	SOURCE_RPF = 1,      /* reverse-path check on SYN */
	SOURCE_BIND_IF = 2,  /* only through this ifindex */
	SOURCE_BIND_MAC = 4, /* only from this Ethernet address */
} __attribute__((packed));

enum config_flag {
	CONFIG_RPF = 1,   /* reverse-path check for every source */
	CONFIG_LONG6 = 2, /* source_nets holds an IPv6 prefix longer than /64 */
	CONFIG_BYPASS_NETS = 4, /* bypass_nets holds something */
	/* What spares look-ups, said only while it is true. */
	CONFIG_LOCK_HOSTS = 8,  /* every lock is of one address or one IPv6 /64 and stands in lock_hosts, too */
	CONFIG_LOCK_128 = 16,   /* ... and some are of one IPv6 address */
	CONFIG_NO_EXEMPT = 32,  /* exempt holds nothing */
	CONFIG_NO_EXEMPT_PORTS = 64, /* exempt holds nothing for one port */
	/* Beside the room, the gateway's own namespace has sockets of the proxy: connections from before there was a room. */
	CONFIG_HOST_SOCKETS = 128,
	/* What has hints, see there; they are complete while this is said. */
	CONFIG_HINT_LOCAL = 256,
	CONFIG_HINT_DELIVERY = 512,
	CONFIG_HINT_EXEMPT = 1024,
	CONFIG_HINT_LOCKS = 2048,
	CONFIG_HINT_HOSTS6 = 4096, /* of single IPv6 addresses in source_hosts */
	CONFIG_QUICK = 16384, /* host_cells is filled; 8192 said so of another layout */
};

enum lock_flag {
	LOCK_KEEP_FLOWS = 1, /* forwarded flows that are open may end by themselves */
} __attribute__((packed));

/* Why a packet left the programs: one counter each. The Go names stand in counters.go, in this order. */
enum reason {
	REASON_ESTABLISHED = 0,   /* given to the proxy's socket */
	REASON_COOKIE,            /* last ACK of a SYN cookie, given to the listener */
	REASON_OLD_FLOW,          /* no SYN, no socket: began before us or was passed; goes on */
	REASON_LOCAL,             /* for the gateway itself */
	REASON_INTERCEPT,         /* SYN given to the listener */
	REASON_PASS,              /* SYN forwarded by mode pass */
	REASON_OBSERVE,           /* SYN forwarded by mode observe */
	REASON_PORT_PASS,         /* SYN forwarded by the rule of its port */
	REASON_BYPASS,            /* SYN forwarded because bypass is on */
	REASON_FAIL_OPEN,         /* SYN forwarded because the proxy is away */
	REASON_FAIL_OPEN_CAP,     /* the same beyond the cap: dropped */
	REASON_WAIT,              /* proxy away for a moment: SYN given to the listener all the same */
	REASON_WAIT_DROP,         /* proxy away for a moment and no listener: dropped, the client tries again */
	REASON_FAIL_CLOSED,       /* proxy away for too long: reset */
	REASON_REJECT,            /* reset by mode reject */
	REASON_DROP,              /* dropped by mode drop */
	REASON_PORT_REJECT,       /* reset by the rule of its port */
	REASON_LOCK_EXPLAIN,      /* SYN of a locked source given to the listener */
	REASON_LOCK_RESET,        /* SYN of a locked source reset */
	REASON_LOCK_CUT,          /* packet of a locked source's open forwarded flow reset */
	REASON_LOOP,              /* SYN from one of our own delivery addresses: dropped */
	REASON_SPOOF_PATH,        /* SYN that fails the reverse-path check: dropped */
	REASON_SPOOF_BIND,        /* SYN through the wrong interface or from the wrong MAC: dropped */
	REASON_FRAG_FIRST,        /* first fragment for a mail port: dropped */
	REASON_FRAG_TINY,         /* fragment that hides or rewrites a TCP header: dropped */
	REASON_OPTIONS,           /* IPv4 options or IPv6 headers beyond the parser, for a mail port: dropped */
	REASON_TRUNCATED,         /* headers longer than the packet: dropped */
	REASON_BAD_ADDRESS,       /* IPv4-mapped address on the wire: dropped */
	REASON_NESTED_VLAN,       /* tag inside a priority tag: dropped */
	REASON_UNPARSED_PASS,     /* undecidable but from a source in mode pass: forwarded */
	REASON_ASSIGN_FAILED,     /* the kernel refused to assign the listener: dropped */
	REASON_ICMP_LOCAL,        /* path MTU message for one of the proxy's sockets */
	REASON_REPLY,             /* uplink: reply given to a source-preserving socket */
	REASON_ASYMMETRIC,        /* uplink: SYN-ACK to an intercepted source without a socket here */
	REASON_GUARD_DROP,        /* guard: unjudged SYN of a closed source dropped */
	REASON_GUARD_UNPARSED,    /* guard: unjudged, undecidable packet of a closed source dropped */
	REASON_USER_FULL,         /* user_counters is full (counts beside another reason) */
	REASON_HALF_OPEN,         /* SYN-ACK for a SYN that went another way, to a source that may not: dropped */
	REASON_GUARD_SOCKET,      /* guard: source-preserving socket turned to where the helper did not connect it: dropped */
	REASON_SYN_LIMITED,       /* SYN for the proxy above its user's rate: dropped, the client tries again */
	REASON_CHALLENGE,         /* SYN from a port whose connection lacks but its last ACK: answered with an ACK */
	REASON_TOO_BIG,           /* door: larger than the way to the customer bears: the proxy's socket was told */
	REASON_MAX,
};

/* Counters of a user. */
enum user_reason {
	USER_SYN = 0, /* counted by an older version; it is the sum of what may become of a SYN */
	USER_INTERCEPTED,
	USER_PASSED,
	USER_REJECTED,
	USER_DROPPED,
	USER_EXPLAINED,
	USER_LOCK_RESET,
	USER_FAILED_OPEN,
	USER_FAILED_CLOSED,
	USER_SPOOFED,
	USER_UNPARSED,
	USER_LOCK_CUT,
	USER_SYN_LIMITED,
	USER_MAX,
};

/* Address families as the keys say them. */
enum family {
	FAMILY_4 = 4,
	FAMILY_6 = 6,
};

/* One address, or the /64 around it; IPv4 stands in the first four bytes, the rest is zero. */
struct host_key {
	__u16 family;
	__u16 bits; /* 32, 128 or 64 */
	__u8 addr[16];
};

/* A prefix in a trie; family and port are the first 32 bits of the matched string. */
struct net_key {
	__u32 prefixlen; /* 32 + bits of the address */
	__u16 family;
	__be16 port; /* 0 except in `exempt` */
	__u8 addr[16];
};

struct source {
	__u32 user;
	enum mode mode;
	enum fail fail;
	__u8 bits; /* prefix length */
	enum source_flag flags;
	__u32 ifindex;
	__u8 mac[6];
	__u16 syn_rate; /* connections per second that the proxy gets from the user; 0: all */
	__u8 owner; /* length of the user's own prefix around it, for comparison with a lock's; 0: nobody's */
	__u8 pad[3];
};

struct exemption {
	__u64 until_ns; /* CLOCK_MONOTONIC; 0: for good */
	enum mode mode;
	__u8 bits;
	__u8 pad[6];
};

struct lock {
	__u64 until_ns; /* CLOCK_MONOTONIC; 0: for good */
	__u32 id;       /* whose budget is used: the user */
	__u16 budget;   /* connections per minute that the proxy may explain; 0: none */
	__u8 bits;
	enum lock_flag flags;
};

/*
 * A lock that is on its way to the helper, written through mmap by the proxy. limit_ns is written last, and first when it ends;
 * of the first element, which is no lock, it tells whether there may be any.
 */
struct urgent {
	struct lock lock;
	__u64 limit_ns; /* CLOCK_MONOTONIC; 0: none */
	__u64 since_ns; /* when it came into force, for who measures */
	__u32 addr[4];
	__u32 mask[4];
	__u16 family;
	__u16 pad[3];
};

/* Connections since the start of a window. */
struct budget {
	__u64 start_ns;
	__u64 count;
};

struct port_key {
	__u32 ifindex; /* 0: every interface */
	__be16 port;
	__u16 pad;
};

struct port_rule {
	enum mode mode; /* MODE_NONE: like port 25; MODE_PASS or MODE_REJECT: never opened */
	__u8 pad[3];
};

struct config {
	enum number layout;
	enum config_flag flags;
	__u32 mark_intercept; /* bit that the policy route knows, and the room */
	__u32 mark_judged;    /* bit that the guard knows */
	__u64 start_ns;       /* a proxy that never beat is away since then */
	__u64 bypass_until_ns;
	struct source fallback; /* unknown sources */
	__be16 ports[EXTRA_PORTS];
	__u32 pad;
	__u64 seed;       /* of known_flows */
	__u64 changed_ns; /* when a table last changed; CLOCK_MONOTONIC */
	__u32 door;       /* interface that leads to the room; 0: there is none, and a policy route delivers */
	__u32 room;       /* its number among the namespaces that this one knows */
};

/*
 * Written through mmap by the proxy, which has no privilege; both fields are CLOCK_MONOTONIC nanoseconds,
 * written whole by aligned 64-bit stores. The proxy sets restart_until_ns back to 0 with its first beat.
 */
struct heartbeat {
	__u64 beat_ns;          /* offset 0 */
	__u64 restart_until_ns; /* offset 8 */
};

/* What the programs remember for themselves. */
struct runtime {
	__u64 empty_since_ns; /* the listener's slot was first seen empty; 0: it is filled */
};

/* Where the helper connected a source-preserving socket. */
struct preserved {
	__u32 saddr[4];
	__u32 daddr[4];
	__be16 dport;
	__u16 family;
};

/* A source whose SYN was answered, but did not come through here. */
struct elsewhere {
	__u64 count;
	__u64 last_ns; /* CLOCK_MONOTONIC */
	__u32 user;
	__u32 pad;
};

struct user_counts {
	__u64 n[USER_MAX];
	__u64 syn_due; /* when the user's bucket of SYNs would be empty, CLOCK_MONOTONIC */
};

/* What nearly every SYN moves, in little memory: a million users' fit into a processor's cache. */
struct user_slot {
	__u64 syn_due;     /* likewise */
	__u32 passed;      /* as in user_counts, where 2^32 is added when one of these begins anew */
	__u32 intercepted;
};

/*
 * A host in a table of host_cells: an address, IPv4 or the first half of IPv6, and what source_hosts says of it. A bucket is a
 * line of the processor's cache. The first one has the mask of the others' numbers, which are counted from 1, in its first word;
 * the last ones hold what does not fit into a cell. Another layout needs another name of the map and another flag, since
 * programs of two versions meet.
 */
struct host_cell {
	__u64 addr; /* network order */
	__u64 what; /* see QUICK_; 0: free */
};

struct host_bucket {
	struct host_cell cell[QUICK_CELLS];
	/* Connections of each that went as its mode says, beside those in user_slots: that line is at hand, and the user's is not. */
	__u32 count[QUICK_CELLS];
	__u32 asked; /* written to have the line fetched */
};

/* What does not fit into a cell, and of whom it is said. */
struct host_line {
	struct source source;
	__u32 pad[7];
	__u64 addr;
};

/* The coarse clock, read once a tick. */
struct clock {
	__u64 tick; /* of the kernel */
	__u64 ns;   /* CLOCK_MONOTONIC, some milliseconds behind */
};

/* Which prefixes a trie may hold around an address: a bit for the beginning of each. */
struct hint {
	__u64 wide[8];              /* of wide ones, for the first byte of an address; IPv4 in the first half */
	__u64 near[HINT_BITS / 64]; /* of the others, by a hash of the first three bytes of IPv4, six of IPv6 */
};

#endif
