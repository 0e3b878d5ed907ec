//go:build bpftest

package bpf

import (
	"fmt"
	"golang.org/x/sys/unix"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"sluice/bpf/model"
)

const (
	packetsPerTable = 200
	// fresh is how long the times in a table stay on their side of every bound.
	fresh = 700 * time.Millisecond
)

// TestRandomPackets compares the programs with the model. SLUICE_PACKETS says how many packets (default 200,000, at most
// 15 seconds of them), SLUICE_PACKET_SEED where to begin; a failure names the seed that shows it again.
func TestRandomPackets(t *testing.T) {
	t.Parallel()
	limit, most := 200_000, 15*time.Second
	if s := os.Getenv("SLUICE_PACKETS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		limit, most = n, time.Hour
	}
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("SLUICE_PACKET_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seed, limit = n, packetsPerTable
	}
	c := newComparison(t)
	began := time.Now()
	for c.packets < limit && time.Since(began) < most {
		c.round(seed)
		seed++
		if t.Failed() {
			return
		}
	}
	var rare []string
	for _, name := range reasons {
		rare = append(rare, fmt.Sprintf("%s %d", name, c.seen[name]))
	}
	t.Logf("%d packets in %s, %d left out because the machine paused; by reason: %s", c.packets, time.Since(began).Round(time.Second), c.late, strings.Join(rare, ", "))
}

// comparison runs packets through a program and the model.
type comparison struct {
	*lab
	*place
	wires    [2]*wire // at the tun and the tap
	observer *Observer
	before   [mailReasonREASON_MAX]uint64
	seen     map[string]int
	packets  int
	late     int
}

func newComparison(t *testing.T) *comparison {
	c := &comparison{place: newPlace(t), seen: map[string]int{}}
	c.lab = newLab(t, Options{})
	c.lab.reset()
	c.wires = [2]*wire{newWire(t, &c.tun, c.Program(MailIngressL3)), newWire(t, &c.tap, c.Program(MailIngress))}
	c.must(c.Commit())
	var err error
	c.observer, err = OpenObserver(c.dir, nil, ObserveOptions{Ring: 4096})
	c.must(err)
	t.Cleanup(func() { c.observer.Close() })
	return c
}

// situation is one packet with all that a verdict depends on.
type situation struct {
	program string
	tables  *model.Tables
	state   *model.State
	packet  model.Packet
}

// round makes tables and many packets out of a seed. What a second time does not show was a pause of the machine: the kernel's
// clock is read once a tick.
func (c *comparison) round(seed uint64) {
	c.Helper()
	once, report := c.roundOnce, c.report
	if seed%8 == 0 {
		once, report = c.onceAtDevice, c.reportAtDevice
	}
	if _, d := once(seed); d == "" {
		return
	}
	if x, d := once(seed); d != "" {
		report(seed, x, d)
		return
	}
	c.late++
}

// roundOnce gives the first packet that they disagree about, and how.
func (c *comparison) roundOnce(seed uint64) (x situation, d string) {
	c.Helper()
	r := rand.New(rand.NewPCG(seed, 0))
	now := c.now()
	tables, state := randomTables(r, c.devices, now)
	state.Socket, state.RoutedBack, state.CannotAssign = c.socket, c.routedBack(tables.Local), true
	c.load(tables, state, c.fill)
	users := map[uint32]map[string]uint64{}
	loaded := time.Now()
	c.counted()
	for range packetsPerTable {
		program := pick(r, []string{MailIngress, MailIngress, MailIngress, UplinkIngress, UplinkGuard})
		x = situation{program, tables, copyState(state), randomPacket(r, program, c.devices)}
		want, got := c.both(situation{program, tables, state, x.packet})
		if time.Since(loaded) > fresh {
			c.late++
			return x, ""
		}
		c.packets++
		if d = differ(want, got); d != "" {
			return x, d
		}
		for _, reason := range want.Reasons {
			c.seen[reason]++
		}
		for _, what := range want.Counts {
			if users[want.User] == nil {
				users[want.User] = map[string]uint64{}
			}
			users[want.User][what]++
		}
		if r.IntN(20) == 0 {
			c.observed(x.packet)
		}
	}
	if got := c.userCounts(); !sameCounts(users, got) {
		c.Errorf("seed %d: users' counters are %v, want %v", seed, got, users)
	}
	return x, ""
}

