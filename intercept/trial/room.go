package trial

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"sluice/intercept/room"
)

// InRoom diverts, by tcx or by clsact, to a listening socket that has a namespace of its own.
func InRoom(tcx bool) func(*Gateway) (func(), error) {
	at := atClsact
	if tcx {
		at = atTCX
	}
	return func(g *Gateway) (_ func(), err error) {
		r, err := room.New()
		if err != nil {
			return nil, errors.Join(ErrNoNamespace, err)
		}
		done := []func(){r.Close}
		undo := func() {
			for i := len(done) - 1; i >= 0; i-- {
				done[i]()
			}
		}
		defer func() {
			if err != nil {
				undo()
			}
		}()
		if err := g.moveListener(r); err != nil {
			return nil, err
		}
		slot, err := g.slot()
		if err != nil {
			return nil, err
		}
		defer slot.Close() // the program holds it
		door, err := furnish(r, g, slot, tcx)
		if err != nil {
			return nil, err
		}
		prog, err := ebpf.NewProgram(sender(door.Index, g.mark))
		if err != nil {
			return nil, fmt.Errorf("could not load a program that sends packets into another namespace: %w", err)
		}
		done = append(done, func() { prog.Close() })
		detach, err := at(g, prog)
		if err != nil {
			return nil, err
		}
		done = append(done, detach)
		return undo, nil
	}
}

// moveListener opens the listening socket anew in the room.
func (g *Gateway) moveListener(r *room.Room) error {
	if err := g.Listener.Close(); err != nil {
		return err
	}
	return g.listen(func() (f *os.File, err error) {
		err = r.Do(func() (err error) { f, err = g.open(); return err })
		return f, err
	})
}

func furnish(r *room.Room, g *Gateway, slot *ebpf.Map, tcx bool) (room.Door, error) {
	var programs []*ebpf.Program
	defer func() {
		for _, p := range programs {
			p.Close() // the door holds it
		}
	}()
	for _, spec := range []*ebpf.ProgramSpec{answerer(g.Link.Index), receiver(slot, g.mark)} {
		p, err := ebpf.NewProgram(spec)
		if err != nil {
			return room.Door{}, fmt.Errorf("could not load a program for the way out of another namespace: %w", err)
		}
		programs = append(programs, p)
	}
	return r.Furnish(room.Programs{Outer: programs[0], Inner: programs[1], TCX: tcx})
}

func spec(list ...asm.Instruction) *ebpf.ProgramSpec {
	return &ebpf.ProgramSpec{Name: "sluice_trial", Type: ebpf.SchedCLS, License: "MIT", Instructions: list}
}

// sender marks SYNs, and sends IPv4 packets for port 25 to the other side of an interface.
func sender(door int, mark uint32) *ebpf.ProgramSpec {
	list := append(mail25(),
		asm.LoadAbs(tcpFlags, asm.Byte), asm.JNE.Imm(asm.R0, syn, "send"),
		asm.Mov.Imm(asm.R1, int32(mark)), asm.StoreMem(asm.R6, contextMark, asm.R1, asm.Word),
		asm.Mov.Imm(asm.R1, int32(door)).WithSymbol("send"), asm.Mov.Imm(asm.R2, 0), asm.FnRedirectPeer.Call(), asm.Return(),
		asm.Mov.Imm(asm.R0, next).WithSymbol("next"), asm.Return())
	return spec(list...)
}

// receiver assigns what is marked to the socket in a map.
func receiver(slot *ebpf.Map, mark uint32) *ebpf.ProgramSpec {
	list := append([]asm.Instruction{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R2, asm.R6, contextMark, asm.Word), asm.JSet.Imm(asm.R2, int32(mark), "assign"),
		asm.Mov.Imm(asm.R0, next), asm.Return(),
		asm.StoreImm(asm.RFP, -4, 0, asm.Word).WithSymbol("assign"),
	}, assign(slot)...)
	return spec(list...)
}

// answerer sends what comes out of the room to a customer interface, to the neighbour that the routes name.
func answerer(customer int) *ebpf.ProgramSpec {
	return spec(asm.Mov.Imm(asm.R1, int32(customer)), asm.Mov.Imm(asm.R2, 0), asm.Mov.Imm(asm.R3, 0), asm.Mov.Imm(asm.R4, 0),
		asm.FnRedirectNeigh.Call(), asm.Return())
}
