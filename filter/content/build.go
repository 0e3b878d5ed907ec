package content

import (
	"bytes"
	"math"
	"slices"
	"time"

	"sluice/filter/content/learn"
	"sluice/filter/content/view"
)

// seed orders the rounds of training: the same messages make the same model.
const seed = 7

// Build returns a model that was trained on examples and whose probabilities were fitted to what such models say of
// messages that they did not see.
func Build(name string, built time.Time, from []string, examples []learn.Example) *learn.Model {
	scores := learn.CrossValidate(examples, seed)
	bad := make([]bool, len(examples))
	for i := range examples {
		bad[i] = examples[i].Bad
	}
	m := learn.NewModel(name)
	m.Train(examples, seed)
	m.Calibrate(cautious(learn.Fit(scores, bad), scores, bad))
	m.Rename(name, built, from)
	return m
}

// What a fit to all messages says of the few good ones that look worst is too sure of itself, and those are who is hurt. So
// the calibration is moved, by maxShift at most, until of the good messages no more than allowed would be called spam by a
// model that did not see them.
const (
	allowed  = 0.0002
	maxShift = 2.0
)

func cautious(c learn.Calibration, scores []float64, bad []bool) learn.Calibration {
	var good []float64
	for i, s := range scores {
		if !bad[i] {
			good = append(good, s)
		}
	}
	slices.Sort(good)
	k := len(good) - 1 - int(allowed*float64(len(good)))
	if k < 0 {
		return c
	}
	spam := DefaultThresholds.Spam
	if over := c.A*good[k] + c.B - math.Log(spam/(1-spam)); over > 0 {
		c.B -= min(over, maxShift)
	}
	return c
}

// group tells near-duplicates by the first letters of their text, whatever their figures and blanks.
func group(v *view.View) int {
	h := uint32(2166136261)
	n := 0
	for _, text := range [2][]byte{v.Text, v.Subject} {
		for _, c := range text {
			if c |= 0x20; c < 'a' || c > 'z' {
				continue
			}
			h = (h ^ uint32(c)) * 16777619
			if n++; n == 100 {
				return int(h >> 1)
			}
		}
	}
	return int(h >> 1)
}

// CRLF returns data with the line ends that mail has on its way, whichever it came with.
func CRLF(data []byte) []byte {
	bare := bytes.Count(data, []byte("\n")) - bytes.Count(data, []byte("\r\n"))
	if bare == 0 {
		return data
	}
	out := make([]byte, 0, len(data)+bare)
	for i, c := range data {
		if c == '\n' && (i == 0 || data[i-1] != '\r') {
			out = append(out, '\r')
		}
		out = append(out, c)
	}
	return out
}