// onceAtDevice is roundOnce with packets that come through a device, where sockets can be assigned, tags are taken off,
// packets may be shorter than a header, and some lie in memory in two pieces.
func (c *comparison) onceAtDevice(seed uint64) (x situation, d string) {
	c.Helper()
	r := rand.New(rand.NewPCG(seed, 0))
	tables, state := randomTables(r, c.devices, c.now())
	state.Socket, state.RoutedBack = c.socket, c.routedBack(tables.Local)
	w := pick(r, c.wires[:])
	program := pick(r, []string{MailIngress, MailIngress, UplinkIngress, UplinkGuard})
	c.load(tables, state, c.fill)
	loaded := time.Now()
	c.counted()
	entry := program
	if !w.device.ethernet {
		entry += "_l3"
	}
	w.use(c.Program(entry))
	for i := range packetsPerTable {
		frame, linear := randomFrame(r, program), 0
		switch {
		case !w.device.ethernet && chance(r, 10):
			frame = frame[14 : 15+r.IntN(len(frame)-14)]
		case !w.device.ethernet:
			frame = frame[14:]
		case chance(r, 20):
			linear = 14 + r.IntN(len(frame)-13)
		case chance(r, 10):
			frame = frame[:14+r.IntN(len(frame)-13)]
		}
		reasons, d := c.differAtDevice(w, c.judge(tables, program), state, frame, linear)
		if time.Since(loaded) > fresh {
			c.late++
			return x, ""
		}
		c.packets++
		if d != "" {
			return situation{program, tables, state, model.Packet{Frame: frame}}, fmt.Sprintf("packet %d, %s: %s", i, entry, d)
		}
		for _, reason := range reasons {
			c.seen[reason]++
		}
	}
	return x, ""
}

// reportAtDevice prints what repeats it.
func (c *comparison) reportAtDevice(seed uint64, x situation, difference string) {
	c.Helper()
	c.Errorf("%s\n%s\nrepeat with SLUICE_PACKET_SEED=%d", difference, x, seed)
}

func (c *comparison) now() uint64 {
	c.Helper()
	var t unix.Timespec // the clock by which SYNs are judged
	c.must(unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &t))
	return uint64(t.Nano())
}

// fill fills the slot with a socket that listens elsewhere.
func (c *comparison) fill() { c.must(c.SetListener(c.slot)) }

func copyState(s *model.State) *model.State {
	n := *s
	n.LockBudgets, n.OpenBudgets, n.Buckets = maps.Clone(s.LockBudgets), maps.Clone(s.OpenBudgets), maps.Clone(s.Buckets)
	return &n
}

// outcome is what can be seen of a verdict.
type outcome struct {
	model.Verdict
	frame []byte
}

func (c *comparison) both(x situation) (want, got outcome) {
	c.Helper()
	want.Verdict = c.judge(x.tables, x.program)(x.state, x.packet, c.now())
	want.frame = x.packet.Frame
	if want.Action == model.Reset {
		want.frame = model.ResetOf(x.packet)
	}
	ret, out, mark := c.run(x.program, x.packet.Frame, skb{Mark: x.packet.Mark, Ifindex: x.packet.Ifindex, IngressIfindex: x.packet.Ingress})
	got.Verdict = model.Verdict{Action: actions[ret], Mark: mark, Reasons: c.counted()}
	got.frame = out
	return want, got
}

