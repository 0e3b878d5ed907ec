package trial

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// TCX diverts by a program at a tcx hook, Clsact by one that is a filter of the qdisc clsact.
func TCX(g *Gateway) (undo func(), err error)    { return divert(g, attachTCX) }
func Clsact(g *Gateway) (undo func(), err error) { return divert(g, attachClsact) }

func divert(g *Gateway, at func(*Gateway, *ebpf.Program) (func(), error)) (func(), error) {
	slot, err := ebpf.NewMap(&ebpf.MapSpec{Name: "sluice_trial", Type: ebpf.SockMap, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return nil, fmt.Errorf("could not make a socket map: %w", err)
	}
	defer slot.Close() // the program holds it
	raw, err := g.Listener.SyscallConn()
	if err != nil {
		return nil, err
	}
	var put error
	if err := raw.Control(func(fd uintptr) { put = slot.Put(uint32(0), uint64(fd)) }); err != nil {
		return nil, err
	}
	if put != nil {
		return nil, fmt.Errorf("could not put a listening socket into a socket map: %w", put)
	}
	prog, err := ebpf.NewProgram(assigner(slot, g.mark))
	if err != nil {
		return nil, fmt.Errorf("could not load a program that assigns a socket: %w", err)
	}
	undo, err := at(g, prog)
	if err != nil {
		prog.Close()
		return nil, err
	}
	return func() {
		undo()
		prog.Close()
	}, nil
}

func attachTCX(g *Gateway, prog *ebpf.Program) (func(), error) {
	l, err := link.AttachTCX(link.TCXOptions{Interface: g.Link.Index, Program: prog, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		return nil, fmt.Errorf("could not attach a program: %w", err)
	}
	return func() { _ = l.Close() }, nil // the interface goes with it
}

func attachClsact(g *Gateway, prog *ebpf.Program) (func(), error) {
	return func() {}, g.Kernel.AttachClsact(g.Link.Index, prog) // it goes with the interface
}

// Where a packet's parts stand from its Ethernet header on, and in the context of a program.
const (
	etherType, protocol, destination, tcpFlags = 12, 14 + 9, 14 + 20 + 2, 14 + 20 + 13
	contextMark                                = 8
	syn                                        = 2
)

// assigner is the least program that does what the data path needs of the kernel: it marks IPv4 packets for port 25, and
// gives SYNs to the socket in a map.
func assigner(slot *ebpf.Map, mark uint32) *ebpf.ProgramSpec {
	const next, ok, shot = -1, 0, 2
	return &ebpf.ProgramSpec{Name: "sluice_trial", Type: ebpf.SchedCLS, License: "MIT", Instructions: asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadAbs(etherType, asm.Half), asm.JNE.Imm(asm.R0, 0x0800, "next"),
		asm.LoadAbs(protocol, asm.Byte), asm.JNE.Imm(asm.R0, 6, "next"),
		asm.LoadAbs(destination, asm.Half), asm.JNE.Imm(asm.R0, 25, "next"),
		asm.LoadMem(asm.R1, asm.R6, contextMark, asm.Word),
		asm.Or.Imm(asm.R1, int32(mark)),
		asm.StoreMem(asm.R6, contextMark, asm.R1, asm.Word),
		asm.LoadAbs(tcpFlags, asm.Byte), asm.JNE.Imm(asm.R0, syn, "ok"),
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.LoadMapPtr(asm.R1, slot.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(), asm.JEq.Imm(asm.R0, 0, "shot"),
		asm.Mov.Reg(asm.R7, asm.R0),
		asm.Mov.Reg(asm.R1, asm.R6), asm.Mov.Reg(asm.R2, asm.R7), asm.Mov.Imm(asm.R3, 0), asm.FnSkAssign.Call(),
		asm.Mov.Reg(asm.R8, asm.R0),
		asm.Mov.Reg(asm.R1, asm.R7), asm.FnSkRelease.Call(),
		asm.JNE.Imm(asm.R8, 0, "shot"),
		asm.Mov.Imm(asm.R0, ok).WithSymbol("ok"), asm.Return(),
		asm.Mov.Imm(asm.R0, shot).WithSymbol("shot"), asm.Return(),
		asm.Mov.Imm(asm.R0, next).WithSymbol("next"), asm.Return(),
	}}
}
