package content

import (
	"hash/maphash"
	"sync"
	"time"

	"sluice/filter/message"
)

// Bounds of what is remembered of messages that are to be judged again.
const (
	mostPatience = 100_000
	patienceAge  = 5 * 24 * time.Hour // as long as mail servers keep trying
)

// Patience remembers which messages were put off so that they are judged again (CON9), each by user, envelope and body. It
// is forgotten at a restart: what was put off before waits once more. Safe for concurrent use.
type Patience struct {
	now  func() time.Time
	seed maphash.Seed

	mu   sync.Mutex
	seen map[uint64]time.Time // when it came first
}

// NewPatience returns one that knows of nothing; now may be nil.
func NewPatience(now func() time.Time) *Patience {
	if now == nil {
		now = time.Now
	}
	return &Patience{now: now, seed: maphash.MakeSeed(), seen: map[uint64]time.Time{}}
}

// Left returns how much of wait a message has still to wait since it came first; 0 or less: it has waited.
func (p *Patience) Left(m *message.Message, wait time.Duration) time.Duration {
	key, now := p.key(m), p.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if first, ok := p.seen[key]; ok && now.Sub(first) < patienceAge {
		return wait - now.Sub(first)
	}
	if len(p.seen) >= mostPatience {
		p.forget(now)
	}
	p.seen[key] = now
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

func (p *Patience) key(m *message.Message) uint64 {
	var h maphash.Hash
	h.SetSeed(p.seed)
	maphash.WriteComparable(&h, m.Flow.User.ID)
	_, _ = h.WriteString(string(m.Envelope.From))
	for _, to := range m.Envelope.To {
		_ = h.WriteByte(0)
		_, _ = h.WriteString(string(to))
	}
	_, _ = h.Write(message.Body(m.Data))
	return h.Sum64()
}
