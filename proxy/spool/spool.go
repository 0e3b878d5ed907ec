package spool

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// Options of a Spool; zero fields mean the defaults.
type Options struct {
	// SegmentSize is about how large one file becomes; 64 MiB.
	SegmentSize int64
	// MinFree is how many bytes of the file system messages leave free, so that what becomes of them can be written; 256 MiB,
	// of a small file system one part in twenty.
	MinFree uint64
	// Crashes is how often the program may crash during tries of one delivery before that is put on hold; 3.
	Crashes int
	// Kills is the same for ends of which nobody knows why, where nothing but that delivery was being tried; 10.
	Kills int
	// Now is the clock; time.Now.
	Now func() time.Time
	// Arrived hears, from the goroutine that committed it, of each new delivery, and of each that was taken over from a
	// generation that ended; may be nil. It must not wait for anything.
	Arrived func(*Delivery)
	// Alarm hears what an operator must know; may be nil.
	Alarm func(error)
	// Keep lets the generations that ended alone: Takeover is called when it is time.
	Keep bool

	disk     disk
	whenFull time.Duration // between two tries to write what has happened already; 1 s
}

// Spool is one. It is safe for concurrent use.
type Spool struct {
	d    disk
	o    Options
	tag  uint16
	lock io.Closer
	once sync.Once

	mu           sync.Mutex
	work, space  sync.Cond
	pending      []*op
	spare        []*op
	pendingBytes int64
	closing      bool
	bad          error
	starved      error // why mail is refused for lack of room
	x            index
	segs         map[uint32]*segment
	lastKey      uint32
	lastID       uint64               // the counter in it
	stamp        uint64               // of the youngest segment
	taken        map[uint16]io.Closer // locks of generations that ended
	tails        map[uint16]int       // files of large messages, by the tag in their name
	heldCount    int
	orphans      map[ID]*orphan
	half         bool // something of generations that ended could not be read: nothing is removed

	// Of the committing goroutine.
	cur       *segment
	number    uint32
	end       int64 // of the last good record
	durable   int64
	buf, idx  []byte
	committed chan struct{}

	room    roomCheck
	tidying chan struct{}
	tidied  chan struct{}
	quit    chan struct{}
	takeMu  sync.Mutex
}

// Open opens the spool in dir, which is made where it is missing, and takes over what generations without a living
// process left there.
func Open(dir string, o Options) (*Spool, error) {
	if o.disk == nil {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("could not make the spool's folder: %w", err)
		}
		o.disk = folder(dir)
	}
	or(&o.SegmentSize, 64<<20)
	or(&o.MinFree, 256<<20)
	or(&o.Crashes, 3)
	or(&o.Kills, 10)
	or(&o.whenFull, time.Second)
	if o.Now == nil {
		o.Now = time.Now
	}
	o.SegmentSize = min(o.SegmentSize, 1<<30)
	s := &Spool{d: o.disk, o: o, x: newIndex(), segs: map[uint32]*segment{}, taken: map[uint16]io.Closer{}, tails: map[uint16]int{}, orphans: map[ID]*orphan{},
		committed: make(chan struct{}), tidying: make(chan struct{}, 1), tidied: make(chan struct{}), quit: make(chan struct{})}
	s.work.L, s.space.L = &s.mu, &s.mu
	if err := s.start(); err != nil {
		return nil, fmt.Errorf("could not open the spool in %s: %w", dir, err)
	}
	return s, nil
}

func or[N int | int64 | uint64 | time.Duration](n *N, def N) {
	if *n <= 0 {
		*n = def
	}
}

func (s *Spool) start() error {
	if err := s.newTag(); err != nil {
		return err
	}
	s.lastID = uint64(s.o.Now().Sub(epoch).Microseconds())
	seg, err := createSegment(s.d, s.nextHead())
	if err != nil {
		return errors.Join(err, s.unlock())
	}
	s.number = 1
	s.begin(seg)
	go s.commit()
	go s.tidy()
	if !s.o.Keep {
		if _, err := s.Takeover(); err != nil {
			return errors.Join(err, s.Close())
		}
	}
	return nil
}

