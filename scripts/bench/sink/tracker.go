package sink

import "sync"

// maxMissing bounds the numbers that a Report lists.
const maxMissing = 10000

// Tracker notes which messages of the current run arrived. A message's number
// holds the run in its upper and the place in that run in its lower 32 bits.
type Tracker struct {
	mu     sync.Mutex
	run    uint32
	seen   []uint64 // one bit per place
	report Report
}

// Report is what arrived since Begin.
type Report struct {
	Received int `json:"received"`
	Damaged  int `json:"damaged"`
	Doubled  int `json:"doubled"`
	// Stray counts messages that belong to another run.
	Stray int `json:"stray"`
	// Missing lists the places below the asked limit that did not arrive, at most 10,000 of them.
	Missing []uint32 `json:"missing,omitempty"`
}

// Begin forgets everything and starts to count run.
func (t *Tracker) Begin(run uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.run, t.seen, t.report = run, t.seen[:0], Report{}
}

// Damaged counts a message whose bytes changed on the way.
func (t *Tracker) Damaged() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.report.Damaged++
}

// Received counts the message with this number.
func (t *Tracker) Received(id uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if uint32(id>>32) != t.run {
		t.report.Stray++
		return
	}
	word, bit := int(uint32(id)/64), uint64(1)<<(id%64)
	for word >= len(t.seen) {
		t.seen = append(t.seen, 0)
	}
	if t.seen[word]&bit != 0 {
		t.report.Doubled++
		return
	}
	t.seen[word] |= bit
	t.report.Received++
}

// Report tells what arrived of the first n messages of the run.
func (t *Tracker) Report(n uint32) Report {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.report
	for place := uint32(0); place < n && len(r.Missing) < maxMissing; place++ {
		word := int(place / 64)
		if word >= len(t.seen) || t.seen[word]&(1<<(place%64)) == 0 {
			r.Missing = append(r.Missing, place)
		}
	}
	return r
}
