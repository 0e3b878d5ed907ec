package matrix

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// Bounds are what Sluice has to keep to, as ratios to the yardstick.
type Bounds struct {
	CPU  float64 `json:"gateway_cpu_at_most"`
	Rate float64 `json:"msgs_per_s_at_least"`
	P99  float64 `json:"p99_at_most"`
}

// Missed names each bound that r does not keep.
func (b Bounds) Missed(r Row) []string {
	var missed []string
	if r.CPURatio > b.CPU {
		missed = append(missed, fmt.Sprintf("CPU %.2f, at most %.2f", r.CPURatio, b.CPU))
	}
	if r.RateRatio < b.Rate {
		missed = append(missed, fmt.Sprintf("messages/s %.2f, at least %.2f", r.RateRatio, b.Rate))
	}
	if r.P99Ratio > b.P99 {
		missed = append(missed, fmt.Sprintf("p99 %.2f, at most %.2f", r.P99Ratio, b.P99))
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
			fmt.Fprintln(tw, "mode\tmsg/s\t\tCPU µs/msg\t\tp50 ms\tp99 ms\t\tsession p50 ms\tp99 ms\telsewhere\tlost/damaged/doubled/ambiguous/refused\t")
		}
		fmt.Fprintf(tw, "%s\t%.0f\t%s\t%s\t%s\t%.3f\t%.3f\t%s\t%.2f\t%.2f\t%.0f %%\t%d/%d/%d/%d/%d\t\n",
			r.Mode, r.Rate, ratio(r.RateRatio), microseconds(r.GatewayCPU), ratio(r.CPURatio),
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
