package bpf

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// The programs, by their names in the kernel. Those ending in _l3 are for devices without an Ethernet header (tun, ppp,
// WireGuard). All are of type SchedCLS and fit a tcx link as well as a clsact direct-action filter.
const (
	MailIngress     = "mail_ingress"      // ingress of a customer interface
	MailIngressL3   = "mail_ingress_l3"   //
	UplinkIngress   = "uplink_ingress"    // ingress of an uplink
	UplinkIngressL3 = "uplink_ingress_l3" //
	UplinkGuard     = "uplink_guard"      // egress of an uplink
	UplinkGuardL3   = "uplink_guard_l3"   //
	DoorIngress     = "door_ingress"      // ingress of the door's outer end
	RoomIngress     = "room_ingress"      // ingress of its inner end
)

// Options say how large the tables may grow; zero means the default. A table that is larger stays so.
type Options struct {
	MaxHosts uint32 // sources of one address or one /64; default 131,072
	MaxNets  uint32 // other sources; default 131,072
	MaxLocks uint32 // default 131,072
	MaxUsers uint32 // users with counters; default 131,072
	Slots    uint32 // users whose number is smaller are counted with less memory; default 131,072
}

// sizes names the maps that Options may enlarge.
func (o Options) sizes() map[string]uint32 {
	return map[string]uint32{
		"source_hosts": o.MaxHosts, "source_nets": o.MaxNets, "locks": o.MaxLocks, "lock_hosts": o.MaxLocks, "user_counters": o.MaxUsers, "user_slots": o.Slots,
	}
}

// Datapath is one set of pinned maps with programs loaded upon them. Its methods may be called at the same time.
type Datapath struct {
	dir     string
	plan    *plan
	empty   []string
	objects mailObjects
	heart   *os.File // a copy of the heartbeat map's descriptor
	hurry   *os.File // and of that of the urgent locks

	hinting sync.Mutex // while a table and its hints change

	sourcing sync.Mutex  // while sources change; guards what follows
	quick    *quickTable // nil: none is in force
	hosts    int         // that stand in it, or more

	slots *userSlots

	mu     sync.Mutex // guards what follows, which has several writers
	config mailConfig
	whole  bool // the set was declared so
}

// Open loads the programs upon the maps pinned in dir, a folder in a bpffs that exists. Maps that another version made are
// adopted where they look alike; for the others new ones are made beside them, filled with what the old ones hold. Nothing
// is attached, and until Commit the next Open begins as this one did. It needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON.
func Open(dir string, o Options) (*Datapath, error) {
	spec, err := loadMail()
	if err != nil {
		return nil, fmt.Errorf("could not read the built-in programs: %w", err)
	}
	for name, size := range o.sizes() {
		if size != 0 {
			spec.Maps[name].MaxEntries = size
		}
	}
	d := &Datapath{dir: dir}
	if d.plan, err = planSet(dir, spec); err != nil {
		return nil, err
	}
	if err := d.open(spec); err != nil {
		if !d.plan.inPlace() {
			err = errors.Join(err, removeSet(d.plan.set))
		}
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func (d *Datapath) open(spec *ebpf.CollectionSpec) (err error) {
	if err := d.plan.lay(); err != nil {
		return err
	}
	err = spec.LoadAndAssign(&d.objects, &ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: d.plan.set}})
	if err != nil {
		return fmt.Errorf("could not load the programs with maps in %s: %w; is it on a bpffs, and are CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON there?", d.dir, err)
	}
	if !d.plan.inPlace() {
		if d.empty, err = d.plan.fill(); err != nil {
			return err
		}
	}
	return d.start()
}

