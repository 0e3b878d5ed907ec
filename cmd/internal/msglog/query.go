package msglog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"sluice/proxy"
)

// Query says which records are wanted; an empty field asks nothing. All that is asked must hold.
type Query struct {
	From, Until time.Time // of the record's Start: From is included, Until is not
	User        uint32
	Status      *proxy.Status
	ID          string // of a message ("abc.1"), or of a flow ("abc") for all its records
	Ticket      string
	Group       uint64 // of copies of one message
	Identity    string
	Sender      string // an address, or a domain without "@"
	Recipient   string // likewise, of any recipient
	Client      netip.Prefix
	Target      netip.Addr               // the destination's
	Code        string                   // the public code of what decided
	Match       func(*proxy.Record) bool // anything else; nil asks nothing. It has no index: all that the rest asks for is read
	Limit       int                      // 0 means 100
}

// latest is how long after its Start a record may be written: no session lasts so long.
const latest = 24 * time.Hour

// Find returns the records that q asks for, in the order of their writing, the newest first. It reads all segments of
// the folder, also those of another process. A damaged block is passed over: the error then stands beside what was found.
func (l *Log) Find(ctx context.Context, q Query) ([]*proxy.Record, error) {
	if q.Limit <= 0 {
		q.Limit = 100
	}
	var found []*proxy.Record
	err := l.Each(ctx, q, func(r *proxy.Record) bool {
		found = append(found, r)
		return len(found) < q.Limit
	})
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return found, err
}

// Each hands the records that q asks for to take, as Find returns them, until take returns false. Limit means nothing
// here: one record is in memory at a time.
func (l *Log) Each(ctx context.Context, q Query, take func(*proxy.Record) bool) error {
	if err := l.Flush(); err != nil {
		l.failed(err) // what is on disk can be searched all the same
	}
	defer l.hold()()
	names, err := segments(l.dir)
	if err != nil {
		return err
	}
	s := &search{q: &q, keys: q.keys(), take: take}
	s.indexed = append(s.keys, q.indexed()...)
	if id, _, _ := strings.Cut(q.ID, "."); id != "" {
		if n, err := strconv.ParseUint(id, 36, 64); err == nil {
			s.flow = int64(n)
		}
	}
	for n := 1; len(names) > 0 && !s.done; n = min(4*n, mostAtOnce) {
		newest := names[max(0, len(names)-n):]
		names = names[:len(names)-len(newest)]
		if err := s.some(ctx, newest); err != nil {
			return err
		}
	}
	return errors.Join(s.errs...)
}

// keys are what every record that q asks for has among its keys.
func (q *Query) keys() []uint64 {
	var k []uint64
	if q.User != 0 {
		k = append(k, hashNumber(keyUser, uint64(q.User)))
	}
	if q.Status != nil {
		k = append(k, hashNumber(keyStatus, uint64(*q.Status)))
	}
	if q.ID != "" {
		id, _, _ := strings.Cut(q.ID, ".")
		if n, err := strconv.ParseUint(id, 36, 64); err == nil {
			k = append(k, hashNumber(keyFlow, n))
		}
	}
	if q.Ticket != "" {
		k = append(k, hashText(keyTicket, q.Ticket))
	}
	if q.Group != 0 {
		k = append(k, hashNumber(keyCampaign, q.Group))
	}
	if q.Identity != "" {
		k = append(k, hashText(keyIdentity, q.Identity))
	}
	if q.Client.IsValid() && q.Client.IsSingleIP() {
		k = append(k, hashAddr(keyClient, q.Client.Addr()))
	}
	k = appendAddress(k, q.Sender, keySender, keySenderDomain)
	return appendAddress(k, q.Recipient, keyRecipient, keyRecipientDomain)
}

// indexed are further keys, which only sealed segments have.
func (q *Query) indexed() (k []uint64) {
	if p := q.Client; p.IsValid() && !p.IsSingleIP() && p.Bits() >= netBits(p.Addr()) {
		k = append(k, hashNet(p.Addr()))
	}
	if q.Target.IsValid() {
		k = append(k, hashAddr(keyTarget, q.Target))
	}
	if q.Code != "" {
		k = append(k, hashText(keyCode, q.Code))
	}
	return k
}

