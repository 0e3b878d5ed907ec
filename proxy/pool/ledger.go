package pool

import (
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Terms bound what leaves from the delivery addresses (DIP5).
type Terms struct {
	PerHour int                      // messages from one address to one provider within a clock hour; 0: any number
	WarmUp  []int                    // messages from a new address to one provider on its first day, its second, and so on
	New     map[netip.Addr]time.Time // when addresses were new; others are warm
}

// Ledger counts what left from each address to each provider, and tells which have sent what they may. A provider is who
// runs the mail exchangers of the recipient's domain. It is safe for concurrent use; the zero value bounds nothing.
type Ledger struct {
	terms atomic.Pointer[Terms]
	mu    sync.Mutex
	sent  map[account]*sheet
}

// account is what is counted apart.
type account struct {
	from     netip.Addr
	provider string
}

// sheet counts in the present day of an address's warm-up, and in the present hour.
type sheet struct {
	day, hour   int64 // which they are
	days, hours int   // messages in them
}

// ledgerRoom bounds the accounts, about 150 bytes each.
const ledgerRoom = 1 << 16

// Configure takes the terms.
func (l *Ledger) Configure(t Terms) {
	if t.PerHour == 0 && (len(t.WarmUp) == 0 || len(t.New) == 0) {
		l.terms.Store(nil)
		return
	}
	l.terms.Store(&t)
}

// Bounds tells whether there is anything to count.
func (l *Ledger) Bounds() bool { return l != nil && l.terms.Load() != nil }

// day is which day of its warm-up an address is in, counted from 0; false: it is warm.
func (t *Terms) day(from netip.Addr, now time.Time) (int, bool) {
	since, ok := t.New[from]
	if !ok {
		return 0, false
	}
	n := int(max(0, now.Sub(since)) / (24 * time.Hour))
	return n, n < len(t.WarmUp)
}

// May tells whether an address may send one more message to a provider now.
func (l *Ledger) May(from netip.Addr, provider string, now time.Time) bool {
	if l == nil {
		return true
	}
	t := l.terms.Load()
	if t == nil {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sent[account{from, provider}]
	if s == nil {
		day, cold := t.day(from, now)
		return !cold || t.WarmUp[day] > 0
	}
	if t.PerHour > 0 && s.hour == now.Unix()/3600 && s.hours >= t.PerHour {
		return false
	}
	day, cold := t.day(from, now)
	return !cold || s.day != int64(day) && t.WarmUp[day] > 0 || s.day == int64(day) && s.days < t.WarmUp[day]
}

// Sent counts a message that left.
func (l *Ledger) Sent(from netip.Addr, provider string, now time.Time) {
	if l == nil {
		return
	}
	t := l.terms.Load()
	if t == nil {
		return
	}
	day, cold := t.day(from, now)
	if !cold && t.PerHour == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	k := account{from, strings.Clone(provider)}
	s := l.sent[k]
	if s == nil {
		l.room(now)
		s = &sheet{}
		l.sent[k] = s
	}
	if hour := now.Unix() / 3600; s.hour != hour {
		s.hour, s.hours = hour, 0
	}
	if s.day != int64(day) {
		s.day, s.days = int64(day), 0
	}
	s.hours++
	s.days++
}

// room makes room for an account: those without a message in this hour and this day go first. l.mu is held.
func (l *Ledger) room(now time.Time) {
	if l.sent == nil {
		l.sent = map[account]*sheet{}
	}
	if len(l.sent) < ledgerRoom {
		return
	}
	makeRoom(l.sent, ledgerRoom, func(s *sheet) bool { return now.Unix()/3600-s.hour > 24 })
}

// Count is what one address has sent to one provider.
type Count struct {
	From     netip.Addr `json:"address"`
	Provider string     `json:"provider"`
	Day      int64      `json:"day"` // of its warm-up, from 0
	Today    int        `json:"today"`
	Hour     int64      `json:"hour"`
	InHour   int        `json:"in_hour"`
}

// Counts lists what was counted, for the disk and for the curious.
func (l *Ledger) Counts() (all []Count) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, s := range l.sent {
		all = append(all, Count{k.from, k.provider, s.day, s.days, s.hour, s.hours})
	}
	return all
}

// Restore takes what an earlier process counted.
func (l *Ledger) Restore(all []Count) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range all[:min(len(all), ledgerRoom)] {
		if l.sent == nil {
			l.sent = map[account]*sheet{}
		}
		l.sent[account{c.From, c.Provider}] = &sheet{c.Day, c.Hour, c.Today, c.InHour}
	}
}