func (c *comparison) judge(t *model.Tables, program string) func(*model.State, model.Packet, uint64) model.Verdict {
	switch program {
	case UplinkIngress:
		return t.Uplink
	case UplinkGuard:
		return t.Guard
	}
	return t.Ingress
}

var actions = map[uint32]model.Action{next: model.Next, okay: model.Local, shot: model.Shot, redirect: model.Reset}

// differ names what is not the same. Mark and bytes of a packet that is dropped are nobody's.
func differ(want, got outcome) string {
	slices.Sort(want.Reasons)
	slices.Sort(got.Reasons)
	switch {
	case want.Action != got.Action:
		return fmt.Sprintf("action %d %v, want %d %v", got.Action, got.Reasons, want.Action, want.Reasons)
	case !slices.Equal(want.Reasons, got.Reasons):
		return fmt.Sprintf("reasons %v, want %v", got.Reasons, want.Reasons)
	case (want.Action == model.Next || want.Action == model.Local) && want.Mark != got.Mark:
		return fmt.Sprintf("mark %#x, want %#x", got.Mark, want.Mark)
	case want.Action != model.Shot && string(want.frame) != string(got.frame):
		return fmt.Sprintf("packet %x, want %x", got.frame, want.frame)
	}
	return ""
}

// counted gives the reasons whose counters moved since it was asked last, in order, each as often as it moved.
func (c *comparison) counted() (moved []string) {
	c.Helper()
	keys := make([]uint32, len(reasons))
	values := make([]uint64, len(reasons)*ebpf.MustPossibleCPU())
	var cursor ebpf.MapBatchCursor
	n, err := c.lab.objects.Counters.BatchLookup(&cursor, keys, values, nil)
	if n != len(reasons) {
		c.Fatalf("%d counters read, %v", n, err)
	}
	cpus := len(values) / len(reasons)
	for i, key := range keys {
		sum := uint64(0)
		for _, v := range values[i*cpus : (i+1)*cpus] {
			sum += v
		}
		for range sum - c.before[key] {
			moved = append(moved, reasons[key])
		}
		c.before[key] = sum
	}
	return moved
}

// observed: the passive programs let everything go on as it is.
func (c *comparison) observed(p model.Packet) {
	c.Helper()
	for _, program := range []*ebpf.Program{c.observer.objects.ObserveIngress, c.observer.objects.ObserveEgress} {
		for _, mark := range []uint32{p.Mark, markJudged} {
			var out skb
			o := ebpf.RunOptions{Data: p.Frame, DataOut: make([]byte, len(p.Frame)+64), Context: skb{Mark: mark, Ifindex: p.Ifindex}, ContextOut: &out}
			ret, err := program.Run(&o)
			c.must(err)
			if ret != next || out.Mark != mark || string(o.DataOut) != string(p.Frame) {
				c.Errorf("%v: answer %d, mark %#x of %#x, packet %x of %x", program, int32(ret), out.Mark, mark, o.DataOut, p.Frame)
			}
		}
	}
}

func (c *comparison) userCounts() map[uint32]map[string]uint64 {
	c.Helper()
	have, err := c.UserCounters()
	c.must(err)
	all := map[uint32]map[string]uint64{}
	for user, u := range have {
		all[user] = map[string]uint64{
			"syn": u.SYN, "intercepted": u.Intercepted, "passed": u.Passed, "rejected": u.Rejected, "dropped": u.Dropped,
			"explained": u.Explained, "lock_reset": u.LockReset, "failed_open": u.FailedOpen, "failed_closed": u.FailedClosed,
			"spoofed": u.Spoofed, "syn_limited": u.SYNLimited, "unparsed": u.Unparsed, "lock_cut": u.LockCut,
		}
		maps.DeleteFunc(all[user], func(_ string, n uint64) bool { return n == 0 })
	}
	return all
}

func sameCounts(a, b map[uint32]map[string]uint64) bool {
	return maps.EqualFunc(a, b, func(x, y map[string]uint64) bool { return maps.Equal(x, y) })
}
