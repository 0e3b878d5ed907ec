//go:build benchtest

package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"sluice/cmd/internal/store"
	"sluice/filter"
	"sluice/filter/lock"
	mail "sluice/filter/message"
	"sluice/filter/policy"
	"sluice/intercept/control"
	"sluice/intercept/flow"
)

// What is there while locks come and go, and how many are measured of each kind; SLUICE_LOCKS replaces the last.
const (
	latencyUsers = 100_000
	latencyLocks = 10_000
	latencyTimes = 2_000
	latencyBound = 200 * time.Microsecond // LCK9, at p99
)

const latencyConfig = `[gateway]
name = "gw.example"
contact = "abuse@gw.example"

[intercept]
customer_interfaces = ["none*"]
uplinks = ["nor*"]
default_fail = "closed"
pin_dir = "%[1]s/bpf/sluice"
state_dir = "%[1]s/state"
control_socket = "%[1]s/control.sock"
daemon_user = "root"
`

// latencyUser is the n-th user; every address of 198.18.0.0/15 is one.
func latencyUser(n int) flow.User {
	a := netip.AddrFrom4([4]byte{198, 18 + byte(n>>16), byte(n >> 8), byte(n)})
	return flow.User{ID: uint32(n + 1), Name: a.String(), Prefix: netip.PrefixFrom(a, 32)}
}

// kernelAt is a Blocker that notes when the helper is asked and when the kernel has a lock.
type kernelAt struct {
	lock.Blocker
	asked, at time.Time
}

func (k *kernelAt) Block(l *lock.Lock) error {
	k.asked = time.Now()
	err := k.Blocker.Block(l)
	k.at = time.Now()
	return err
}

