//go:build ignore
/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#include "sluice.h"

const enum mode *unused_mode __attribute__((unused));
const enum fail *unused_fail __attribute__((unused));
const enum reason *unused_reason __attribute__((unused));
const enum user_reason *unused_user_reason __attribute__((unused));
const enum source_flag *unused_source_flag __attribute__((unused));
const enum config_flag *unused_config_flag __attribute__((unused));
const enum lock_flag *unused_lock_flag __attribute__((unused));
const enum number *unused_number __attribute__((unused));
const enum family *unused_family __attribute__((unused));

#define TOUCH(m) do { __u32 z = 0; if (bpf_map_lookup_elem(&m, &z)) return -1; } while (0)
static __always_inline int touch(void)
{
	TOUCH(config); TOUCH(heartbeat); TOUCH(runtime); TOUCH(counters); TOUCH(user_counters); TOUCH(lock_budgets);
	struct net_key n = {}; struct host_key h = {}; struct port_key p = {};
	bpf_map_lookup_elem(&source_nets, &n); bpf_map_lookup_elem(&exempt, &n); bpf_map_lookup_elem(&locks, &n);
	bpf_map_lookup_elem(&lock_exempt, &n); bpf_map_lookup_elem(&local, &n); bpf_map_lookup_elem(&delivery, &n);
	bpf_map_lookup_elem(&source_hosts, &h); bpf_map_lookup_elem(&open_budgets, &h); bpf_map_lookup_elem(&port_rules, &p);
	__u32 z = 0; struct bpf_sock *sk = bpf_map_lookup_elem(&listeners, &z); if (sk) bpf_sk_release(sk);
	return -1;
}
SEC("tc") int mail_ingress(struct __sk_buff *skb) { return touch(); }
SEC("tc") int mail_ingress_l3(struct __sk_buff *skb) { return -1; }
SEC("tc") int uplink_ingress(struct __sk_buff *skb) { return -1; }
SEC("tc") int uplink_ingress_l3(struct __sk_buff *skb) { return -1; }
SEC("tc") int uplink_guard(struct __sk_buff *skb) { return -1; }
SEC("tc") int uplink_guard_l3(struct __sk_buff *skb) { return -1; }

char _license[] SEC("license") = "Dual MIT/GPL";
