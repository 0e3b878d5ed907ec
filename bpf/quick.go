package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// quickTable holds the entries of source_hosts once more, in memory that the programs read in one go; see host_cells. It is
// written through a mapping while they read: of a cell the address first, then, as one word, what is said of it. They write
// there how many connections went as that says; before it changes, those are added to the user's (see turn).
type quickTable struct {
	m       *ebpf.Map
	memory  []byte
	buckets []quickBucket // but the head
	lines   []quickLine   // for what does not fit into a cell
	free    []uint32      // of them, the longest unused first
	seed    uint64
	slots   *userSlots
	turning map[*quickCell]inTurn
}

// quickBucket is struct host_bucket, of which a cell is struct host_cell.
type quickBucket struct {
	cell  [mailNumberQUICK_CELLS]quickCell
	count [mailNumberQUICK_CELLS]uint32
	asked uint32
}

type quickCell struct{ addr, what uint64 }

// quickLine is struct host_line.
type quickLine struct {
	source mailSource
	_      [7]uint32
	addr   uint64
}

const fewBuckets = 1024 // 64 KiB

// crowded tells whether so many hosts are too many for so many buckets, of which each has room for three: a table with more is
// made anew.
func crowded(hosts, buckets int) bool { return hosts > buckets+buckets/2 }

// newQuickTable makes an empty one with room for so many hosts, some of which may be bound.
func newQuickTable(hosts, bound int, seed uint64, slots *userSlots) (*quickTable, error) {
	n, lines := fewBuckets, fewBuckets/16+2*bound
	for crowded(hosts, n) {
		n *= 2
	}
	m, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "host_cells", Type: ebpf.Array, KeySize: 4, ValueSize: uint32(unsafe.Sizeof(quickBucket{})), MaxEntries: uint32(1 + n + lines),
		Flags: unix.BPF_F_MMAPABLE | unix.BPF_F_INNER_MAP,
	})
	if err != nil {
		return nil, fmt.Errorf("could not make a quick table of %d hosts: %w", hosts, err)
	}
	t := &quickTable{m: m, seed: seed, slots: slots}
	if t.memory, err = mapArray(m, unix.PROT_READ|unix.PROT_WRITE); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	all := unsafe.Slice((*quickBucket)(unsafe.Pointer(&t.memory[0])), 1+n+lines)
	all[0].cell[0].addr, t.buckets = uint64(n-1), all[1:1+n]
	t.lines = unsafe.Slice((*quickLine)(unsafe.Pointer(unsafe.SliceData(all[1+n:]))), lines)
	for i := range lines {
		t.free = append(t.free, uint32(i))
	}
	return t, nil
}

func (t *quickTable) close() error { return errors.Join(unix.Munmap(t.memory), t.m.Close()) }

// bucket finds where an address belongs, and how a cell that has it looks; nil is for what has no place here.
func (t *quickTable) bucket(k mailHostKey) (b *quickBucket, addr, kind uint64) {
	switch {
	case k.Family == uint16(mailFamilyFAMILY_4):
		addr, kind = uint64(binary.LittleEndian.Uint32(k.Addr[:])), uint64(mailNumberQUICK_4)
	case k.Bits == 64:
		addr, kind = binary.LittleEndian.Uint64(k.Addr[:]), uint64(mailNumberQUICK_6)
	default:
		return nil, 0, 0
	}
	return &t.buckets[mix(mix(t.seed, addr), uint64(k.Family))&uint64(len(t.buckets)-1)], addr, kind
}

// put writes an entry that source_hosts has already; where the bucket is full it is there only.
func (t *quickTable) put(k mailHostKey, s mailSource) error {
	b, addr, kind := t.bucket(k)
	if b == nil {
		return nil
	}
	what := kind << mailNumberQUICK_KIND
	if s.Flags&^mailSourceFlagSOURCE_RPF != 0 {
		what |= 1<<mailNumberQUICK_BOUND | t.line(s, addr)
	} else {
		what |= quickWord(s)
	}
	free := -1
	for i := range b.cell {
		switch is := b.cell[i].what >> mailNumberQUICK_KIND; {
		case is == kind && b.cell[i].addr == addr:
			return t.turn(b, i, what)
		case is == 0, is == uint64(mailNumberQUICK_GONE):
			free = i
		}
	}
	if free >= 0 {
		atomic.StoreUint32(&b.count[free], 0)
		atomic.StoreUint64(&b.cell[free].addr, addr)
		atomic.StoreUint64(&b.cell[free].what, what)
		return nil
	}
	t.unline(what)
	for i := range b.cell { // it is not enough any more to look here
		if w, is := t.turning[&b.cell[i]]; is && w.what == 0 {
			w.what = uint64(mailNumberQUICK_GONE) << mailNumberQUICK_KIND
			t.turning[&b.cell[i]] = w
		}
	}
	return nil
}

// inTurn is a cell that is about to say something else.
type inTurn struct {
	b         *quickBucket
	i         int
	was, what uint64
}

const mostTurning = 1 << 16 // at once, for each of which memory has some 100 bytes