// newTag finds a tag that nobody uses, and locks it.
func (s *Spool) newTag() error {
	names, err := s.d.list()
	if err != nil {
		return err
	}
	inUse := map[uint16]bool{}
	for _, n := range names {
		base, _, _ := strings.Cut(n, ".")
		if tag, _, ok := parseSegName(base); ok {
			inUse[tag] = true
		}
		if id, ok := tailID(n); ok {
			inUse[id.tag()] = true
		}
	}
	for range 100 {
		var b [2]byte
		if _, err := rand.Read(b[:]); err != nil {
			return err
		}
		tag := binary.LittleEndian.Uint16(b[:]) & (1<<tagBits - 1)
		if inUse[tag] {
			continue
		}
		c, err := s.d.lock(lockName(tag))
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		s.tag, s.lock = tag, c
		return nil
	}
	return errors.New("no tag is free: too many programs left their files here; see what they are")
}

// CrashFile names the file, in the spool's folder, into which the runtime is to write why the program crashes (SetCrashOutput
// of runtime/debug). By it the next start tells a crash, which a message may have caused, from a kill.
func (s *Spool) CrashFile() string { return lockName(s.tag) }

func lockName(tag uint16) string { return fmt.Sprintf("%03x%s", tag, suffixLock) }

func (s *Spool) unlock() error {
	return errors.Join(s.d.remove(lockName(s.tag)), s.lock.Close())
}

// Close writes what is pending and closes the files. Leases that are open stay what they are: tries that the program's
// end interrupted, but for those that were settled or returned before.
func (s *Spool) Close() error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		<-s.committed
		return nil
	}
	s.closing = true
	s.work.Broadcast()
	s.space.Broadcast()
	s.mu.Unlock()
	<-s.committed
	close(s.quit)
	<-s.tidied
	var err error
	if s.bad == nil {
		err = s.seal()
		if err == nil {
			err = s.removeDone()
		}
	}
	for _, g := range s.segs {
		err = errors.Join(err, g.close())
	}
	for _, c := range s.taken {
		err = errors.Join(err, c.Close())
	}
	if len(s.segs) == 0 && s.tails[s.tag] == 0 {
		err = errors.Join(err, s.d.remove(lockName(s.tag)))
	}
	return errors.Join(err, s.lock.Close())
}

// adopt gives a segment its key. s.mu is held.
func (s *Spool) adopt(g *segment) {
	s.lastKey++
	g.key = s.lastKey
	s.segs[g.key] = g
}

// Err tells why the spool takes nothing: ErrBad or ErrClosed with the cause, or nil.
func (s *Spool) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state()
}

// Waiting tells how many messages of a user the spool holds, each once however many deliveries it has, also those on hold;
// notices of ours are left out. It looks into nothing but memory, and is exact as soon as Commit or Settle returns.
func (s *Spool) Waiting(user uint32) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.x.waiting[user]
}

// Figures are what the spool holds.
type Figures struct {
	Deliveries int
	Held       int
	Segments   int
	Bytes      int64 // of segments
	Live       int64 // of these, what counts
}

// Figures counts.
func (s *Spool) Figures() Figures {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := Figures{Deliveries: len(s.x.byID), Held: s.heldCount, Segments: len(s.segs)}
	for _, g := range s.segs {
		f.Bytes += g.size
		f.Live += g.live
	}
	return f
}

// roomCheck remembers for a moment how much room there is.
type roomCheck struct {
	mu   sync.Mutex
	at   time.Time
	last error
}

// hasRoom tells whether the file system has room for messages: asked at most four times a second.
func (s *Spool) hasRoom() error {
	r := &s.room
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); r.at.IsZero() || now.Sub(r.at) > 250*time.Millisecond || now.Before(r.at) {
		r.at, r.last = now, nil
		room, size, err := s.d.free()
		if err != nil {
			r.last = fmt.Errorf("could not ask how much room is left: %w", err)
		} else if keep := min(s.o.MinFree, size/20); room < keep {
			r.last = fmt.Errorf("%w: %d MiB are free, %d MiB stay free for what becomes of the mail that is here", ErrFull, room>>20, keep>>20)
		}
	}
	return r.last
}
