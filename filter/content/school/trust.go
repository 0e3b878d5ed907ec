package school

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluice/filter/content"
)

// What a model has to show before what it learnt may refuse (CON1): so many messages of this network that it took for
// good, and at most that share of them that it would have refused and that nobody has called bad since.
const (
	WantedGood  = 5000
	MostDoubted = 0.0002
	maxDoubts   = 1000
)

// Doubt is a kind of message that the model would have refused and about which nobody has said yet that it was bad.
type Doubt struct {
	ID          string    `json:"id"` // the first message of its kind, as the log has it
	At          time.Time `json:"at"`
	Count       int       `json:"count"`
	Probability float64   `json:"probability"`
}

// Trust is how far a model has proved itself on this network.
type Trust struct {
	Good    int64 // messages that it took for good
	Wrong   int64 // messages that it took for spam and people for good
	Acting  bool
	Missing string // what it lacks, "" while it acts
	Doubts  []Doubt
}

// trust keeps account. Copies of one text count once.
type trust struct {
	taken  atomic.Int64
	acting atomic.Bool
	dirty  atomic.Bool

	mu     sync.Mutex
	wrong  int64
	doubts map[uint32]Doubt
	over   int // kinds that found no room in doubts
}

// Seen takes note of a message that was judged. It costs nothing for what is taken for good.
func (s *School) Seen(id string, o *content.Opinion, t content.Thresholds) {
	switch {
	case o.Probability < t.Unsure:
		s.trust.taken.Add(1)
		s.trust.dirty.Store(true)
		if s.trust.taken.Load()%100 == 0 {
			s.trust.weigh()
		}
	case o.Probability >= t.Spam && !s.trust.acting.Load():
		s.trust.doubt(id, o, s.o.Now())
	}
}

// Acting reports whether what was learnt may refuse.
func (s *School) Acting() bool { return s.trust.acting.Load() }

func (t *trust) doubt(id string, o *content.Opinion, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dirty.Store(true)
	d, ok := t.doubts[o.Group]
	switch {
	case ok:
		d.Count++
		t.doubts[o.Group] = d
	case len(t.doubts) >= maxDoubts:
		t.over++
	default:
		t.doubts[o.Group] = Doubt{ID: id, At: now.UTC().Truncate(time.Second), Count: 1, Probability: o.Probability}
	}
}

// confirm says that a kind of message is bad indeed.
func (t *trust) confirm(group uint32) {
	t.mu.Lock()
	delete(t.doubts, group)
	t.mu.Unlock()
	t.dirty.Store(true)
	t.weigh()
}

// good says that a message was good. One that was taken for spam counts against the model.
func (t *trust) good(group uint32, probability float64) {
	if probability < content.DefaultThresholds.Spam {
		return
	}
	t.mu.Lock()
	t.wrong++
	delete(t.doubts, group)
	t.mu.Unlock()
	t.dirty.Store(true)
	t.weigh()
}

// weigh decides anew whether the model may act.
func (t *trust) weigh() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.acting.Store(t.missing() == "")
}

// missing says what the model lacks. While it acts, what it refuses is no doubt; only what people call good counts.
func (t *trust) missing() string {
	good := t.taken.Load()
	if good < WantedGood {
		return fmt.Sprintf("%d of %d messages of this network that it takes for good", good, WantedGood)
	}
	doubts := int64(len(t.doubts) + t.over)
	if t.acting.Load() {
		doubts = 0
	}
	if most := MostDoubted * float64(good); float64(doubts+t.wrong) > most {
		return fmt.Sprintf("%d kinds of messages that it would have refused wait for somebody to say that they were bad, and %d were good; %.0f at most", doubts, t.wrong, most)
	}
	return ""
}

func (t *trust) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.taken.Store(0)
	t.acting.Store(false)
	t.wrong, t.over = 0, 0
	clear(t.doubts)
	t.dirty.Store(true)
}

func (t *trust) report() Trust {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := Trust{Good: t.taken.Load(), Wrong: t.wrong, Acting: t.acting.Load()}
	if !r.Acting {
		r.Missing = t.missing()
	}
	for _, d := range t.doubts {
		r.Doubts = append(r.Doubts, d)
	}
	slices.SortFunc(r.Doubts, func(a, b Doubt) int { return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.ID, b.ID)) })
	return r
}

// Confirm says of a doubted message, by its id, whether it was bad; false where there is no such doubt.
func (s *School) Confirm(id string, bad bool) bool {
	t := &s.trust
	t.mu.Lock()
	var group uint32
	found := false
	for g, d := range t.doubts {
		if d.ID == id {
			group, found = g, true
		}
	}
	t.mu.Unlock()
	switch {
	case !found:
	case bad:
		t.confirm(group)
	default:
		t.good(group, 1)
	}
	return found
}

// kept is the account as it outlives a process.
type kept struct {
	Good   int64            `json:"good"`
	Wrong  int64            `json:"wrong"`
	Acting bool             `json:"acting"`
	Over   int              `json:"over"`
	Doubts map[uint32]Doubt `json:"doubts"`
}

// Changed reports, once, whether the account changed.
func (s *School) Changed() bool { return s.trust.dirty.Swap(false) }

// Append appends the account in the form that Restore reads.
func (s *School) Append(dst []byte) []byte {
	t := &s.trust
	t.mu.Lock()
	defer t.mu.Unlock()
	b, err := json.Marshal(kept{t.taken.Load(), t.wrong, t.acting.Load(), t.over, t.doubts})
	if err != nil {
		return dst // figures and texts always have a form
	}
	return append(dst, b...)
}

// Restore takes over what Append wrote.
func (s *School) Restore(b []byte) error {
	var k kept
	if err := json.Unmarshal(b, &k); err != nil {
		return fmt.Errorf("could not read the account of the content filter: %w; it begins anew", err)
	}
	t := &s.trust
	t.mu.Lock()
	defer t.mu.Unlock()
	t.taken.Add(k.Good)
	t.wrong += k.Wrong
	t.over += k.Over
	for g, d := range k.Doubts {
		if len(t.doubts) < maxDoubts {
			t.doubts[g] = d
		}
	}
	t.acting.Store(k.Acting)
	return nil
}
