//go:build bpftest

package bpf

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// What the programs return.
const (
	next     = ^uint32(0) // TC_ACT_UNSPEC
	okay     = uint32(0)
	shot     = uint32(2)
	redirect = uint32(7)
)

const (
	markIntercept = 0x100
	markJudged    = 0x200
)

// skb is struct __sk_buff: of a test's context the kernel takes mark, ingress_ifindex and ifindex, and gives mark back.
type skb struct {
	Len, PktType, Mark, QueueMapping, Protocol, VlanPresent, VlanTCI, VlanProto, Priority uint32
	IngressIfindex, Ifindex                                                               uint32
	Rest                                                                                  [37]uint32
}

// bpffs mounts a private bpffs and gives its path.
func bpffs(tb testing.TB) string {
	tb.Helper()
	dir := tb.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		tb.Fatalf("could not mount a bpffs: %v; run as root", err)
	}
	tb.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			tb.Errorf("could not unmount %s: %v", dir, err)
		}
	})
	pins := filepath.Join(dir, "sluice")
	if err := os.Mkdir(pins, 0o700); err != nil {
		tb.Fatal(err)
	}
	return pins
}

// lab is a datapath without interfaces, for packets that the test makes itself.
type lab struct {
	testing.TB
	*Datapath
	addresses map[uint32][]byte // of devices
}

func newLab(tb testing.TB, o Options) *lab {
	tb.Helper()
	d, err := Open(bpffs(tb), o)
	if err != nil {
		var v *ebpf.VerifierError
		if errors.As(err, &v) {
			tb.Fatalf("%+v", v)
		}
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := d.Close(); err != nil {
			tb.Error(err)
		}
	})
	return &lab{TB: tb, Datapath: d}
}

func (l *lab) must(err error) {
	l.Helper()
	if err != nil {
		l.Fatal(err)
	}
}

// run gives one packet to a program: its answer, the packet afterwards, and the mark.
func (l *lab) run(program string, packet []byte, in skb) (uint32, []byte, uint32) {
	l.Helper()
	var out skb
	there := l.address(in.Ifindex)
	o := ebpf.RunOptions{Data: readdress(packet, gwMAC, there), DataOut: make([]byte, len(packet)+64), Context: in, ContextOut: &out}
	ret, err := l.Program(program).Run(&o)
	l.must(err)
	return ret, readdress(o.DataOut, there, gwMAC), out.Mark
}

// address is the Ethernet address of the device at which a test run takes place: a packet for another one is not the
// gateway's.
func (l *lab) address(ifindex uint32) []byte {
	if a, ok := l.addresses[ifindex]; ok {
		return a
	}
	a := make([]byte, 6) // the loopback, and devices without addresses
	if i, err := net.InterfaceByIndex(int(max(ifindex, 1))); err == nil {
		copy(a, i.HardwareAddr)
	}
	if l.addresses == nil {
		l.addresses = map[uint32][]byte{}
	}
	l.addresses[ifindex] = a
	return a
}

// readdress gives the frame with one Ethernet address in the place of another.
func readdress(frame, from, to []byte) []byte {
	out := bytes.Clone(frame)
	for _, at := range []int{0, 6} {
		if len(out) >= at+6 && bytes.Equal(out[at:at+6], from) {
			copy(out[at:], to)
		}
	}
	return out
}

// counts gives the counters that are not zero.
func (l *lab) counts() map[string]uint64 {
	l.Helper()
	c, err := l.Counters()
	l.must(err)
	maps.DeleteFunc(c, func(_ string, n uint64) bool { return n == 0 })
	return c
}

