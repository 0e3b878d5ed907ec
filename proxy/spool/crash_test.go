package spool

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/proxy/smtp"
)

var errNoSpace = fmt.Errorf("write: %w", syscall.ENOSPC)

// ledger is what a world outside the spool knows of each delivery: what was promised, and what was done.
type ledger struct {
	mu    sync.Mutex
	owed  map[ID]*owing
	told  int // commits that returned nil
	done  int // deliveries whose end returned nil
	again int // deliveries that ended twice, the first end not having been on disk
}

// owing is one delivery.
type owing struct {
	text   string
	left   uint64   // after the last change that returned nil
	maybe  []uint64 // after changes that did not return before the program ended
	tried  bool     // somebody has it leased
	unsure bool     // nobody was told that it is kept
	ended  bool     // a change without recipients left returned nil
	held   bool     // it came to be held, and nobody has released it
}

// life is one run of a program on the disk.
type life struct {
	t    *testing.T
	s    *Spool
	l    *ledger
	seed uint64
}

// work does what a gateway does, until the spool fails or enough was done.
func (f *life) work(workers, steps int) {
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(f.seed, uint64(w)))
			for range steps {
				if !f.step(r) {
					return
				}
			}
		})
	}
	wg.Wait()
}

func (f *life) step(r *rand.Rand) bool {
	var err error
	switch k := r.IntN(10); {
	case k < 5:
		err = f.arrive(r, nil)
	case k < 9:
		err = f.try(r)
	default:
		err = f.operate(r)
	}
	return err == nil || errors.Is(err, ErrFull) || errors.Is(err, ErrUnknown) || errors.Is(err, ErrBusy) || errors.Is(err, ErrHeld)
}

// arrive commits a message, as the consequence of l where that is not nil.
func (f *life) arrive(r *rand.Rand, settle func(*Draft, *Envelope, *smtp.Body) ([]ID, error)) error {
	d, err := f.s.Create()
	if err != nil {
		return err
	}
	defer d.Abort()
	text := message(r.IntN(100_000))
	b := smtp.NewBody(&smtp.DataOptions{MaxMemory: 16 << 10, OpenSpill: d.OpenSpill})
	defer b.Release()
	if r.IntN(8) == 0 {
		text += strings.Repeat("large\r\n", 4000)
	}
	if err = b.Append([]byte(text)); err == nil {
		err = b.Finish()
	}
	if err != nil {
		return err
	}
	env := to("a@one.example", "b@one.example")
	if r.IntN(4) == 0 {
		env = to("a@one.example", "b@two.example", "c@three.example", "d@two.example")
	}
	var ids []ID
	held := settle == nil && r.IntN(4) == 0
	switch {
	case settle != nil:
		ids, err = settle(d, env, b)
	case held:
		ids, err = d.CommitHeld(env, nil, b, "looked at")
	default:
		ids, err = d.Commit(env, nil, b)
	}
	if err != nil {
		return err
	}
	f.l.mu.Lock()
	defer f.l.mu.Unlock()
	f.l.told++
	for i, id := range ids {
		left := uint64(1)
		if len(ids) == 1 || i == 1 {
			left = 0b11
		}
		f.l.owed[id] = &owing{text: text, left: left, held: held}
	}
	return nil
}