func appendAddress(k []uint64, a string, whole, domain keyKind) []uint64 {
	switch {
	case a == "":
		return k
	case strings.Contains(a, "@"):
		return append(k, hashText(whole, a))
	}
	return append(k, hashText(domain, a))
}

// match reports whether q asks for r.
func (q *Query) match(r *proxy.Record) bool {
	switch {
	case !q.From.IsZero() && r.Start.Before(q.From), !q.Until.IsZero() && !r.Start.Before(q.Until),
		q.User != 0 && r.Flow.User.ID != q.User,
		q.Group != 0 && r.Group != q.Group,
		q.Status != nil && r.Status != *q.Status,
		q.ID != "" && !strings.EqualFold(r.ID, q.ID) && !strings.EqualFold(r.Flow.ID.String(), q.ID),
		q.Ticket != "" && !strings.EqualFold(r.Ticket, q.Ticket),
		q.Identity != "" && !strings.EqualFold(r.Identity, q.Identity),
		q.Client.IsValid() && !q.Client.Contains(r.Flow.Client.Addr()),
		q.Target.IsValid() && q.Target != r.Flow.Target.Addr(),
		q.Code != "" && !q.decided(r),
		q.Sender != "" && !matchAddress(r.From, q.Sender),
		q.Recipient != "" && !q.received(r):
		return false
	}
	return q.Match == nil || q.Match(r)
}

// decided reports whether the code asked for decided what became of r.
func (q *Query) decided(r *proxy.Record) bool {
	h := r.Verdict.Decisive()
	return h != nil && strings.EqualFold(h.Code, q.Code)
}

func (q *Query) received(r *proxy.Record) bool {
	for i := range r.To {
		if matchAddress(r.To[i].Address, q.Recipient) {
			return true
		}
	}
	return false
}

func matchAddress(address, want string) bool {
	if strings.Contains(want, "@") {
		return strings.EqualFold(address, want)
	}
	return address != "" && strings.EqualFold(domainOf(address), want)
}

// search is one Each under way.
type search struct {
	q       *Query
	keys    []uint64 // of blocks
	indexed []uint64 // of sealed segments: those and more
	take    func(*proxy.Record) bool
	done    bool // take wants no more
	errs    []error
	unpack  *unpacker
	rows    [][]byte // of the block that is looked at
	flow    int64    // 0: any
}

// mostAtOnce is how many indexes are asked at once: each answer may have to wait for the disk.
const mostAtOnce = 32

// some searches segments, the last one first.
func (s *search) some(ctx context.Context, names []string) error {
	answers := make([]looked, len(names))
	defer func() {
		for _, k := range answers {
			if k.g != nil {
				_ = k.g.f.Close() // it was only read
			}
		}
	}()
	var all sync.WaitGroup
	for i, name := range names {
		all.Go(func() { answers[i] = s.look(name) })
	}
	all.Wait()
	for i := len(names) - 1; i >= 0 && !s.done; i-- {
		err := s.any(ctx, names[i], answers[i])
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			s.errs = append(s.errs, err)
		}
	}
	return nil
}

// any searches a segment, sealed or not, where k is what its index said.
func (s *search) any(ctx context.Context, name string, k looked) error {
	if k.g == nil && k.err == nil {
		if there, err := s.segment(ctx, name); there {
			return err
		}
		k = s.look(name) // it was sealed meanwhile, or cleaned away
		if k.g != nil {
			defer k.g.f.Close()
		}
	}
	if k.err == nil && k.g != nil {
		k.err = s.sealed(ctx, k.g, k.rows)
	}
	if k.err != nil {
		return fmt.Errorf("%s: %w", name+segSuffix, k.err)
	}
	return nil
}

// place is where a block that may hold wanted records stands.
type place struct {
	at int64
	h  header
}