// turn changes what a cell says. Where connections are counted in it, a program may be about to count one more of who stood there:
// until none is, which settle waits for, the cell sends all programs to source_hosts. A packet waits for nothing.
func (t *quickTable) turn(b *quickBucket, i int, what uint64) error {
	c := &b.cell[i]
	if w, is := t.turning[c]; is {
		t.unline(w.what)
		w.what = what
		t.turning[c] = w
		return nil
	}
	was := c.what
	if was == what {
		return nil
	}
	if usual(was) == 0 {
		atomic.StoreUint64(&c.what, what)
		t.unline(was)
		return nil
	}
	atomic.StoreUint64(&c.what, was>>mailNumberQUICK_KIND<<mailNumberQUICK_KIND|1<<mailNumberQUICK_BOUND) // in no line
	if t.turning == nil {
		t.turning = map[*quickCell]inTurn{}
	}
	t.turning[c] = inTurn{b, i, was, what}
	return t.slots.take(b, i, was) // most of it, should the process end meanwhile
}

// turnAll has cells say what they were to, once no program is left that counts in them for what they said.
func (t *quickTable) turnAll() (err error) {
	for c, w := range t.turning {
		err = errors.Join(err, t.slots.take(w.b, w.i, w.was))
		atomic.StoreUint64(&c.what, w.what)
	}
	clear(t.turning)
	return err
}

// line writes a bound source and returns the number of its line, 0 where there is none left.
func (t *quickTable) line(s mailSource, addr uint64) uint64 {
	if len(t.free) == 0 {
		return 0
	}
	i := t.free[0]
	t.free = t.free[1:]
	t.lines[i].source, t.lines[i].addr = s, addr
	return uint64(1+len(t.buckets)) + uint64(i)
}

// unline frees the line that a cell spoke of. Others take it first, since a program may be reading it.
func (t *quickTable) unline(what uint64) {
	if i := uint32(what); what>>mailNumberQUICK_BOUND&1 != 0 && i != 0 {
		t.free = append(t.free, i-uint32(1+len(t.buckets)))
	}
}

// remove takes an entry away that source_hosts no longer has. What once found its bucket full is looked for there for good.
func (t *quickTable) remove(k mailHostKey) error {
	b, addr, kind := t.bucket(k)
	if b == nil {
		return nil
	}
	gone := uint64(mailNumberQUICK_GONE) << mailNumberQUICK_KIND
	for i := range b.cell {
		if b.cell[i].what == 0 {
			gone = 0
		}
	}
	for i := range b.cell {
		if b.cell[i].what>>mailNumberQUICK_KIND == kind && b.cell[i].addr == addr {
			return t.turn(b, i, gone)
		}
	}
	return nil
}

// quickWord packs what is said of a host that is not bound, but for the kind of its address.
func quickWord(s mailSource) uint64 {
	w := uint64(s.User) | uint64(s.SynRate)<<mailNumberQUICK_RATE | uint64(s.Owner)<<mailNumberQUICK_OWNER |
		uint64(s.Mode)<<mailNumberQUICK_MODE | uint64(s.Fail)<<mailNumberQUICK_FAIL
	if s.Flags&mailSourceFlagSOURCE_RPF != 0 {
		w |= 1 << mailNumberQUICK_RPF
	}
	return w
}

// quicken has the programs ask a quick table that holds what source_hosts does, with room for so many hosts, some of them
// bound.
func (d *Datapath) quicken(hosts, bound int) error {
	if d.quick != nil && !crowded(hosts, len(d.quick.buckets)) && bound <= len(d.quick.lines) {
		return nil
	}
	d.mu.Lock()
	seed := d.config.Seed
	d.mu.Unlock()
	t, err := newQuickTable(hosts, bound, seed, d.slots)
	if err != nil {
		return err
	}
	var full error
	err = eachEntry(d.objects.SourceHosts, func(k mailHostKey, s mailSource) { full = errors.Join(full, t.put(k, s)) })
	if err = errors.Join(err, full); err != nil {
		return errors.Join(err, t.close())
	}
	if err := d.install(t); err != nil { // the programs may ask it all the same, and nobody would write there
		return d.slowly(errors.Join(err, t.takeAll(), t.close()))
	}
	old := d.quick
	d.quick = t
	if old != nil {
		err = errors.Join(old.turnAll(), old.takeAll(), old.close())
	}
	return errors.Join(err, d.setFlags(mailConfigFlagCONFIG_QUICK, 0))
}

// slowly leaves the quick table after a change that failed half-way: the next replacement of all sources makes another one.
func (d *Datapath) slowly(why error) error {
	err := d.setFlags(0, mailConfigFlagCONFIG_QUICK)
	if d.quick != nil {
		err = errors.Join(err, d.outrun(), d.quick.turnAll(), d.quick.takeAll(), d.quick.close())
		d.quick = nil
	}
	return errors.Join(why, err)
}

// settle ends the changes of cells where there are at least so many. Should that fail, they stay as they are, which is right, if slow.
func (d *Datapath) settle(err *error, least int) {
	if d.quick == nil || len(d.quick.turning) < least {
		return
	}
	more := d.outrun()
	if more == nil {
		more = d.quick.turnAll()
	}
	*err = errors.Join(*err, more)
}

// outrun returns once no program runs any more that began before: the kernel waits for that after each change of a map of maps.
func (d *Datapath) outrun() error {
	if err := d.objects.HostCells.Put(uint32(0), d.quick.m); err != nil {
		return fmt.Errorf("could not write map host_cells: %w", err)
	}
	return nil
}
