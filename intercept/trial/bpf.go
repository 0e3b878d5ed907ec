package trial

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// TCX diverts by a program at a tcx hook, Clsact by one that is a filter of the qdisc clsact.
func TCX(g *Gateway) (undo func(), err error)    { return divert(g, atTCX) }
func Clsact(g *Gateway) (undo func(), err error) { return divert(g, atClsact) }

// slot is a socket map that holds the listener.
func (g *Gateway) slot() (*ebpf.Map, error) {
	slot, err := ebpf.NewMap(&ebpf.MapSpec{Name: "sluice_trial", Type: ebpf.SockMap, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return nil, fmt.Errorf("could not make a socket map: %w", err)
	}
	raw, err := g.Listener.SyscallConn()
	if err == nil {
		var put error
		err = raw.Control(func(fd uintptr) { put = slot.Put(uint32(0), uint64(fd)) })
		err = errors.Join(err, put)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("could not put a listening socket into a socket map: %w", err), slot.Close())
	}
	return slot, nil
}

func divert(g *Gateway, at func(*Gateway, *ebpf.Program) (func(), error)) (func(), error) {
	slot, err := g.slot()
	if err != nil {
		return nil, err
	}
	defer slot.Close() // the program holds it
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

// atTCX attaches a program to the customer's interface at a tcx hook.
func atTCX(g *Gateway, prog *ebpf.Program) (func(), error) {
	l, err := link.AttachTCX(link.TCXOptions{Interface: g.Link.Index, Program: prog, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		return nil, fmt.Errorf("could not attach a program: %w", err)
	}
	return func() { _ = l.Close() }, nil // the interface goes with it
}

// atClsact attaches it as a filter of the qdisc clsact.
func atClsact(g *Gateway, prog *ebpf.Program) (func(), error) {
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
	list := append(mail25(),
		asm.LoadMem(asm.R1, asm.R6, contextMark, asm.Word),
		asm.Or.Imm(asm.R1, int32(mark)),
		asm.StoreMem(asm.R6, contextMark, asm.R1, asm.Word),
		asm.LoadAbs(tcpFlags, asm.Byte), asm.JNE.Imm(asm.R0, syn, "ok"),
		asm.StoreImm(asm.RFP, -4, 0, asm.Word))
	list = append(list, assign(slot)...)
	return spec(append(list, asm.Mov.Imm(asm.R0, next).WithSymbol("next"), asm.Return())...)
}

// What programs return.
const next, ok, shot = -1, 0, 2

// mail25 goes to "next" with everything but IPv4 packets for TCP's port 25. The context is in R6 then.
func mail25() []asm.Instruction {
	return []asm.Instruction{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadAbs(etherType, asm.Half), asm.JNE.Imm(asm.R0, 0x0800, "next"),
		asm.LoadAbs(protocol, asm.Byte), asm.JNE.Imm(asm.R0, 6, "next"),
		asm.LoadAbs(destination, asm.Half), asm.JNE.Imm(asm.R0, 25, "next"),
	}
}

// assign gives the packet to the socket in a map, whose key stands on the stack, and ends with "ok" or "shot".
func assign(slot *ebpf.Map) []asm.Instruction {
	return []asm.Instruction{
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
	}
}