// TestLockLatency measures the time from a verdict that locks, and from a lock by hand, until the kernel's programs heed the
// lock, until their tables hold it, and until sluiced knows that from the helper, with a real helper, 100,000 users and
// 10,000 other locks. Each is looked up in the kernel's table. Both moments stand in the kernel's maps.
func TestLockLatency(t *testing.T) {
	dir := t.TempDir()
	k := startHelper(t, dir)
	l := &link{path: filepath.Join(dir, "control.sock"), log: slog.New(slog.NewTextHandler(io.Discard, nil)), prefixes: func(user uint32) []netip.Prefix {
		return []netip.Prefix{latencyUser(int(user) - 1).Prefix}
	}}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, _, err := l.dial(ctx, func() []control.Listener { return nil })
	check(t, err)
	defer c.Close()
	l.client.Store(c)
	sources := make([]control.Source, latencyUsers)
	locks := make([]lock.Lock, latencyLocks)
	for i := range sources {
		u := latencyUser(i)
		sources[i] = control.Source{Prefix: u.Prefix, User: u.ID, Mode: control.Intercept, Fail: control.Closed}
		if i < len(locks) {
			locks[i] = lock.Lock{Ticket: fmt.Sprint("T", i), User: u, Since: time.Now(), PerMinute: 10}
		}
	}
	check(t, l.tell(c, sources, nil, locks))

	st, err := store.Open(filepath.Join(dir, "sluice.db"), store.Options{})
	check(t, err)
	defer st.Close()
	s := policy.Default()
	s.Lock.Automatic = true
	at := &kernelAt{Blocker: l}
	keeper, err := lock.New(lock.Deps{Settings: policy.NewTable(s), Blocker: at, Store: st})
	check(t, err)
	defer keeper.Close()
	keeper.Follow() // what is heard is in the kernel already
	for i := range locks {
		keeper.Heard(locks[i])
	}
	judged := 0
	ways := map[string]func(u flow.User) error{
		"verdict": func(u flow.User) error {
			// Each check may lock a few only before a person is asked.
			virus := filter.Judge([]filter.Hit{{Check: fmt.Sprint("scanner", judged/4), Code: "EICAR", Class: filter.Virus, Action: filter.Reject}})
			judged++
			keeper.Judged(&mail.Message{ID: "x.1", Flow: &flow.Flow{User: u}, Data: []byte("\r\nx")}, &virus)
			return nil
		},
		"by hand": func(u flow.User) error {
			_, err := keeper.Lock(u, lock.Request{Who: "test", Reason: "test", Time: time.Hour})
			return err
		},
	}
	asked, force, kernel, known, disk := map[string][]time.Duration{}, map[string][]time.Duration{}, map[string][]time.Duration{}, map[string][]time.Duration{}, map[string][]time.Duration{}
	for i := range times(latencyTimes) {
		for name, do := range ways { // interleaved
			u := latencyUser(latencyLocks + i%(latencyUsers-latencyLocks))
			begin, mono := time.Now(), monotonic(t)
			check(t, do(u))
			disk[name] = append(disk[name], time.Since(begin))
			asked[name] = append(asked[name], at.asked.Sub(begin))
			known[name] = append(known[name], at.at.Sub(begin))
			force[name] = append(force[name], urgentAt(t, k.urgent)-mono)
			kernel[name] = append(kernel[name], changedAt(t, k.config)-mono)
			if id := heldFor(t, k.locks, u.Prefix.Addr()); id != u.ID {
				t.Fatalf("%s: the kernel holds a lock of user %d, want %d", name, id, u.ID)
			}
			_, err := keeper.Unlock(u.ID, "test", "")
			check(t, err)
			if id := heldFor(t, k.locks, u.Prefix.Addr()); id != 0 {
				t.Fatalf("%s: the kernel holds the lock of user %d after it was lifted", name, id)
			}
			time.Sleep(time.Millisecond) // mail's pace, not a loop's
		}
	}
	fmt.Printf("from the call until it is in force: %d users, %d locks beside, %d times each\n", latencyUsers, latencyLocks, times(latencyTimes))
	for name := range ways {
		fmt.Printf("%-8s  helper asked  %s\n          in force      %s\n          in the tables %s\n          known to be   %s\n          and on disk   %s\n", name, spread(asked[name]), spread(force[name]), spread(kernel[name]), spread(known[name]), spread(disk[name]))
		if least := quantile(force[name], 0); least <= 0 {
			t.Errorf("%s: a lock was in force %v before it was asked for: another one was measured", name, -least)
		}
		if p99 := quantile(force[name], 0.99); p99 > latencyBound {
			fmt.Printf("          above %v at p99\n", latencyBound)
		}
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func times(n int) int {
	if v, err := strconv.Atoi(os.Getenv("SLUICE_LOCKS")); err == nil && v > 0 {
		return v
	}
	return n
}

func quantile(list []time.Duration, q float64) time.Duration {
	slices.Sort(list)
	return list[min(len(list)-1, int(q*float64(len(list))))]
}

func spread(list []time.Duration) string {
	round := func(q float64) time.Duration { return quantile(list, q).Round(time.Microsecond) }
	return fmt.Sprintf("p50 %v, p99 %v, max %v", round(0.5), round(0.99), round(1))
}

// monotonic is the clock that the programs know.
func monotonic(t *testing.T) time.Duration {
	t.Helper()
	var ts unix.Timespec
	check(t, unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts))
	return time.Duration(ts.Nano())
}

// changedAt is when a table of the kernel's last changed: it stands before the last two words of struct config of
// bpf/sluice.h, written once the change is whole.
func changedAt(t *testing.T, config *ebpf.Map) time.Duration {
	t.Helper()
	v, err := config.LookupBytes(make([]byte, 4))
	check(t, err)
	return time.Duration(binary.NativeEndian.Uint64(v[len(v)-16:]))
}

// urgentAt is when a lock last came into force.
func urgentAt(t *testing.T, m *ebpf.Map) (last time.Duration) {
	t.Helper()
	for i := range uint32(1 + control.UrgentLocks) {
		var u control.Urgent
		check(t, m.Lookup(i, &u))
		last = max(last, time.Duration(u.SinceNs))
	}
	return last
}

// tables are maps of the helper's.
type tables struct{ locks, config, urgent *ebpf.Map }

// startHelper runs sluice-intercept of SLUICE_BIN in a network namespace and with a BPF file system of its own, and opens
// its tables.
func startHelper(t *testing.T, dir string) tables {
	t.Helper()
	bin := cmp.Or(os.Getenv("SLUICE_BIN"), "../../bin")
	for _, sub := range []string{"bpf", "state"} {
		check(t, os.Mkdir(filepath.Join(dir, sub), 0o755))
	}
	check(t, unix.Mount("bpf", filepath.Join(dir, "bpf"), "bpf", 0, ""))
	t.Cleanup(func() { check(t, unix.Unmount(filepath.Join(dir, "bpf"), unix.MNT_DETACH)) })
	file := filepath.Join(dir, "sluice.toml")
	check(t, os.WriteFile(file, fmt.Appendf(nil, latencyConfig, dir), 0o644))
	var said bytes.Buffer
	c := exec.Command("unshare", "--net", "sh", "-c", `ip link set lo up && exec nice -n -10 "$@"`, "sh", filepath.Join(bin, "sluice-intercept"), "--config", file)
	c.Stdout, c.Stderr = &said, &said
	check(t, c.Start())
	t.Cleanup(func() {
		_ = c.Process.Signal(unix.SIGTERM) // it may have ended
		if err := c.Wait(); err != nil || t.Failed() {
			t.Logf("sluice-intercept: %v\n%s", err, &said)
		}
	})
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		pins, err := filepath.Glob(filepath.Join(dir, "bpf", "sluice", "*", "locks"))
		check(t, err)
		if _, err := os.Stat(filepath.Join(dir, "control.sock")); err == nil && len(pins) == 1 {
			var ms [3]*ebpf.Map
			for i, name := range []string{"locks", "config", "urgent"} {
				ms[i], err = ebpf.LoadPinnedMap(filepath.Join(filepath.Dir(pins[0]), name), nil)
				check(t, err)
				t.Cleanup(func() { ms[i].Close() })
			}
			return tables{ms[0], ms[1], ms[2]}
		}
		if time.Now().After(end) {
			t.Fatalf("sluice-intercept does not come up: %v", pins)
		}
	}
}

// heldFor is the user whose lock the kernel holds on an address; 0: none. Key and value are struct net_key and struct lock
// of bpf/sluice.h.
func heldFor(t *testing.T, table *ebpf.Map, a netip.Addr) uint32 {
	t.Helper()
	key := make([]byte, 24)
	binary.NativeEndian.PutUint32(key, 32+32)
	binary.NativeEndian.PutUint16(key[4:], 4)
	copy(key[8:], a.AsSlice())
	value, err := table.LookupBytes(key)
	check(t, err)
	if value == nil {
		return 0
	}
	return binary.NativeEndian.Uint32(value[8:])
}