// segment searches one segment from its end to its start; false where it is not there.
func (s *search) segment(ctx context.Context, name string) (there bool, err error) {
	f, err := os.Open(name + logSuffix)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return true, err
	}
	defer f.Close()
	if s.outside(f, name) {
		return true, nil
	}
	places, err := s.places(f, name)
	for i := len(places) - 1; i >= 0 && !s.done; i-- {
		if ctx.Err() != nil {
			return true, context.Cause(ctx)
		}
		if e := s.block(f, places[i]); e != nil {
			err = errors.Join(err, fmt.Errorf("%s, byte %d: %w", f.Name(), places[i].at, e))
		}
	}
	return true, err
}

// outside reports whether no record of the segment can be in the time asked for.
func (s *search) outside(f *os.File, name string) bool {
	st, err := f.Stat()
	if err == nil && !s.q.From.IsZero() && st.ModTime().Before(s.q.From) {
		return true
	}
	base := name[strings.LastIndexByte(name, os.PathSeparator)+1:]
	born, err := time.Parse(nameTime, base[:min(len(base), len(nameTime))])
	return err == nil && !s.q.Until.IsZero() && born.After(s.q.Until.Add(latest))
}

// places returns the blocks of a segment that may hold wanted records: by the index, and behind its end by the segment.
func (s *search) places(f *os.File, name string) ([]place, error) {
	idx, err := os.ReadFile(name + idxSuffix)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var all []place
	var next int64
	for len(idx) > 0 {
		at, h, filter, size := parseEntry(idx)
		if size == 0 || at != next {
			break
		}
		if s.wants(h, filter) {
			all = append(all, place{at, h})
		}
		next, idx = at+h.size(), idx[size:]
	}
	return s.walk(f, next, all)
}

// parseEntry reads the index entry at the start of b; its size is 0 where none stands.
func parseEntry(b []byte) (at int64, h header, filter []byte, size int) {
	if len(b) < 8 {
		return 0, header{}, nil, 0
	}
	h, ok := parseHeader(b[8:])
	size = 8 + headerSize + int(h.filter)
	if !ok || len(b) < size+4 || crc32.Checksum(b[:size], castagnoli) != binary.LittleEndian.Uint32(b[size:]) {
		return 0, header{}, nil, 0
	}
	return int64(binary.LittleEndian.Uint64(b)), h, b[8+headerSize : size], size + 4
}

// walk goes from block to block where there is no index, and stops at the torn end.
func (s *search) walk(f *os.File, at int64, all []place) ([]place, error) {
	var head [headerSize]byte
	for {
		if _, err := f.ReadAt(head[:], at); err != nil {
			return all, notEOF(err)
		}
		h, ok := parseHeader(head[:])
		if !ok {
			return all, nil
		}
		filter := make([]byte, h.filter)
		if _, err := f.ReadAt(filter, at+headerSize); err != nil {
			return all, notEOF(err)
		}
		if s.wants(h, filter) {
			all = append(all, place{at, h})
		}
		at += h.size()
	}
}

func notEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func (s *search) wants(h header, filter []byte) bool {
	return s.within(h.first, h.last) && mayHold(filter, s.keys)
}

// within tells whether the time asked for touches that from first to last, in microseconds since 1970.
func (s *search) within(first, last int64) bool {
	return (s.q.From.IsZero() || last >= s.q.From.UnixMicro()) && (s.q.Until.IsZero() || first <= s.q.Until.UnixMicro())
}

// row looks at one record.
func (s *search) row(row []byte) error {
	r, err := decode(row)
	if err == nil && s.q.match(r) {
		s.done = !s.take(r)
	}
	return err
}

// block looks at the records of one block, the newest first.
func (s *search) block(f *os.File, p place) error {
	b := make([]byte, p.h.size())
	if _, err := f.ReadAt(b, p.at); err != nil {
		return notEOF(err) // its end is still being written, or was torn
	}
	payload := b[headerSize+p.h.filter:]
	if h, ok := parseHeader(b); !ok || h != p.h || sumOf(b, b[headerSize:headerSize+p.h.filter], payload) != p.h.sum {
		return errors.New("a block is damaged")
	}
	var err error
	if s.rows, err = cutRows(s.rows[:0], payload); err != nil {
		return err
	}
	for i := len(s.rows) - 1; i >= 0 && !s.done; i-- {
		if err := s.row(s.rows[i]); err != nil {
			return err
		}
	}
	return nil
}
