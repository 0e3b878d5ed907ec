package learn

import (
	"math"
	"slices"
	"sync"
	"time"
)

// Model holds what was learnt: a weight for each slot of each view. Safe for concurrent use.
type Model struct {
	mu      sync.RWMutex
	weights [views][]float32
	bias    float64
	cal     Calibration
	info    Info
}

// Info says where a model comes from.
type Info struct {
	Name  string    `json:"name"`
	Built time.Time `json:"built"`
	Good  int       `json:"good"` // messages learnt as good
	Bad   int       `json:"bad"`
	From  []string  `json:"from,omitempty"` // sources, or the version that it goes on from
}

// Calibration turns a score into the logarithm of odds: A*score + B (Platt).
type Calibration struct {
	A float64 `json:"a"`
	B float64 `json:"b"`
}

// NewModel returns a model that knows nothing.
func NewModel(name string) *Model {
	m := &Model{cal: Calibration{A: 1}, info: Info{Name: name}}
	for i := range m.weights {
		m.weights[i] = make([]float32, 1<<slotBits)
	}
	return m
}

// Info returns where the model comes from.
func (m *Model) Info() Info {
	m.mu.RLock()
	defer m.mu.RUnlock()
	i := m.info
	i.From = slices.Clone(i.From)
	return i
}

// Rename gives the model a name and its sources.
func (m *Model) Rename(name string, built time.Time, from []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.info.Name, m.info.Built, m.info.From = name, built, from
}

// Calibrate sets how scores become probabilities.
func (m *Model) Calibrate(c Calibration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cal = c
}

// Calibration returns how scores become probabilities.
func (m *Model) Calibration() Calibration {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.cal
}

// Score returns what the model holds against a message, as it was learnt; prior is what is known beside the features,
// as a logarithm of odds.
func (m *Model) Score(f *Features, prior float64) float64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.score(f, prior)
}

func (m *Model) score(f *Features, prior float64) float64 {
	z := m.bias + prior
	for v := range m.weights {
		ids := f.ids[v]
		if len(ids) == 0 {
			continue
		}
		w := m.weights[v]
		var s float32
		for _, id := range ids {
			s += w[id]
		}
		z += float64(s) / math.Sqrt(float64(len(ids)))
	}
	return z
}

// Probability returns how likely a message of that score is bad.
func (m *Model) Probability(score float64) float64 {
	c := m.Calibration()
	return Sigmoid(c.A*score + c.B)
}

// Sigmoid returns the probability of which z is the logarithm of the odds.
func Sigmoid(z float64) float64 { return 1 / (1 + math.Exp(-z)) }

// Reason is a feature with its share in a score.
type Reason struct {
	What   string
	Points float64
}

// Reasons returns the features, of those that can be told in words, that moved the score most, most against the message
// first, at most n. f must have been filled by ExtractNamed.
func (m *Model) Reasons(f *Features, n int) []Reason {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var all []Reason
	for _, v := range []int{viewHead, viewWords} {
		norm := math.Sqrt(float64(max(len(f.ids[v]), 1)))
		for _, id := range f.ids[v] {
			if name := f.names[id]; name != "" {
				all = append(all, Reason{name, float64(m.weights[v][id]) / norm})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b Reason) int {
		switch {
		case a.Points > b.Points:
			return -1
		case a.Points < b.Points:
			return 1
		}
		return 0
	})
	return all[:min(n, len(all))]
}

// Clone returns a copy that can be trained apart.
func (m *Model) Clone() *Model {
	m.mu.RLock()
	defer m.mu.RUnlock()
	c := &Model{bias: m.bias, cal: m.cal, info: m.info}
	c.info.From = slices.Clone(m.info.From)
	for i := range m.weights {
		c.weights[i] = slices.Clone(m.weights[i])
	}
	return c
}
