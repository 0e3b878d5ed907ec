package main

import (
	"encoding/xml"
	"io"
	"strings"
	"testing"
)

// TestPlot: the picture is whole, and has a circle for each bin that has messages.
func TestPlot(t *testing.T) {
	t.Parallel()
	var all []scored
	for i := range 100 {
		all = append(all, scored{&letter{bad: i >= 50}, 0, float64(i) / 100}, scored{&letter{bad: true}, 0, 1})
	}
	bins := binsOf(all)
	if last := bins[len(bins)-1]; len(bins) != 9 || last.n != 102 || last.bad != 102 || bins[0].n != 2 || bins[0].bad != 0 {
		t.Errorf("bins: %+v", bins)
	}
	svg := plot("x", bins)
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(svg, "<circle"); n != len(bins) {
		t.Errorf("%d circles for %d bins", n, len(bins))
	}
}
