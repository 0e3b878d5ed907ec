package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"sluice/cmd/internal/api"
)

// The data paths as status calls them.
const (
	pathClsact = "clsact"
	pathNFT    = "nftables"
)

// kernel tells what was tried and did not work. Nothing is asked of the version.
func (h *host) kernel() []api.Finding {
	if h.trials == nil {
		return nil
	}
	f := api.Finding{Check: "kernel", State: api.OK, Text: "BPF programs, their maps and the hand-over of connections work: tried"}
	missing, err := h.trials()
	switch {
	case errors.Is(err, os.ErrPermission):
		f.State, f.Text, f.Remedy = api.Warn, "what it can do may not be tried", "run doctor as root"
	case err != nil:
		f.State, f.Text, f.Remedy = api.Warn, "what it can do could not be tried: "+err.Error(), "look at `dmesg`, and for lockdown in /sys/kernel/security/lockdown"
	case len(missing) == 1 && missing[0] == "tcx":
		f.Text = "all but tcx works: clsact is used in its place"
	case len(missing) > 0 && h.path == pathNFT:
		f.Text = "without " + strings.Join(missing, ", ") + ", which the path nftables does not need"
	case len(missing) > 0:
		f.State, f.Text = api.Fail, "lacks "+strings.Join(missing, ", ")
		f.Remedy = `set intercept.path = "nftables", or boot a kernel of 5.14 or later with CONFIG_BPF_SYSCALL, CONFIG_NET_CLS_ACT and CONFIG_NET_SCH_INGRESS`
	}
	return []api.Finding{f}
}

// tryKernel loads and attaches what the data path needs, in a network of its own, and leaves nothing behind.
func tryKernel() (missing []string, err error) {
	helper := func(fn asm.BuiltinFunc) func() error {
		return func() error { return features.HaveProgramHelper(ebpf.SchedCLS, fn) }
	}
	for _, t := range []struct {
		name string
		try  func() error
	}{
		{"classifier programs", func() error { return features.HaveProgramType(ebpf.SchedCLS) }},
		{"socket maps", func() error { return features.HaveMapType(ebpf.SockMap) }},
		{"longest-prefix maps", func() error { return features.HaveMapType(ebpf.LPMTrie) }},
		{"maps in shared memory", func() error { return features.HaveMapFlag(features.BPF_F_MMAPABLE) }},
		{"sk_assign", helper(asm.FnSkAssign)},
		{"skc_lookup_tcp", helper(asm.FnSkcLookupTcp)},
		{"tcp_check_syncookie", helper(asm.FnTcpCheckSyncookie)},
		{"fib_lookup", helper(asm.FnFibLookup)},
		{"tcx", tryTCX},
	} {
		err := t.try()
		switch {
		case err == nil:
		case errors.Is(err, os.ErrPermission):
			return nil, os.ErrPermission
		case errors.Is(err, ebpf.ErrNotSupported):
			missing = append(missing, t.name)
		default:
			return missing, fmt.Errorf("%s: %w", t.name, err)
		}
	}
	return missing, nil
}

// tryTCX attaches a program that does nothing to the loopback of a network that ends with the thread.
func tryTCX() error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread and its network end with this function
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "MIT", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()}})
		if err != nil {
			done <- err
			return
		}
		defer p.Close()
		const loopback = 1
		l, err := link.AttachTCX(link.TCXOptions{Interface: loopback, Program: p, Attach: ebpf.AttachTCXIngress})
		if err == nil {
			err = l.Close()
		}
		done <- err
	}()
	return <-done
}
