package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// quickTable holds the entries of source_hosts once more, in memory that the programs read in one go; see quick_hosts. It is
// written through a mapping while they read: of a cell the address first, then, as one word, what is said of it.
type quickTable struct {
	m       *ebpf.Map
	memory  []byte
	buckets []quickBucket // but the head
	lines   []quickBucket // for what does not fit into a cell
	free    []uint32      // of them, the longest unused first
	seed    uint64
}

type quickCell struct{ addr, what uint64 }

type quickBucket [4]quickCell

const (
	fewBuckets     = 1024 // 64 KiB
	hostsPerBucket = 2    // of four that there is room for; a table with more is made anew
)

// newQuickTable makes an empty one with room for so many hosts, some of which may be bound.
func newQuickTable(hosts, bound int, seed uint64) (*quickTable, error) {
	n, lines := fewBuckets, fewBuckets/16+2*bound
	if hosts > hostsPerBucket*n {
		n = 1 << bits.Len(uint((hosts-1)/hostsPerBucket))
	}
	m, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "quick_hosts", Type: ebpf.Array, KeySize: 4, ValueSize: uint32(unsafe.Sizeof(quickBucket{})), MaxEntries: uint32(1 + n + lines),
		Flags: unix.BPF_F_MMAPABLE | unix.BPF_F_INNER_MAP,
	})
	if err != nil {
		return nil, fmt.Errorf("could not make a quick table of %d hosts: %w", hosts, err)
	}
	t := &quickTable{m: m, seed: seed}
	if t.memory, err = mapArray(m, unix.PROT_READ|unix.PROT_WRITE); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	all := unsafe.Slice((*quickBucket)(unsafe.Pointer(&t.memory[0])), 1+n+lines)
	all[0][0].addr, t.buckets, t.lines = uint64(n-1), all[1:1+n], all[1+n:]
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
func (t *quickTable) put(k mailHostKey, s mailSource) {
	b, addr, kind := t.bucket(k)
	if b == nil {
		return
	}
	what := kind << mailNumberQUICK_KIND
	if s.Flags&^mailSourceFlagSOURCE_RPF != 0 {
		what |= 1<<mailNumberQUICK_BOUND | t.line(s)
	} else {
		what |= quickWord(s)
	}
	free := -1
	for i := range b {
		switch is := b[i].what >> mailNumberQUICK_KIND; {
		case is == kind && b[i].addr == addr:
			t.unline(atomic.SwapUint64(&b[i].what, what))
			return
		case is == 0, is == uint64(mailNumberQUICK_GONE):
			free = i
		}
	}
	if free >= 0 {
		atomic.StoreUint64(&b[free].addr, addr)
		atomic.StoreUint64(&b[free].what, what)
		return
	}
	t.unline(what)
}

// line writes a bound source and returns the number of its line, 0 where there is none left.
func (t *quickTable) line(s mailSource) uint64 {
	if len(t.free) == 0 {
		return 0
	}
	i := t.free[0]
	t.free = t.free[1:]
	*(*mailSource)(unsafe.Pointer(&t.lines[i])) = s
	return uint64(1+len(t.buckets)) + uint64(i)
}

// unline frees the line that a cell spoke of. Others take it first, since a program may be reading it.
func (t *quickTable) unline(what uint64) {
	if i := uint32(what); what>>mailNumberQUICK_BOUND&1 != 0 && i != 0 {
		t.free = append(t.free, i-uint32(1+len(t.buckets)))
	}
}

// remove takes an entry away that source_hosts no longer has. What once found its bucket full is looked for there for good.
func (t *quickTable) remove(k mailHostKey) {
	b, addr, kind := t.bucket(k)
	if b == nil {
		return
	}
	gone := uint64(mailNumberQUICK_GONE) << mailNumberQUICK_KIND
	for i := range b {
		if b[i].what == 0 {
			gone = 0
		}
	}
	for i := range b {
		if b[i].what>>mailNumberQUICK_KIND == kind && b[i].addr == addr {
			t.unline(atomic.SwapUint64(&b[i].what, gone))
		}
	}
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
	if d.quick != nil && hosts <= hostsPerBucket*len(d.quick.buckets) && bound <= len(d.quick.lines) {
		return nil
	}
	d.mu.Lock()
	seed := d.config.Seed
	d.mu.Unlock()
	t, err := newQuickTable(hosts, bound, seed)
	if err != nil {
		return err
	}
	if err = eachEntry(d.objects.SourceHosts, t.put); err == nil {
		if err = d.objects.QuickHosts.Put(uint32(0), t.m); err != nil {
			err = fmt.Errorf("could not write map quick_hosts: %w", err)
		}
	}
	if err != nil {
		return errors.Join(err, t.close())
	}
	old := d.quick
	d.quick = t
	if old != nil {
		err = old.close()
	}
	return errors.Join(err, d.setFlags(mailConfigFlagCONFIG_QUICK, 0))
}

// slowly leaves the quick table after a change that failed half-way: the next replacement of all sources makes another one.
func (d *Datapath) slowly(why error) error {
	err := d.setFlags(0, mailConfigFlagCONFIG_QUICK)
	if d.quick != nil {
		err = errors.Join(err, d.quick.close())
		d.quick = nil
	}
	return errors.Join(why, err)
}