// start reads the adopted configuration, or begins a fresh one.
func (d *Datapath) start() error {
	if err := d.objects.Config.Lookup(uint32(0), &d.config); err != nil {
		return fmt.Errorf("could not read map config: %w", err)
	}
	fd, err := unix.FcntlInt(uintptr(d.HeartbeatFD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("could not copy the heartbeat map's descriptor: %w", err)
	}
	d.heart = os.NewFile(uintptr(fd), "heartbeat")
	if fd, err = unix.FcntlInt(uintptr(d.objects.Urgent.FD()), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		return fmt.Errorf("could not copy the descriptor of the urgent locks: %w", err)
	}
	d.hurry = os.NewFile(uintptr(fd), "urgent")
	// An older version between may have filled the tables without saying what it did to the short ways.
	const short = lockFlags | noExemptions | hintFlags | mailConfigFlagCONFIG_QUICK
	if d.config.Layout == 0 {
		now, err := monotonic()
		if err != nil {
			return err
		}
		d.config = mailConfig{StartNs: now}
		d.config.Fallback.Mode = mailModeMODE_PASS // nothing is touched before SetConfig
	}
	if d.slots, err = mapSlots(d.objects.UserSlots, d.objects.UserCounters); err != nil {
		return err
	}
	d.setFlag(short, false)
	d.config.Layout = mailNumberLAYOUT
	if err := d.writeConfig(); err != nil {
		return err
	}
	return d.takeLeft()
}

// Migrated names the maps that were made anew because another version's look different; it is empty at the first start
// and where everything fits. Programs that are attached go on with the old ones until they are swapped.
func (d *Datapath) Migrated() []string {
	if d.plan.last == "" {
		return nil
	}
	return d.plan.changed
}

// Empty tells whether a map was made without anything to fill it with: at the first start every one, later those that are
// new in this version, and a map of sockets. If it is "heartbeat" the proxy must get the new one.
func (d *Datapath) Empty(name string) bool { return slices.Contains(d.empty, name) }

// Commit declares the maps whole: what the next Open finds. Call it when they are filled, before any program is attached.
func (d *Datapath) Commit() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.whole || d.plan.inPlace() {
		return nil
	}
	err := d.plan.is.pin(d.plan.set)
	d.whole = err == nil
	return err
}

// Retire unpins the maps of other versions. Call it when no program uses them any more, or at least none that matters.
func (d *Datapath) Retire() error {
	all, err := sets(d.dir)
	if err != nil {
		return err
	}
	for _, n := range all {
		if set := setDir(d.dir, n); set != d.plan.set {
			if err := removeSet(set); err != nil {
				return err
			}
		}
	}
	return nil
}

// Program gives a program by its name for attaching, or nil if there is none of that name.
func (d *Datapath) Program(name string) *ebpf.Program {
	switch name {
	case MailIngress:
		return d.objects.MailIngress
	case MailIngressL3:
		return d.objects.MailIngressL3
	case UplinkIngress:
		return d.objects.UplinkIngress
	case UplinkIngressL3:
		return d.objects.UplinkIngressL3
	case UplinkGuard:
		return d.objects.UplinkGuard
	case UplinkGuardL3:
		return d.objects.UplinkGuardL3
	case DoorIngress:
		return d.objects.DoorIngress
	case RoomIngress:
		return d.objects.RoomIngress
	}
	return nil
}

// Close lets go of maps and programs; pins and attachments stay.
func (d *Datapath) Close() error {
	var errs []error
	d.sourcing.Lock()
	if d.quick != nil {
		errs = append(errs, d.quick.takeAll(), d.quick.close()) // an older version would not take what was counted
		d.quick = nil
	}
	if d.slots != nil {
		errs = append(errs, d.slots.close())
	}
	d.sourcing.Unlock()
	for _, f := range []*os.File{d.heart, d.hurry} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(append(errs, d.objects.Close())...)
}

// Remove unpins every map of ours in dir, whichever version made it; a folder that is away is no error.
func Remove(dir string) error {
	all, err := sets(dir)
	if err != nil {
		return err
	}
	for _, n := range all {
		if err := removeSet(setDir(dir, n)); err != nil {
			return err
		}
	}
	return nil
}
