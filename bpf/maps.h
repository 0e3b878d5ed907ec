/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* The maps. What is per user, per connection or filled from outside is bounded, and says what forgetting does. */
#ifndef SLUICE_MAPS_H
#define SLUICE_MAPS_H

#include "sluice.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct config);
} config SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct heartbeat);
} heartbeat SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct runtime);
} runtime SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} listeners SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 131072);
	__type(key, struct host_key);
	__type(value, struct source);
} source_hosts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 131072);
	__type(key, struct net_key);
	__type(value, struct source);
} source_nets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct net_key);
	__type(value, struct exemption);
} exempt SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 131072);
	__type(key, struct net_key);
	__type(value, struct lock);
} locks SEC(".maps");

/*
 * Connections that were found to go on as they began, each a word in the slot that it hashes to, whoever stood there before. A
 * passed flow would else be looked for among the sockets and the locks with each packet, and what comes late for one of the
 * proxy's, whose socket is gone, would be taken for a passed flow. A SYN takes its connection out.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, KNOWN_FLOWS);
	__type(key, __u32);
	__type(value, __u64);
} known_flows SEC(".maps");

/*
 * Sources that the routes lead back to where they came in, each a word in the slot that it hashes to, with the time of the
 * look-up. Routes change without telling us, so a word holds for about a second.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, KNOWN_PATHS);
	__type(key, __u32);
	__type(value, __u64);
} known_paths SEC(".maps");

/* Hardly any address is near the gateway's own or near an exemption; a bit spares the walk through the trie. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, HINTED_MAX);
	__type(key, __u32);
	__type(value, struct hint);
} hints SEC(".maps");

/* The locks of one address or one IPv6 /64 once more: a flow that goes on asks for its lock with each packet. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 131072);
	__type(key, struct host_key);
	__type(value, struct lock);
} lock_hosts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1 + URGENT_LOCKS);
	__type(key, __u32);
	__type(value, struct urgent);
} urgent SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 131072);
	__type(key, __u32);
	__type(value, struct budget);
} lock_budgets SEC(".maps");

/* Destinations that a lock does not close: the MX of the administrator's address. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, struct net_key);
	__type(value, __u32);
} lock_exempt SEC(".maps");

/* Sources that are bypassed until then; CLOCK_MONOTONIC. No entry ends before a wider one around it. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 256);
	__type(key, struct net_key);
	__type(value, __u64);
} bypass_nets SEC(".maps");

/* The gateway's own addresses. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct net_key);
	__type(value, __u32);
} local SEC(".maps");

/* Addresses that the proxy delivers from. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct net_key);
	__type(value, __u32);
} delivery SEC(".maps");

/*
 * Source-preserving sockets by their cookie. LRU: an entry is needed until its SYN was answered, and where it is lost
 * early the SYN's repetition is dropped.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, struct preserved);
} preserved SEC(".maps");

/* SYNs that fail-open forwarded; forgetting an old source is harmless, so LRU. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct host_key);
	__type(value, struct budget);
} open_budgets SEC(".maps");

/*
 * The buckets of SYNs of whoever has no counters: of hosts that are nobody's, and of users for whom there was no room. LRU: who
 * is forgotten has a full bucket again, and whoever floods is not forgotten.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct host_key);
	__type(value, __u64);
} syn_buckets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 32768);
	__type(key, struct port_key);
	__type(value, struct port_rule);
} port_rules SEC(".maps");

/* Who they are, for the operator; forgetting an old one is harmless. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct host_key);
	__type(value, struct elsewhere);
} elsewhere SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, REASON_MAX);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct clock);
} clock SEC(".maps");

/* By the user's number; they are given out one after the other. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 131072);
	__type(key, __u32);
	__type(value, struct user_slot);
} user_slots SEC(".maps");

#ifdef QUICK /* who judges SYNs; others have time */
/*
 * The addresses and /64s of source_hosts once more, each found in one line of memory, where a hash table needs four. What does not
 * fit is only there. Each replacement of all sources makes another table.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_ARRAY);
		__uint(map_flags, BPF_F_MMAPABLE | BPF_F_INNER_MAP);
		__uint(max_entries, 1);
		__uint(key_size, sizeof(__u32));
		__uint(value_size, sizeof(struct host_bucket));
	});
} host_cells SEC(".maps");
#endif

/*
 * Whatever else happened to a user's connections, and all of it of users whose number is larger. Not per CPU: SYNs are rare
 * beside packets, and memory would grow with users times CPUs.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 131072);
	__type(key, __u32);
	__type(value, struct user_counts);
} user_counters SEC(".maps");

#endif
