//go:build bpftest

package bpf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// wire gives packets to a program at a real device: tap (with Ethernet) or tun (without). The kernel runs the program before
// the write returns. Unlike a test run it lets sockets be assigned, takes any length, and can split a packet.
type wire struct {
	testing.TB
	device   *device
	program  link.Link
	tail     []byte // mapped: the mark of the last packet that went on, and how many did
	receives []*os.File
}

// newWire puts a program, and behind it one that takes down what goes on and drops it, at a device's ingress.
func newWire(tb testing.TB, d *device, p *ebpf.Program) *wire {
	tb.Helper()
	w := &wire{TB: tb, device: d}
	page, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1, Flags: unix.BPF_F_MMAPABLE})
	w.must(err)
	defer page.Close()
	w.tail, err = unix.Mmap(page.FD(), 0, os.Getpagesize(), unix.PROT_READ, unix.MAP_SHARED)
	w.must(err)
	tb.Cleanup(func() { w.must(unix.Munmap(w.tail)) })
	const offsetOfMark = 8
	end, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "MIT", Instructions: asm.Instructions{
		asm.LoadMapValue(asm.R2, page.FD(), 0),
		asm.LoadMem(asm.R3, asm.R1, offsetOfMark, asm.Word),
		asm.StoreMem(asm.R2, 0, asm.R3, asm.Word),
		asm.LoadMem(asm.R3, asm.R2, 4, asm.Word),
		asm.Add.Imm(asm.R3, 1),
		asm.StoreMem(asm.R2, 4, asm.R3, asm.Word),
		asm.Mov.Imm(asm.R0, int32(shot)),
		asm.Return(),
	}})
	w.must(err)
	defer end.Close()
	for _, p := range []*ebpf.Program{p, end} {
		k, err := link.AttachTCX(link.TCXOptions{Interface: int(d.index), Program: p, Attach: ebpf.AttachTCXIngress, Anchor: link.Tail()})
		w.must(err)
		tb.Cleanup(func() { k.Close() })
		if w.program == nil {
			w.program = k
		}
	}
	for _, name := range []string{"snmp", "snmp6"} {
		f, err := os.Open("/proc/thread-self/net/" + name)
		w.must(err)
		tb.Cleanup(func() { f.Close() })
		w.receives = append(w.receives, f)
	}
	return w
}

func (w *wire) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// use puts another program in the place of the one before.
func (w *wire) use(p *ebpf.Program) {
	w.Helper()
	w.must(w.program.Update(p))
}

const refused = uint32(100) // the device or the kernel took no such frame, and the program did not see it

// give sends a frame with so many bytes in its linear part (0: all) and tells what became of it: what came back if it was
// turned round, and the mark if it went on.
func (w *wire) give(frame []byte, linear int) (ret uint32, out []byte, mark uint32) {
	w.Helper()
	before := binary.LittleEndian.Uint32(w.tail[4:])
	delivered := w.delivered()
	if !w.device.put(w, frame, linear) {
		return refused, nil, 0
	}
	if out = w.device.get(w); out != nil {
		return redirect, out, 0
	}
	if binary.LittleEndian.Uint32(w.tail[4:]) != before {
		return next, frame, binary.LittleEndian.Uint32(w.tail)
	}
	if w.delivered() != delivered {
		return okay, frame, markIntercept | markJudged
	}
	return shot, nil, 0
}

// delivered counts what IP got.
func (w *wire) delivered() (sum int) {
	w.Helper()
	b := make([]byte, 8192)
	for _, f := range w.receives {
		n, err := f.ReadAt(b, 0)
		if n == 0 {
			w.must(err)
		}
		words := strings.Fields(string(b[:n]))
		for i, word := range words {
			at := i + 1 // snmp6: name and number
			if word == "Ip:" && words[i+3] != "InReceives" {
				at = i + 3 // snmp: a line of names, then one of numbers
			} else if word != "Ip6InReceives" {
				continue
			}
			v, err := strconv.Atoi(words[at])
			w.must(err)
			sum += v
		}
	}
	return sum
}

// device is a tap or a tun with its descriptor.
type device struct {
	index    uint32
	fd       int
	ethernet bool
}

// vnetHeader stands before each frame of the tap; its third field is the size of the linear part.
const vnetHeader = 10

// beyondPage makes a frame so long that the kernel splits it where it is told.
const beyondPage = 4200

func (d *device) put(tb testing.TB, frame []byte, linear int) bool {
	tb.Helper()
	if d.ethernet {
		head := make([]byte, vnetHeader, vnetHeader+len(frame)+beyondPage)
		frame = append(head, frame...)
		if linear > 0 {
			binary.LittleEndian.PutUint16(head[2:], uint16(linear))
			frame = append(frame, make([]byte, beyondPage)...)
		}
	}
	_, err := unix.Write(d.fd, frame)
	if err == unix.EINVAL {
		return false
	}
	if err != nil {
		tb.Fatal(fmt.Errorf("could not send a packet through a tun device: %w", err))
	}
	return true
}

// get gives the TCP packet that the kernel sent, if any. What IPv6 says of itself on a new device is none.
func (d *device) get(tb testing.TB) []byte {
	tb.Helper()
	b := make([]byte, 70000)
	for {
		n, err := unix.Read(d.fd, b)
		if err == unix.EAGAIN {
			return nil
		}
		if err != nil {
			tb.Fatal(fmt.Errorf("could not read a packet from a tun device: %w", err))
		}
		frame, ip := b[:n], b[:n]
		if d.ethernet {
			if b[0]&1 != 0 { // the checksum is left to the device
				completeSum(b[vnetHeader:n], int(binary.LittleEndian.Uint16(b[6:])), int(binary.LittleEndian.Uint16(b[8:])))
			}
			frame, ip = b[vnetHeader:n], b[vnetHeader+14:n]
			if binary.BigEndian.Uint16(frame[12:]) == 0x8100 { // a tag that was taken off is put on again
				ip = ip[4:]
			}
		}
		if ip[0]>>4 == 4 && ip[9] == 6 || ip[0]>>4 == 6 && ip[6] == 6 {
			return bytes.Clone(frame)
		}
	}
}

// completeSum does what a device does for CHECKSUM_PARTIAL: the field holds the sum of the pseudo header.
func completeSum(b []byte, start, offset int) {
	field := b[start+offset:]
	binary.BigEndian.PutUint16(field, sum(0, b[start:]))
}
