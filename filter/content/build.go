package content

import (
	"bytes"
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
	m.Calibrate(learn.Fit(scores, bad))
	m.Rename(name, built, from)
	return m
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
