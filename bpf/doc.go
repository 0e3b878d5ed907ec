// Package bpf holds the programs that decide about mail packets in the kernel, their maps, and the thin typed loader
// that opens, fills and reads them.
//
// A Datapath is the set of maps pinned in one bpffs folder together with freshly loaded programs. The maps outlive the
// process; Open adopts them. Attaching the programs to interfaces is not done here.
package bpf
