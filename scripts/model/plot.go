package main

import (
	"fmt"
	"math"
	"strings"
)

// bin are messages of which a model says about the same.
type bin struct {
	from, to float64
	n, bad   int
	sum      float64 // of what it says
}

var binEdges = []float64{0, 0.02, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.98, 1}

// binsOf sorts messages by what a model says of them; bins without any are left out.
func binsOf(all []scored) (bins []bin) {
	for i := 0; i+1 < len(binEdges); i++ {
		b := bin{from: binEdges[i], to: binEdges[i+1]}
		for _, x := range all {
			if x.p >= b.from && (x.p < b.to || b.to == 1) {
				b.n++
				b.sum += x.p
				if x.bad {
					b.bad++
				}
			}
		}
		if b.n > 0 {
			bins = append(bins, b)
		}
	}
	return bins
}

// plot draws what was bad over what was said, as SVG: on the diagonal a model means what it says. A circle's area is the
// number of its messages, a bar two standard errors.
func plot(title string, bins []bin) string {
	const side, edge = 400.0, 50.0
	x := func(p float64) float64 { return edge + p*side }
	y := func(p float64) float64 { return edge + (1-p)*side }
	var b strings.Builder
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" font-family=\"sans-serif\" font-size=\"12\">\n", side+2*edge, side+2*edge)
	fmt.Fprintf(&b, "<title>%s</title>\n<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n", title)
	fmt.Fprintf(&b, "<text x=\"%.0f\" y=\"25\" font-size=\"14\">%s</text>\n", edge, title)
	for _, p := range []float64{0, 0.2, 0.4, 0.6, 0.8, 0.98, 1} {
		fmt.Fprintf(&b, "<path d=\"M%.1f %.1fV%.1f M%.1f %.1fH%.1f\" stroke=\"#ddd\" fill=\"none\"/>\n", x(p), y(0), y(1), x(0), y(p), x(1))
		if p != 1 {
			fmt.Fprintf(&b, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%g</text>\n<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%g</text>\n", x(p), y(0)+16, p, x(0)-6, y(p)+4, p)
		}
	}
	fmt.Fprintf(&b, "<path d=\"M%.1f %.1fL%.1f %.1f\" stroke=\"#888\" stroke-dasharray=\"4\"/>\n", x(0), y(0), x(1), y(1))
	for _, k := range bins {
		share, said := float64(k.bad)/float64(k.n), k.sum/float64(k.n)
		e := 2 * math.Sqrt(share*(1-share)/float64(k.n))
		fmt.Fprintf(&b, "<path d=\"M%.1f %.1fV%.1f\" stroke=\"#36c\"/>\n<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\" fill=\"#36c\" fill-opacity=\"0.6\"><title>%.2f to %.2f: %d messages, %d bad</title></circle>\n",
			x(said), y(max(0, share-e)), y(min(1, share+e)), x(said), y(share), 2+math.Sqrt(float64(k.n))/3, k.from, k.to, k.n, k.bad)
	}
	fmt.Fprintf(&b, "<text x=\"%.0f\" y=\"%.0f\" text-anchor=\"middle\">probability that the filter says</text>\n", x(0.5), y(0)+36)
	fmt.Fprintf(&b, "<text transform=\"translate(14 %.0f) rotate(-90)\" text-anchor=\"middle\">share that was bad</text>\n</svg>\n", y(0.5))
	return b.String()
}
