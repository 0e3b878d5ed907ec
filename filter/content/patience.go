package content

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"sluice/filter/message"
)

// Bounds of what is remembered of messages that are to be judged again.
const (
	mostPatience = 100_000            // 16 bytes each where they are kept
	patienceAge  = 5 * 24 * time.Hour // as long as mail servers keep trying
)

// Patience remembers which messages were put off so that they are judged again (CON9), each by user, envelope and body. Safe
// for concurrent use.
type Patience struct {
	now func() time.Time

	mu      sync.Mutex
	seen    map[uint64]time.Time // when it came first
	changed bool
}

// NewPatience returns one that knows of nothing; now may be nil.
func NewPatience(now func() time.Time) *Patience {
	if now == nil {
		now = time.Now
	}
	return &Patience{now: now, seen: map[uint64]time.Time{}}
}

// Left returns how much of wait a message has still to wait since it came first; 0 or less: it has waited.
func (p *Patience) Left(m *message.Message, wait time.Duration) time.Duration {
	key, now := keyOf(m), p.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if first, ok := p.seen[key]; ok && now.Sub(first) < patienceAge {
		return wait - now.Sub(first)
	}
	if len(p.seen) >= mostPatience {
		p.forget(now)
	}
	p.seen[key], p.changed = now, true
	return wait
}

// forget drops what is old, and where that is nothing, anything: those messages wait once more. p.mu is held.
func (p *Patience) forget(now time.Time) {
	for k, first := range p.seen {
		if now.Sub(first) >= patienceAge {
			delete(p.seen, k)
		}
	}
	for k := range p.seen {
		if len(p.seen) < mostPatience*9/10 {
			return
		}
		delete(p.seen, k)
	}
}

// Changed reports, once, whether there is something new to keep.
func (p *Patience) Changed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	was := p.changed
	p.changed = false
	return was
}

// Append appends what is remembered in the form that Restore reads: a key and a second of the clock each.
func (p *Patience) Append(dst []byte) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	for k, first := range p.seen {
		if now.Sub(first) < patienceAge {
			dst = binary.LittleEndian.AppendUint64(dst, k)
			dst = binary.LittleEndian.AppendUint64(dst, uint64(first.Unix()))
		}
	}
	return dst
}

// Restore adds what Append wrote. A first try from the future, by a clock that was set back, is one of now.
func (p *Patience) Restore(b []byte) error {
	if len(b)%16 != 0 {
		return errors.New("could not read which messages were put off: the file is cut; they wait once more")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	for ; len(b) >= 16 && len(p.seen) < mostPatience; b = b[16:] {
		key, first := binary.LittleEndian.Uint64(b), time.Unix(int64(binary.LittleEndian.Uint64(b[8:])), 0)
		if first.After(now) {
			first = now
		}
		if had, ok := p.seen[key]; now.Sub(first) < patienceAge && (!ok || first.Before(had)) {
			p.seen[key] = first
		}
	}
	return nil
}

// keyOf is the same for each try to send a message. Who makes two messages of one key gains that the second does not wait.
func keyOf(m *message.Message) uint64 {
	h := sha256.New()
	_, _ = h.Write(binary.LittleEndian.AppendUint32(nil, m.Flow.User.ID))
	_, _ = h.Write([]byte(m.Envelope.From))
	for _, to := range m.Envelope.To {
		_, _ = h.Write([]byte{0})
		_, _ = h.Write([]byte(to))
	}
	_, _ = h.Write([]byte{1})
	_, _ = h.Write(message.Body(m.Data))
	return binary.LittleEndian.Uint64(h.Sum(nil))
}
