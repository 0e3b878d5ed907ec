package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// Observer copies the beginnings of observed flows at the interfaces it was given. It holds its programs itself, so they
// leave with the process, and mail goes on.
type Observer struct {
	objects observeObjects
	links   map[int][]link.Link // by interface
	ring    *ringbuf.Reader
	record  ringbuf.Record
	set     *os.File // folder of the maps that are shared with mail_ingress
}

// Segment is a piece of one direction of an observed flow.
type Segment struct {
	Client, Server netip.AddrPort
	Began          uint64 // tells the flow from an earlier one with the same addresses and ports
	Seq            uint32 // of the first byte of Data; of the SYN; or of the FIN
	FromServer     bool
	SYN, FIN, RST  bool // these come without Data
	Cut            bool // from Seq on this direction is not copied until it is Resumed
	Resumed        bool // from Seq on it is copied again: the other side has spoken
	Data           []byte
}

// Observed counts what an Observer did since it was opened.
type Observed struct {
	Flows    uint64 // begun
	Segments uint64 // handed over
	Lost     uint64 // found the ring full
	Unread   uint64 // bytes of a packet could not be read
}

// ObserveOptions say how much is copied.
type ObserveOptions struct {
	Limit uint32 // bytes of what a direction says before the other one speaks; 0: 8 KiB
	Ring  uint32 // bytes of the ring, a power of two of at least 4 KiB; 0: 4 MiB
}

// ObserveLink is an interface to observe; Raw has no Ethernet header.
type ObserveLink struct {
	Index int
	Raw   bool
}

// OpenObserver loads the passive programs upon the maps pinned in dir, which sluice-intercept made, and puts them behind
// everything else at each interface, see Attach. It needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON.
func OpenObserver(dir string, links []ObserveLink, o ObserveOptions) (*Observer, error) {
	spec, err := loadObserve()
	if err != nil {
		return nil, fmt.Errorf("could not read the built-in programs: %w", err)
	}
	if o.Limit != 0 {
		if err := spec.Variables["observe_limit"].Set(o.Limit); err != nil {
			return nil, fmt.Errorf("could not set the limit of a flow: %w", err)
		}
	}
	if o.Ring != 0 {
		spec.Maps["observe_ring"].MaxEntries = o.Ring
	}
	set, err := onlySet(dir)
	if err != nil {
		return nil, err
	}
	shared, err := sharedMaps(set, spec)
	defer func() {
		for _, m := range shared {
			_ = m.Close() // the programs hold what they use
		}
	}()
	if err != nil {
		return nil, err
	}
	obs := new(Observer)
	if obs.set, err = os.Open(set); err != nil {
		return nil, fmt.Errorf("could not open the folder of the pinned maps: %w", err)
	}
	if err := spec.LoadAndAssign(&obs.objects, &ebpf.CollectionOptions{MapReplacements: shared}); err != nil {
		err = fmt.Errorf("could not load the passive programs: %w; are CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON there?", err)
		return nil, errors.Join(err, obs.set.Close())
	}
	if err := obs.start(links); err != nil {
		return nil, errors.Join(err, obs.Close())
	}
	return obs, nil
}

// sharedMaps opens the pinned maps of mail_ingress in place of those of the spec.
func sharedMaps(set string, spec *ebpf.CollectionSpec) (map[string]*ebpf.Map, error) {
	out := make(map[string]*ebpf.Map)
	for name, ms := range spec.Maps {
		if strings.HasPrefix(name, "observe") || isSection(name) { // of our own
			continue
		}
		m, err := openShared(set, name, ms)
		if err != nil {
			return out, err
		}
		out[name] = m
		ms.MaxEntries = m.MaxEntries() // tables may have grown
	}
	return out, nil
}

func (o *Observer) start(links []ObserveLink) (err error) {
	for _, l := range links {
		if err := o.Attach(l); err != nil {
			return err
		}
	}
	if o.ring, err = ringbuf.NewReader(o.objects.ObserveRing); err != nil {
		return fmt.Errorf("could not open the ring buffer: %w", err)
	}
	return nil
}

// Programs are those for the two hooks of an interface.
func (o *Observer) Programs(raw bool) (ingress, egress *ebpf.Program) {
	if raw {
		return o.objects.ObserveIngressL3, o.objects.ObserveEgressL3
	}
	return o.objects.ObserveIngress, o.objects.ObserveEgress
}

// Attach puts the programs behind everything else at an interface, by tcx (Linux 6.6). They leave with the process.
func (o *Observer) Attach(l ObserveLink) error {
	in, out := o.Programs(l.Raw)
	err := errors.Join(o.attach(l.Index, in, ebpf.AttachTCXIngress), o.attach(l.Index, out, ebpf.AttachTCXEgress))
	if err != nil {
		return errors.Join(err, o.Detach(l.Index))
	}
	return nil
}

