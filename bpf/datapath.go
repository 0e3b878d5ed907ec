package bpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
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
)

// Options say how large the tables may grow; zero means the default. A pinned table that is larger stays.
type Options struct {
	MaxHosts uint32 // sources of one address or one /64; default 131,072
	MaxNets  uint32 // other sources; default 131,072
	MaxLocks uint32 // default 131,072
	MaxUsers uint32 // users with counters; default 131,072
}

// sizes names the maps that Options may enlarge.
func (o Options) sizes() map[string]uint32 {
	return map[string]uint32{
		"source_hosts": o.MaxHosts, "source_nets": o.MaxNets, "locks": o.MaxLocks, "user_counters": o.MaxUsers,
	}
}

// Datapath is one set of pinned maps with programs loaded upon them. Its methods may be called at the same time.
type Datapath struct {
	dir      string
	replaced []string
	objects  mailObjects
	heart    *os.File // a copy of the heartbeat map's descriptor

	mu     sync.Mutex // guards config, which has several writers
	config mailConfig
}

// Open loads the programs and adopts the maps pinned in dir, a folder in a bpffs that exists, or makes and pins them.
// A pinned map of another layout is replaced by an empty one: see Replaced. Nothing is attached. It needs CAP_BPF,
// CAP_NET_ADMIN and CAP_PERFMON.
func Open(dir string, o Options) (*Datapath, error) {
	spec, err := loadMail()
	if err != nil {
		return nil, fmt.Errorf("could not read the built-in programs: %w", err)
	}
	d := &Datapath{dir: dir}
	if d.replaced, err = adopt(dir, spec, o); err != nil {
		return nil, err
	}
	err = spec.LoadAndAssign(&d.objects, &ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: dir}})
	if err != nil {
		return nil, fmt.Errorf("could not load the programs with maps in %s: %w; is it on a bpffs, and are CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON there?", dir, err)
	}
	if err := d.start(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
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
	if d.config.Layout != 0 {
		return nil
	}
	now, err := monotonic()
	if err != nil {
		return err
	}
	d.config = mailConfig{Layout: mailNumberLAYOUT, StartNs: now}
	d.config.Fallback.Mode = mailModeMODE_PASS // nothing is touched before SetConfig
	return d.writeConfig()
}

// adopt prepares the spec so that loading finds compatible pins only, and removes the others; it gives their names.
func adopt(dir string, spec *ebpf.CollectionSpec, o Options) ([]string, error) {
	stale, err := staleLayout(dir)
	if err != nil {
		return nil, err
	}
	sizes := o.sizes()
	var replaced []string
	for name, ms := range spec.Maps {
		if strings.HasPrefix(name, ".") { // a section of the object, not a map of ours
			continue
		}
		ms.Pinning = ebpf.PinByName
		size, grows := sizes[name]
		if size != 0 {
			ms.MaxEntries = size
		}
		gone, err := adoptMap(filepath.Join(dir, name), ms, grows, stale)
		if err != nil {
			return nil, err
		}
		if gone {
			replaced = append(replaced, name)
		}
	}
	return replaced, nil
}

// adoptMap tells whether the pin did not fit and was removed.
func adoptMap(path string, ms *ebpf.MapSpec, grows, stale bool) (bool, error) {
	m, err := ebpf.LoadPinnedMap(path, nil)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("could not open the pinned map %s: %w", path, err)
	}
	defer m.Close()
	if grows && m.MaxEntries() > ms.MaxEntries {
		ms.MaxEntries = m.MaxEntries()
	}
	if !stale && ms.Compatible(m) == nil {
		return false, nil
	}
	if err := os.Remove(path); err != nil {
		return false, fmt.Errorf("could not remove the pinned map %s, whose layout is another one: %w", path, err)
	}
	return true, nil
}

// staleLayout tells whether the pinned set was written by a program with another LAYOUT.
func staleLayout(dir string) (bool, error) {
	path := filepath.Join(dir, "config")
	m, err := ebpf.LoadPinnedMap(path, nil)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("could not open the pinned map %s: %w", path, err)
	}
	defer m.Close()
	value, err := m.LookupBytes(uint32(0))
	if err != nil {
		return false, fmt.Errorf("could not read the pinned map %s: %w", path, err)
	}
	if len(value) < 4 {
		return true, nil
	}
	layout := uint32(value[0]) | uint32(value[1])<<8 | uint32(value[2])<<16 | uint32(value[3])<<24
	return layout != 0 && layout != uint32(mailNumberLAYOUT), nil
}

// Replaced names the pinned maps that Open could not adopt and made anew, empty. Programs that are attached go on with the
// old ones until they are swapped, so fill the new maps first. If "heartbeat" is among them the proxy must get the new one.
func (d *Datapath) Replaced() []string { return d.replaced }

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
	}
	return nil
}

// Close lets go of maps and programs; pins and attachments stay.
func (d *Datapath) Close() error {
	if d.heart == nil {
		return d.objects.Close()
	}
	return errors.Join(d.heart.Close(), d.objects.Close())
}

// Remove unpins every map of ours in dir, whoever made it; a folder that is away is no error.
func Remove(dir string) error {
	spec, err := loadMail()
	if err != nil {
		return fmt.Errorf("could not read the built-in programs: %w", err)
	}
	for name := range spec.Maps {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("could not unpin map %s: %w", name, err)
		}
	}
	return nil
}
