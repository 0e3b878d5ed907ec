package intercept

import (
	"net/netip"
	"os"
	"syscall"

	"sluice/bpf"
	"sluice/intercept/attach"
	"sluice/intercept/ruleset"
)

// datapath is what decides about packets in the kernel. All of its methods may be called at the same time, and what
// they set stays in force after Close.
type datapath interface {
	tables
	places
	lockTable
	bypassTable
	slot
	counts
	// Heartbeat tells what the data path knows of the proxy.
	Heartbeat() (bpf.Heartbeat, error)
	// HeartbeatFile is the memory in which the proxy beats, to be passed on; it stays the data path's.
	HeartbeatFile() *os.File
	// UrgentFile is the memory into which the proxy writes locks that are on their way, to be passed on; it stays the data
	// path's. nil: locks take their way.
	UrgentFile() *os.File
	// Preserve lets the socket with this cookie connect from src to dst past the guard at the uplink.
	Preserve(cookie uint64, src netip.Addr, dst netip.AddrPort) error
	Close() error
}

// tables says whose packets are treated how.
type tables interface {
	SetConfig(bpf.Config) error
	Default() bpf.Source
	sourceTable
	ReplaceExemptions([]bpf.Exemption) (bpf.Change, error)
}

// places says which addresses are this host's.
type places interface {
	ReplaceLocal([]netip.Prefix) (bpf.Change, error)
	ReplaceDelivery([]netip.Prefix) (bpf.Change, error)
}

// lockTable holds locks by prefix.
type lockTable interface {
	ReplaceLocks([]bpf.Lock) (bpf.Change, error)
	PutLocks(...bpf.Lock) error
	Unlock(...netip.Prefix) error
	ReplaceLockExempt([]netip.Prefix) (bpf.Change, error)
}

// bypassTable holds the ways around the proxy.
type bypassTable interface {
	ReplaceBypasses([]bpf.Bypass) error
	Bypasses() ([]bpf.Bypass, error)
}

// slot holds the listening socket.
type slot interface {
	SetListener(syscall.Conn) error
}

// counts are packets by reason, and fresh connections by user.
type counts interface {
	Counters() (map[string]uint64, error)
	UserCounters() (map[uint32]bpf.UserCounters, error)
}

// seats lets the data path stand at interfaces.
type seats interface {
	// Sync makes it stand where the seats say and nowhere else; an interface that fails carries its problem.
	Sync([]ruleset.Seat) ([]attach.Interface, error)
	// Path names the way in use, and why.
	Path() (path, reason string)
}

// updater are seats that can look at some interfaces and leave the others alone.
type updater interface {
	// Update is Sync for the interfaces that the indexes name, which may be gone.
	Update(indexes []int, seats []ruleset.Seat) ([]attach.Interface, error)
}

// portTable is a data path that knows ports of single interfaces.
type portTable interface {
	PutPorts(...bpf.PortRule) error
	DeletePorts(ifindex uint32) error
}

// elsewhere is a data path that remembers whose connections do not come through it.
type elsewhere interface {
	Elsewhere() ([]bpf.Elsewhere, error)
}

// memory is a data path whose kernel state can be read back whole, which is newer than any file, and is carried over to
// the tables of another version.
type memory interface {
	Empty(table string) bool // begins with nothing of what an earlier helper left
	Migrated() []string      // tables that were made anew, because those of an earlier helper look different
	Commit() error           // the tables are filled: the next helper goes on from them
	Retire() error           // nobody needs an earlier helper's tables any more
	Sources() ([]bpf.Source, error)
	Locks() ([]bpf.Lock, error)
}
