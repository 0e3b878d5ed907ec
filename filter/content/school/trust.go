package school

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluice/filter/content"
	"sluice/filter/message"
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

// Seen takes note of a message that was judged, and has the model in shadow judge it, too, where there is one. Without one
// it costs nothing for what is taken for good.
func (s *School) Seen(m *message.Message, o *content.Opinion, t content.Thresholds) {
	s.trust.Load().seen(m.ID, o, t, s.o.Now)
	if sh := s.shadow.Load(); sh != nil {
		sh.seen(m, o, t, s.o.Now)
	}
}

func (t *trust) seen(id string, o *content.Opinion, th content.Thresholds, now func() time.Time) {
	switch {
	case o.Probability < th.Unsure:
		t.dirty.Store(true)
		if t.taken.Add(1)%100 == 0 {
			t.weigh()
		}
	case o.Probability >= th.Spam && !t.acting.Load():
		t.doubt(id, o, now())
	}
}

// Acting reports whether what was learnt may refuse.
func (s *School) Acting() bool { return s.trust.Load().acting.Load() }

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

func newTrust() *trust { return &trust{doubts: map[uint32]Doubt{}} }

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

// Confirm says of a doubted message, by its id, whether it was bad; false where there is no such doubt, of the model in use or
// of the one in shadow.
func (s *School) Confirm(id string, bad bool) bool {
	found := s.trust.Load().settle(id, bad)
	if sh := s.shadow.Load(); sh != nil {
		found = sh.trust.settle(id, bad) || found
	}
	return found
}

func (t *trust) settle(id string, bad bool) bool {
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
	Shadow *keptShadow      `json:"shadow,omitempty"`
}

// Changed reports, once, whether the account changed.
func (s *School) Changed() bool {
	changed := s.trust.Load().dirty.Swap(false)
	if sh := s.shadow.Load(); sh != nil {
		changed = sh.trust.dirty.Swap(false) || changed
	}
	return changed
}

// Append appends the account in the form that Restore reads.
func (s *School) Append(dst []byte) []byte {
	k := s.trust.Load().kept()
	if sh := s.shadow.Load(); sh != nil {
		k.Shadow = sh.kept()
	}
	b, err := json.Marshal(k)
	if err != nil {
		return dst // figures and texts always have a form
	}
	return append(dst, b...)
}

func (t *trust) kept() kept {
	t.mu.Lock()
	defer t.mu.Unlock()
	return kept{Good: t.taken.Load(), Wrong: t.wrong, Acting: t.acting.Load(), Over: t.over, Doubts: maps.Clone(t.doubts)}
}

// Restore takes over what Append wrote.
func (s *School) Restore(b []byte) error {
	var k kept
	if err := json.Unmarshal(b, &k); err != nil {
		return fmt.Errorf("could not read the account of the content filter: %w; it begins anew", err)
	}
	s.trust.Load().restore(&k)
	if sh := s.shadow.Load(); sh != nil && k.Shadow != nil && k.Shadow.Name == sh.judge.Model().Info().Name {
		sh.restore(k.Shadow)
	}
	return nil
}

func (t *trust) restore(k *kept) {
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
}
