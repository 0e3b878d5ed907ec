package matrix

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// Bounds are what Sluice has to keep to, as ratios to the yardstick and to plain forwarding; 0 is no bound.
type Bounds struct {
	CPU     float64 `json:"gateway_cpu_at_most"`
	Rate    float64 `json:"msgs_per_s_at_least"`
	P99     float64 `json:"p99_at_most"`
	Forward float64 `json:"msgs_per_s_of_forward_at_least"`
}

// BoundsOf are those of one kind of traffic.
func BoundsOf(c Cell) Bounds {
	switch {
	case c.TLS != NoTLS:
		return Bounds{} // nothing to compare it with does the same
	case c.Slow:
		return Bounds{Forward: 0.97}
	case c.Size > 1<<20:
		return Bounds{CPU: 2}
	case c.Sessions > 1 && c.PerConn > 1 && !c.Pipeline && c.Size <= 10<<10:
		return Bounds{CPU: 1.3, Rate: 0.85, P99: 1.5, Forward: 0.48}
	}
	return Bounds{CPU: 1.3, Rate: 0.85, P99: 1.5}
}

// Missed names each bound that r does not keep.
func (b Bounds) Missed(r Row) []string {
	var missed []string
	least := func(what string, is, bound float64) {
		if bound > 0 && is < bound {
			missed = append(missed, fmt.Sprintf("%s %.2f, at least %.2f", what, is, bound))
		}
	}
	most := func(what string, is, bound float64) {
		if bound > 0 && is > bound {
			missed = append(missed, fmt.Sprintf("%s %.2f, at most %.2f", what, is, bound))
		}
	}
	most("CPU", r.CPURatio, b.CPU)
	least("messages/s", r.RateRatio, b.Rate)
	most("p99", r.P99Ratio, b.P99)
	if r.Forwarded > 0 { // forwarding was measured, too
		least("messages/s of forwarding", r.Forwarded, b.Forward)
	}
	return missed
}

// Write prints rows as one table for each cell, ratios to the yardstick behind a ×.
func Write(w io.Writer, rows []Row) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	var last Cell
	for _, r := range rows {
		if r.Cell != last {
			last = r.Cell
			fmt.Fprintf(tw, "\n%s (medians of %d)\n", r.Cell, r.Rounds)
			fmt.Fprintln(tw, "mode\tmsg/s\t\tof forward\tCPU µs/msg\t\tp50 ms\tp99 ms\t\tsession p50 ms\tp99 ms\telsewhere\tlost/damaged/doubled/ambiguous/refused\t")
		}
		fmt.Fprintf(tw, "%s\t%.0f\t%s\t%s\t%s\t%s\t%.3f\t%.3f\t%s\t%.2f\t%.2f\t%.0f %%\t%d/%d/%d/%d/%d\t\n",
			r.Mode, r.Rate, ratio(r.RateRatio), ratio(r.Forwarded), microseconds(r.GatewayCPU), ratio(r.CPURatio),
			r.P50/1e3, r.P99/1e3, ratio(r.P99Ratio), r.SessionP50/1e3, r.SessionP99/1e3, 100*r.Elsewhere,
			r.Loss.Lost, r.Loss.Damaged, r.Loss.Doubled, r.Loss.Ambiguous, r.Loss.Refused)
	}
	return tw.Flush()
}

func ratio(v float64) string {
	if v == 0 {
		return ""
	}
	return fmt.Sprintf("×%.2f", v)
}

func microseconds(v float64) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f", v)
}