// Detach takes them away; an interface that is gone, or never had them, is no error.
func (o *Observer) Detach(index int) error {
	var errs []error
	for _, l := range o.links[index] {
		errs = append(errs, l.Close())
	}
	delete(o.links, index)
	return errors.Join(errs...)
}

// attach puts a program at the tail: mail_ingress, at the head, has decided before.
func (o *Observer) attach(index int, prog *ebpf.Program, at ebpf.AttachType) error {
	l, err := link.AttachTCX(link.TCXOptions{Interface: index, Program: prog, Attach: at, Anchor: link.Tail()})
	if err != nil {
		return fmt.Errorf("could not observe interface %d by tcx: %w", index, err)
	}
	if o.links == nil {
		o.links = make(map[int][]link.Link)
	}
	o.links[index] = append(o.links[index], l)
	return nil
}

// segmentData is where the data of a record begins.
const segmentData = 56

// ReadRaw waits for the next record until the deadline; it is valid until the next call, and what it says is a stranger's:
// see ParseSegment. The error is os.ErrDeadlineExceeded when there was none, and ringbuf.ErrClosed after Close.
func (o *Observer) ReadRaw(until time.Time) ([]byte, error) {
	o.ring.SetDeadline(until)
	if err := o.ring.ReadInto(&o.record); err != nil {
		return nil, err
	}
	return o.record.RawSample, nil
}

// Waiting tells whether records are there to be read.
func (o *Observer) Waiting() bool { return o.ring.AvailableBytes() > 0 }

// Read waits for the next segment as ReadRaw does; its Data is valid until the next call.
func (o *Observer) Read(until time.Time) (Segment, error) {
	b, err := o.ReadRaw(until)
	if err != nil {
		return Segment{}, err
	}
	return ParseSegment(b)
}

// ParseSegment reads a record of the ring.
func ParseSegment(b []byte) (s Segment, err error) {
	if len(b) < segmentData {
		return s, fmt.Errorf("a record of %d bytes", len(b))
	}
	family := binary.NativeEndian.Uint16(b[36:])
	s.Client = netip.AddrPortFrom(segmentAddr(family, b[0:16]), binary.BigEndian.Uint16(b[32:]))
	s.Server = netip.AddrPortFrom(segmentAddr(family, b[16:32]), binary.BigEndian.Uint16(b[34:]))
	s.Began = binary.NativeEndian.Uint64(b[40:])
	s.Seq = binary.NativeEndian.Uint32(b[48:])
	size := int(binary.NativeEndian.Uint16(b[52:]))
	s.FromServer = b[54] != 0
	s.FIN, s.SYN, s.RST, s.Cut, s.Resumed = b[55]&1 != 0, b[55]&2 != 0, b[55]&4 != 0, b[55]&0x40 != 0, b[55]&0x80 != 0
	if len(b) < segmentData+size {
		return s, fmt.Errorf("a record of %d bytes that tells of %d", len(b), size)
	}
	s.Data = b[segmentData : segmentData+size]
	return s, nil
}

func segmentAddr(family uint16, b []byte) netip.Addr {
	if family == 4 {
		return netip.AddrFrom4([4]byte(b))
	}
	return netip.AddrFrom16([16]byte(b))
}

// Counts returns the counters. Lost tells of records that the reader was too slow for.
func (o *Observer) Counts() (Observed, error) {
	var n [4]uint64 // enum observed_count
	for i := range n {
		var perCPU []uint64
		if err := o.objects.ObserveCounts.Lookup(uint32(i), &perCPU); err != nil {
			return Observed{}, fmt.Errorf("could not read map observe_counts: %w", err)
		}
		for _, v := range perCPU {
			n[i] += v
		}
	}
	return Observed{Flows: n[0], Segments: n[1], Lost: n[2], Unread: n[3]}, nil
}

// Close detaches the programs; mail goes on.
func (o *Observer) Close() error {
	var errs []error
	for index := range o.links {
		errs = append(errs, o.Detach(index))
	}
	if o.ring != nil {
		errs = append(errs, o.ring.Close())
	}
	if o.set != nil {
		errs = append(errs, o.set.Close())
	}
	return errors.Join(append(errs, o.objects.Close())...)
}

// Superseded tells whether the maps that mail_ingress uses are others by now: an upgrade of sluice-intercept has made new
// ones, and what this observer reads of sources is old. It needs no rights.
func (o *Observer) Superseded() bool {
	var st unix.Stat_t
	err := unix.Fstat(int(o.set.Fd()), &st)
	return err == nil && st.Nlink == 0 // the folder was removed
}
