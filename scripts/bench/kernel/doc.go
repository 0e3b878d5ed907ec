// Package kernel measures what the kernel's programs cost a packet, a connection and a million users, beside plain
// forwarding, nftables and connection tracking, in nameless namespaces of its own.
//
// Packets are made by the kernel itself (BPF_F_TEST_XDP_LIVE_FRAMES), so no sender's cost hides what is measured. Every
// sample is short, ways and kinds alternate, and what is shown is the least of many: on a machine that others use as well
// it is the one that was not disturbed.
package kernel