// reset puts everything back as Open and a first SetConfig left it.
func (l *lab) reset() {
	l.Helper()
	l.configure(Source{Mode: ModePass})
	l.startedAgo(0)
	l.must(l.ReplaceBypasses(nil))
	l.must(l.ClearListener())
	l.sources()
	l.exemptions()
	l.locks()
	for _, replace := range []func([]netip.Prefix) (Change, error){l.ReplaceLockExempt, l.ReplaceLocal, l.ReplaceDelivery} {
		_, err := replace(nil)
		l.must(err)
	}
	l.beat(0, 0)
	l.must(l.objects.Runtime.Put(uint32(0), mailRuntime{}))
	_, err := replaceTable(l.objects.LockBudgets, map[number]mailBudget{})
	l.must(err)
	_, err = replaceTable(l.objects.OpenBudgets, map[mailHostKey]mailBudget{})
	l.must(err)
	_, err = replaceTable(l.objects.SynBuckets, map[mailHostKey]uint64{})
	l.must(err)
	l.setCounts(nil)
	for i := range uint32(mailReasonREASON_MAX) {
		l.must(l.objects.Counters.Put(i, make([]uint64, ebpf.MustPossibleCPU())))
	}
}

func (l *lab) configure(fallback Source, ports ...PortRule) {
	l.Helper()
	l.must(l.SetConfig(Config{InterceptMark: markIntercept, JudgedMark: markJudged, Default: fallback, Ports: ports}))
}

func (l *lab) sources(list ...Source) {
	l.Helper()
	_, err := l.ReplaceSources(list)
	l.must(err)
}

func (l *lab) exemptions(list ...Exemption) {
	l.Helper()
	_, err := l.ReplaceExemptions(list)
	l.must(err)
}

func (l *lab) locks(list ...Lock) {
	l.Helper()
	_, err := l.ReplaceLocks(list)
	l.must(err)
}

// beat writes the proxy's sign of life: last beat so long ago (0: never), restart announced for so long from now (0: not).
func (l *lab) beat(ago, restart time.Duration) {
	l.Helper()
	now, err := monotonic()
	l.must(err)
	var v mailHeartbeat
	if ago != 0 {
		v.BeatNs = now - uint64(ago)
	}
	if restart != 0 {
		v.RestartUntilNs = now + uint64(restart)
	}
	l.must(l.objects.Heartbeat.Put(uint32(0), v))
}

// startedAgo says when the maps were made, as far as a proxy that never beat is concerned.
func (l *lab) startedAgo(ago time.Duration) {
	l.Helper()
	now, err := monotonic()
	l.must(err)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.config.StartNs = now - uint64(ago)
	l.must(l.writeConfig())
}

// emptySince says when the slot was first seen empty.
func (l *lab) emptySince(ago time.Duration) {
	l.Helper()
	now, err := monotonic()
	l.must(err)
	l.must(l.objects.Runtime.Put(uint32(0), mailRuntime{EmptySinceNs: now - uint64(ago)}))
}

// listener fills the slot with a listening socket on the loopback.
func (l *lab) listener() {
	l.Helper()
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	s, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	l.must(err)
	l.Cleanup(func() { s.Close() })
	l.must(l.SetListener(s.(syscall.Conn)))
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func in(ago time.Duration) time.Time { return time.Now().Add(ago) }

// copyBeat writes a heartbeat into the mapped page as the layout in sluice.h says.
func copyBeat(page []byte, now uint64) {
	atomic.StoreUint64((*uint64)(unsafe.Pointer(&page[0])), now)
	atomic.StoreUint64((*uint64)(unsafe.Pointer(&page[8])), 0)
}

// setCounts replaces the counters and buckets of all users, wherever they stand.
func (l *lab) setCounts(counts map[uint32]mailUserCounts) {
	l.Helper()
	have, err := l.userCounts()
	l.must(err)
	l.must(l.ForgetUsers(slices.Collect(maps.Keys(have))...))
	for user, c := range counts {
		l.slots.put(user, mailUserSlot{SynDue: c.SynDue})
		if c.N != (mailUserCounts{}).N || user >= l.objects.UserSlots.MaxEntries() {
			l.must(l.objects.UserCounters.Put(user, c))
		}
	}
}

// number is a key that is only a number.
type number uint32

func (number) length() int { return 0 }
