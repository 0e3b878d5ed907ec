package learn

import (
	"math"
	"math/rand/v2"
	"slices"
)

// How fast is learnt. Chosen on the development corpus, whole sources held out among others: faster fits one source better
// and others worse.
const (
	batchRate   = 3.0
	batchEpochs = 15
	biasShare   = 0.1  // the bias moves that much slower
	margin      = 0.02 // what is judged better than that teaches nothing (TONE)
	decay       = 1e-4 // of the weights that a step touches, in batches

	onlineRate   = 6.0
	onlineMargin = 0.05
	onlineSteps  = 3 // times that one message is learnt until it is judged within the margin
)

// Example is a message with its label.
type Example struct {
	ids    [views][]uint32
	Bad    bool
	Prior  float64 // what rules say, as a logarithm of odds
	Weight float64 // 1 is usual
	Group  int     // near-duplicates share a number: cross-validation keeps them together
}

// Example returns the features in f as an example.
func (f *Features) Example(bad bool, prior, weight float64) Example {
	e := Example{Bad: bad, Prior: prior, Weight: weight}
	for i := range f.ids {
		e.ids[i] = slices.Clone(f.ids[i])
	}
	return e
}

func (e *Example) features() *Features { return &Features{ids: e.ids} }

// ScoreExample returns the score of an example.
func (m *Model) ScoreExample(e *Example) float64 { return m.Score(e.features(), e.Prior) }

func label(bad bool) float64 {
	if bad {
		return 1
	}
	return 0
}

// Train learns examples in several rounds, from what the model knows already. The order of the rounds is drawn with seed,
// so that the same examples make the same model.
func (m *Model) Train(examples []Example, seed uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	order := make([]int, len(examples))
	for i := range order {
		order[i] = i
	}
	r := rand.New(rand.NewPCG(seed, seed))
	for round := range batchEpochs {
		r.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		rate := batchRate / (1 + 0.3*float64(round))
		for _, i := range order {
			e := &examples[i]
			f := e.features()
			d := label(e.Bad) - Sigmoid(m.score(f, e.Prior))
			if math.Abs(d) >= margin {
				m.step(f, rate*e.Weight*d, 1-decay)
			}
		}
	}
	for i := range examples {
		if examples[i].Bad {
			m.info.Bad++
		} else {
			m.info.Good++
		}
	}
}

// step moves the weights of f's features by size, shared as the score shares them.
func (m *Model) step(f *Features, size float64, keep float32) {
	m.bias += size * biasShare
	for v := range m.weights {
		ids := f.ids[v]
		if len(ids) == 0 {
			continue
		}
		s := float32(size / math.Sqrt(float64(len(ids))))
		w := m.weights[v]
		for _, id := range ids {
			w[id] = w[id]*keep + s
		}
	}
}

// Learn learns one message on line: until it is judged right by a margin, some times at most. It returns the sum of the
// steps, by which Unlearn takes them back; 0 where the message was judged right already.
func (m *Model) Learn(f *Features, prior float64, bad bool) (steps float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for range onlineSteps {
		d := label(bad) - Sigmoid(m.score(f, prior))
		if math.Abs(d) < onlineMargin {
			break
		}
		m.step(f, onlineRate*d, 1)
		steps += onlineRate * d
	}
	if bad {
		m.info.Bad++
	} else {
		m.info.Good++
	}
	return steps
}

// LearnExample learns an example on line.
func (m *Model) LearnExample(e *Example, bad bool) float64 {
	return m.Learn(e.features(), e.Prior, bad)
}

// Unlearn takes back what Learn did with the same message.
func (m *Model) Unlearn(f *Features, steps float64, bad bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.step(f, -steps, 1)
	if bad {
		m.info.Bad--
	} else {
		m.info.Good--
	}
}

// folds is the number of parts of the cross-validation.
const folds = 5

// CrossValidate returns for each example the score that a model gives it which was trained on others: on the parts in
// which neither it nor its near-duplicates are.
func CrossValidate(examples []Example, seed uint64) []float64 {
	scores := make([]float64, len(examples))
	for k := range folds {
		var train []Example
		for _, e := range examples {
			if e.Group%folds != k {
				train = append(train, e)
			}
		}
		m := NewModel("")
		m.Train(train, seed)
		for i := range examples {
			if examples[i].Group%folds == k {
				scores[i] = m.score(examples[i].features(), examples[i].Prior)
			}
		}
	}
	return scores
}

// Fit returns the calibration under which scores explain the labels best (logistic regression by Newton's method, with
// the targets drawn in a little as Platt proposes).
func Fit(scores []float64, bad []bool) Calibration {
	var good, evil float64
	for _, b := range bad {
		if b {
			evil++
		} else {
			good++
		}
	}
	if good == 0 || evil == 0 {
		return Calibration{A: 1}
	}
	hi, lo := (evil+1)/(evil+2), 1/(good+2)
	a, b := 1.0, 0.0
	for range 50 {
		var ga, gb, haa, hab, hbb float64
		for i, s := range scores {
			t := lo
			if bad[i] {
				t = hi
			}
			p := Sigmoid(a*s + b)
			d, h := p-t, max(p*(1-p), 1e-12)
			ga, gb = ga+d*s, gb+d
			haa, hab, hbb = haa+h*s*s, hab+h*s, hbb+h
		}
		haa, hbb = haa+1e-9, hbb+1e-9
		det := haa*hbb - hab*hab
		if det <= 0 {
			break
		}
		da, db := (hbb*ga-hab*gb)/det, (haa*gb-hab*ga)/det
		a, b = a-clamp(da), b-clamp(db)
		if math.Abs(da)+math.Abs(db) < 1e-9 {
			break
		}
	}
	if !(a > 0.01 && a < 100) || math.IsNaN(b) {
		return Calibration{A: 1}
	}
	return Calibration{a, b}
}

func clamp(x float64) float64 { return max(-2, min(2, x)) }