// pick takes some delivery that is known to be owed.
func (f *life) pick(r *rand.Rand) (ID, *owing) {
	f.l.mu.Lock()
	defer f.l.mu.Unlock()
	var ids []ID
	for id, o := range f.l.owed {
		if !o.ended && !o.tried {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return 0, nil
	}
	slices.Sort(ids)
	id := ids[r.IntN(len(ids))]
	f.l.owed[id].tried = true
	return id, f.l.owed[id]
}

func (f *life) unpick(o *owing) {
	f.l.mu.Lock()
	defer f.l.mu.Unlock()
	o.tried = false
}

// try leases a delivery and settles it in one of the ways there are.
func (f *life) try(r *rand.Rand) error {
	id, o := f.pick(r)
	if o == nil {
		return nil
	}
	defer f.unpick(o)
	l, err := f.s.Lease(id)
	if err != nil {
		return err
	}
	text, err := readText(l)
	if err != nil {
		return err
	}
	if text != o.text {
		f.t.Errorf("delivery %v holds another message", id)
	}
	st := l.State
	if st.Left&(st.Left-1) != 0 && r.IntN(2) == 0 { // the first of several, and the try goes on
		st.Left &= st.Left - 1
		if err := f.note(id, st.Left, func() error { return l.Progress(st) }); err != nil {
			return err
		}
	}
	st.Attempts++
	how := r.IntN(10)
	switch {
	case how < 5:
		st.Left = 0
	case how < 7:
		st.Left &= st.Left - 1
	case how == 7:
		st.Due = time.Now().Add(time.Hour)
	case how == 8:
		return l.Return()
	default:
		also := f.others(l)
		change := func() error {
			return f.arrive(r, func(d *Draft, env *Envelope, b *smtp.Body) ([]ID, error) {
				st.Left &= st.Left - 1
				return l.SettleWith(st, d, env, b, also...)
			})
		}
		for i, a := range also {
			also[i].State.Left &= a.State.Left - 1
			also[i].State.Replies = []Reply{{Code: 550, Final: true}}
			inner := change
			change = func() error { return f.note(a.ID, also[i].State.Left, inner) }
			defer f.unpick(f.l.of(a.ID))
		}
		return f.note(id, st.Left&(st.Left-1), change)
	}
	return f.note(id, st.Left, func() error { return l.Settle(st) })
}

// others claims further deliveries of the message of l that nobody tries.
func (f *life) others(l *Lease) (also []Settled) {
	var ids []ID
	l.Each(func(d *Delivery) bool { ids = append(ids, d.ID); return true })
	for _, id := range ids {
		f.l.mu.Lock()
		o := f.l.owed[id]
		free := o != nil && !o.tried && !o.ended
		if free {
			o.tried = true
		}
		f.l.mu.Unlock()
		if !free {
			continue
		}
		c, err := f.s.Claim(id)
		if err != nil { // it is on hold, or the spool has failed
			f.unpick(o)
			continue
		}
		also = append(also, Settled{Lease: c, State: c.State})
	}
	return also
}

func (l *ledger) of(id ID) *owing {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.owed[id]
}

// note notes a change of a delivery around it.
func (f *life) note(id ID, left uint64, change func() error) error {
	f.l.mu.Lock()
	o := f.l.owed[id]
	o.maybe = append(o.maybe, left)
	f.l.mu.Unlock()
	err := change()
	f.l.mu.Lock()
	defer f.l.mu.Unlock()
	if err == nil {
		o.left, o.maybe, o.unsure = left, nil, false
		if left == 0 {
			o.ended = true
			f.l.done++
		}
	}
	return err
}

func (f *life) operate(r *rand.Rand) error {
	id, o := f.pick(r)
	if o == nil {
		return nil
	}
	defer f.unpick(o)
	switch r.IntN(3) {
	case 0:
		return f.s.Hold(id, "test")
	case 1:
		f.l.mu.Lock()
		o.held = false
		f.l.mu.Unlock()
		return f.s.Release(id)
	}
	return f.s.Retry(id)
}

// audit compares what is there with what was promised, and takes over what was unsure.
func (f *life) audit(when string) {
	f.t.Helper()
	f.l.mu.Lock()
	defer f.l.mu.Unlock()
	there := map[ID]*Delivery{}
	f.s.Each(0, func(d *Delivery) bool {
		there[d.ID] = d
		return true
	})
	for id, o := range f.l.owed {
		d := there[id]
		delete(there, id)
		o.tried = false
		left := uint64(0)
		if d != nil {
			l, err := f.s.Look(id)
			if err != nil {
				f.t.Errorf("%s: delivery %v: %v", when, id, err)
				continue
			}
			if text, err := readText(l); err != nil || text != o.text {
				f.t.Errorf("%s: delivery %v holds another message: %v", when, id, err)
			}
			if left = l.State.Left; o.held && (!d.Held || l.State.Hold == "") {
				f.t.Errorf("%s: delivery %v came to be held, and is free", when, id)
			}
		}
		switch {
		case d != nil && o.ended:
			f.t.Errorf("%s: delivery %v was done, and is in the queue again", when, id)
		case d == nil && o.ended:
			delete(f.l.owed, id)
			continue
		case left == o.left || slices.Contains(o.maybe, left) || left == 0 && o.unsure:
			if left != 0 && slices.Contains(o.maybe, 0) {
				f.l.again++
			}
		default:
			f.t.Errorf("%s: of delivery %v recipients %b are open; %b was promised, %b possible", when, id, left, o.left, o.maybe)
		}
	}
	for id := range there { // a commit that nobody was told of
		l, err := f.s.Look(id)
		if err != nil {
			f.t.Errorf("%s: delivery %v: %v", when, id, err)
			continue
		}
		text, err := readText(l)
		if err != nil {
			f.t.Errorf("%s: delivery %v: %v", when, id, err)
		}
		f.l.owed[id] = &owing{text: text, left: l.State.Left, unsure: true}
	}
}

// campaign lives many lives on one disk, each ended by what fault says.
func campaign(t *testing.T, seed uint64, lives int, fault func(r *rand.Rand, d *simDisk) (power bool)) *ledger {
	d := newSimDisk(seed)
	l := &ledger{owed: map[ID]*owing{}}
	r := rand.New(rand.NewPCG(seed, 2))
	for n := range lives {
		a := &alarms{}
		o := Options{SegmentSize: 24 << 10, Alarm: a.hear, Crashes: 1 << 20, disk: d, whenFull: time.Millisecond}
		power := fault(r, d)
		s, err := Open("simulated", o)
		if err == nil {
			f := &life{t: t, s: s, l: l, seed: seed + uint64(n)<<20}
			f.audit(fmt.Sprintf("seed %d, life %d, at its start", seed, n))
			f.work(3, 8)
			d.mu.Lock()
			if d.room >= 0 {
				d.room = -1
			}
			d.mu.Unlock()
			s.Close() // its errors are those that were put there
		} else if !d.stopped() && !errors.Is(err, syscall.EIO) && !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("seed %d, life %d: %v", seed, n, err)
		}
		d.restart(power)
		if t.Failed() {
			t.FailNow()
		}
	}
	// At the end all is delivered, and nothing stays on disk.
	a := &alarms{}
	s, err := Open("simulated", Options{SegmentSize: 24 << 10, Alarm: a.hear, disk: d})
	if err != nil {
		t.Fatal(err)
	}
	f := &life{t: t, s: s, l: l}
	f.audit(fmt.Sprintf("seed %d, at the end", seed))
	for _, id := range slices.Sorted(maps.Keys(l.owed)) {
		if o := l.owed[id]; o.ended || s.Release(id) != nil && (o.unsure || slices.Contains(o.maybe, 0)) {
			continue
		}
		if err := f.note(id, 0, func() error { return lease(t, s, id).Settle(State{}) }); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open("simulated", Options{disk: d}); err != nil {
		t.Fatal(err)
	}
	if left := all(s); len(left) > 0 {
		t.Errorf("seed %d: %d deliveries are left", seed, len(left))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if names, _ := d.list(); len(names) > 0 {
		for _, g := range s.segs {
			t.Logf("%s stamp %d: live %d, refs %v, pins %d, kept %t, suspect %t, sealed %t size %d", g.name, g.head.stamp, g.live, g.refs, g.pins, g.kept, g.suspect, g.sealed, g.size)
		}
		t.Errorf("seed %d: %d files are left, such as %v", seed, len(names), names[:min(len(names), 3)])
	}
	if a.String() != "" {
		t.Errorf("seed %d: alarms: %v", seed, a)
	}
	return l
}

// points tells how many crash points are to be tried.
func points(t *testing.T, few int) int {
	if n, err := strconv.Atoi(os.Getenv("SLUICE_SOAK")); err == nil {
		return n
	} else if testing.Short() {
		return few / 10
	}
	return few
}

func TestCrashesLoseNothing(t *testing.T) {
	t.Parallel()
	const lives = 25
	var told, done, again int
	n := points(t, 250)
	for seed := range uint64(n / lives) {
		l := campaign(t, seed+1, lives, func(r *rand.Rand, d *simDisk) bool {
			d.fault = fault{at: 1 + r.IntN(120)}
			return r.IntN(2) == 0
		})
		told, done, again = told+l.told, done+l.done, again+l.again
	}
	t.Logf("%d crashes: %d commits returned, %d deliveries ended once, %d of them had ended before without that being on disk", n, told, done, again)
	if told < n || done < told {
		t.Errorf("the campaign did too little: %d commits, %d ends", told, done)
	}
}

func TestFailingDiskLosesNothing(t *testing.T) {
	t.Parallel()
	const lives = 25
	n := points(t, 250)
	for seed := range uint64(n / lives) {
		campaign(t, seed+100_001, lives, func(r *rand.Rand, d *simDisk) bool {
			switch r.IntN(3) {
			case 0:
				d.fault = fault{at: 1 + r.IntN(100), err: syscall.EIO, partly: true}
			case 1:
				d.fault = fault{at: 1 + r.IntN(100), err: errNoSpace, partly: true}
			default:
				d.room = r.Int64N(200 << 10)
			}
			return r.IntN(2) == 0
		})
	}
	t.Logf("%d lives on failing disks", n)
}
