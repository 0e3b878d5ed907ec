package kernel

import (
	"encoding/binary"
	"fmt"
	"net"
	"runtime"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// generator makes packets inside the kernel: an XDP program writes each frame anew, with the next source if there are
// several, and passes it up as if it had come in by an interface. Only the namespace's thread may use it.
type generator struct {
	program *ebpf.Program
	control *ebpf.Map
}

// What the generator's program reads: the number of the packet, the number of sources, the first source, the sum of the
// IPv4 header without source and checksum (0: IPv6), and the frame.
const (
	atCounter = 0
	atSources = 8
	atFirst   = 16
	atSum     = 24
	atFrame   = 32
	atSource  = 26 // in the frame: all of an IPv4 source, the second word of an IPv6 one
	atCheck   = 24
)

func newGenerator() (*generator, error) {
	control, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: atFrame + frameSize, MaxEntries: 1})
	if err != nil {
		return nil, fmt.Errorf("could not make the packet generator's map: %w", err)
	}
	code := asm.Instructions{
		asm.LoadMem(asm.R7, asm.R1, 0, asm.Word), // data
		asm.LoadMem(asm.R8, asm.R1, 4, asm.Word), // data_end
		asm.Mov.Imm(asm.R0, 1),                   // XDP_DROP
		asm.Mov.Reg(asm.R2, asm.R7),
		asm.Add.Imm(asm.R2, frameSize),
		asm.JGT.Reg(asm.R2, asm.R8, "out"),
		asm.LoadMapValue(asm.R9, control.FD(), 0),
	}
	for at := int16(0); at < frameSize; at += 8 { // forwarding changed the page the frame lies in
		code = append(code, asm.LoadMem(asm.R2, asm.R9, atFrame+at, asm.DWord), asm.StoreMem(asm.R7, at, asm.R2, asm.DWord))
	}
	code = append(code,
		asm.Mov.Imm(asm.R0, 2), // XDP_PASS
		asm.LoadMem(asm.R2, asm.R9, atSources, asm.DWord),
		asm.JEq.Imm(asm.R2, 0, "out"),
		asm.LoadMem(asm.R1, asm.R9, atCounter, asm.DWord),
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(asm.R9, atCounter, asm.R1, asm.DWord),
		// The numbers jump about in their range, so that neighbours in the tables are not neighbours in time.
		asm.LoadImm(asm.R3, 2654435761, asm.DWord),
		asm.Mul.Reg(asm.R1, asm.R3),
		asm.Mov.Reg32(asm.R1, asm.R1),
		asm.Mul.Reg(asm.R1, asm.R2),
		asm.RSh.Imm(asm.R1, 32),
		asm.LoadMem(asm.R3, asm.R9, atFirst, asm.DWord),
		asm.Add.Reg(asm.R1, asm.R3),
		asm.Mov.Reg(asm.R4, asm.R1),
		asm.HostTo(asm.BE, asm.R4, asm.Word),
		asm.StoreMem(asm.R7, atSource, asm.R4, asm.Word),
		asm.LoadMem(asm.R3, asm.R9, atSum, asm.DWord),
		asm.JEq.Imm(asm.R3, 0, "out"),
		asm.Mov.Reg(asm.R4, asm.R1),
		asm.And.Imm(asm.R4, 0xffff),
		asm.Add.Reg(asm.R3, asm.R4),
		asm.RSh.Imm(asm.R1, 16),
		asm.And.Imm(asm.R1, 0xffff),
		asm.Add.Reg(asm.R3, asm.R1),
	)
	for range 2 {
		code = append(code, asm.Mov.Reg(asm.R4, asm.R3), asm.RSh.Imm(asm.R4, 16), asm.And.Imm(asm.R3, 0xffff), asm.Add.Reg(asm.R3, asm.R4))
	}
	code = append(code,
		asm.Xor.Imm(asm.R3, 0xffff),
		asm.HostTo(asm.BE, asm.R3, asm.Half),
		asm.StoreMem(asm.R7, atCheck, asm.R3, asm.Half),
		asm.Return().WithSymbol("out"),
	)
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "MIT", Instructions: code})
	if err != nil {
		return nil, fmt.Errorf("could not load the packet generator: %w", err)
	}
	return &generator{p, control}, nil
}

func (g *generator) close() {
	_ = g.program.Close() // nothing is lost with them
	_ = g.control.Close()
}

// aim sets what is sent from now on: a kind of packet from so many of the bulk sources (0: from the first only), to an
// interface with that Ethernet address.
func (g *generator) aim(k kind, sources int, to net.HardwareAddr) error {
	frame := k.frame()
	copy(frame, to)
	value := make([]byte, atFrame+frameSize)
	if !k.from.IsValid() && sources > 0 {
		binary.NativeEndian.PutUint64(value[atSources:], uint64(sources))
	}
	first := uint64(bulk6)
	if !k.v6 {
		first = bulk4
		binary.NativeEndian.PutUint64(value[atSum:], uint64(headerSum(frame))-uint64(binary.BigEndian.Uint16(frame[26:]))-uint64(binary.BigEndian.Uint16(frame[28:])))
	}
	binary.NativeEndian.PutUint64(value[atFirst:], first)
	copy(value[atFrame:], frame)
	return g.control.Put(uint32(0), value)
}

// xdpContext is struct xdp_md as a test run takes it.
type xdpContext struct{ Data, End, Meta, Ifindex, Queue, Egress uint32 }

// testRun is the part of union bpf_attr that BPF_PROG_TEST_RUN reads and writes.
type testRun struct {
	program, retval, sizeIn, sizeOut uint32
	dataIn, dataOut                  uint64
	repeat, duration                 uint32
	contextIn, contextOut            uint32
	context, contextBack             uint64
	flags, cpu, batch, _             uint32
}

const bpfProgTestRun = 10

// send passes n packets up at an interface and tells how many nanoseconds each took: the kernel's own measure, which knows
// neither the making of the packets' pages nor the time in which others had the processor.
func (g *generator) send(ifindex, n int) (float64, error) {
	data := make([]byte, frameSize)
	context := xdpContext{End: frameSize, Ifindex: uint32(ifindex)}
	a := testRun{
		program: uint32(g.program.FD()), sizeIn: frameSize, dataIn: address(&data[0]), repeat: uint32(n),
		contextIn: uint32(unsafe.Sizeof(context)), context: address(&context), flags: unix.BPF_F_TEST_XDP_LIVE_FRAMES,
	}
	for {
		_, _, e := unix.Syscall(unix.SYS_BPF, bpfProgTestRun, uintptr(unsafe.Pointer(&a)), unsafe.Sizeof(a))
		if e == unix.EINTR || e == unix.EAGAIN { // the runtime's own signals
			continue
		}
		if e != 0 {
			return 0, fmt.Errorf("could not send packets from inside the kernel: %w; that needs Linux 5.18", e)
		}
		runtime.KeepAlive(data)
		return float64(a.duration), nil
	}
}

func address[T any](p *T) uint64 { return uint64(uintptr(unsafe.Pointer(p))) }
