// Package matrix names what the benchmark measures and turns its samples into medians, ratios and verdicts.
package matrix

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"sluice/scripts/bench/load"
	"sluice/scripts/bench/sink"
)

// Yardstick is the way of forwarding that ratios refer to.
const Yardstick = "relay"

// Filtered is Sluice with the content filter on, which the way "sluice" does without.
const Filtered = "content"

// Before is an earlier build, measured as the way "sluice" is.
const Before = "before"

// Cell is one kind of traffic.
type Cell struct {
	Size     int  `json:"size"` // bytes of one message
	Sessions int  `json:"sessions"`
	PerConn  int  `json:"messages_per_connection"`
	Pipeline bool `json:"pipelined"`
	Slow     bool `json:"slow_destinations"` // each message takes its destination sink.SlowBy
	TLS      Legs `json:"tls"`
}

// Legs says which connections of a message are encrypted.
type Legs uint8

// The legs.
const (
	NoTLS Legs = iota
	OnwardTLS
	BothTLS
)

func (l Legs) String() string { return [...]string{"", "TLS onward", "TLS both legs"}[l] }

// Kind is the kind of destination that the traffic needs.
func (c Cell) Kind() sink.Kind {
	switch {
	case c.TLS != NoTLS:
		return sink.TLS
	case c.Slow:
		return sink.Slow
	}
	return sink.Plain
}

// Has tells whether a way is measured with the traffic: only Sluice ends TLS, and where nothing does the client encrypts
// all the way or nothing. The content filter, which looks at text alone, is measured by fast messages in plain text.
func (c Cell) Has(mode string) bool {
	if mode == Filtered {
		return c.TLS == NoTLS && !c.Slow && c.Size < 1<<20
	}
	switch c.TLS {
	case OnwardTLS:
		return mode == "sluice" || mode == Before
	case BothTLS:
		return mode != Yardstick
	}
	return true
}

func (c Cell) String() string {
	s := fmt.Sprintf("%d KiB, %d session%s, %d message%s per connection", c.Size>>10, c.Sessions, plural(c.Sessions), c.PerConn, plural(c.PerConn))
	if c.Pipeline {
		s += ", pipelined"
	}
	if c.Slow {
		s += fmt.Sprintf(", %v each at the destination", sink.SlowBy)
	}
	if c.TLS != NoTLS {
		s += ", " + c.TLS.String()
	}
	return s
}

func plural(n int) string {
	if n == 1 {
		return ""
	}
	return "s"
}

// Cells are the standard matrix: 10 KiB at 1 and 100 sessions, 100 messages
// per connection and 1 per connection, also in batches; with more of it also
// large messages, slow destinations and TLS.
func Cells(more bool) []Cell {
	var cells []Cell
	for _, batch := range []bool{false, true} {
		for _, perConn := range []int{100, 1} {
			for _, sessions := range []int{1, 100} {
				if !batch || sessions > 1 {
					cells = append(cells, Cell{Size: 10 << 10, Sessions: sessions, PerConn: perConn, Pipeline: batch})
				}
			}
		}
	}
	if !more {
		return cells
	}
	return append(cells,
		Cell{Size: 100 << 10, Sessions: 100, PerConn: 100},
		Cell{Size: 5 << 20, Sessions: 10, PerConn: 100},
		Cell{Size: 10 << 10, Sessions: 1000, PerConn: 100, Slow: true},
		Cell{Size: 10 << 10, Sessions: 100, PerConn: 100, TLS: BothTLS},
		Cell{Size: 10 << 10, Sessions: 100, PerConn: 100, TLS: OnwardTLS},
		Cell{Size: 10 << 10, Sessions: 100, PerConn: 1, TLS: BothTLS},
	)
}

// Sample is one run of one cell through one gateway. CPU is in microseconds per message.
type Sample struct {
	Mode       string      `json:"mode"`
	Cell       Cell        `json:"cell"`
	Round      int         `json:"round"`
	Load       load.Result `json:"load"`
	Arrived    sink.Report `json:"arrived"`
	GatewayCPU float64     `json:"gateway_cpu_us_per_msg"`
	ClientCPU  float64     `json:"client_cpu_us_per_msg"`
	SinkCPU    float64     `json:"sink_cpu_us_per_msg"`
	// Elsewhere is the share of all cores used by neither load nor sink nor
	// gateway: neighbours, the hypervisor, packets handled outside any of the three.
	Elsewhere float64 `json:"cpu_elsewhere_share"`
}

// Loss says what went wrong with messages. Ambiguous ones arrived without a 250.
type Loss struct {
	Lost      int `json:"lost"`
	Damaged   int `json:"damaged"`
	Doubled   int `json:"doubled"`
	Ambiguous int `json:"ambiguous"`
	Refused   int `json:"refused"` // replies and breaks that were not what the load needs
}

// None says that every message arrived once, whole, and was answered 250.
func (l Loss) None() bool { return l == Loss{} }

// Loss compares what was answered 250 with what arrived.
func (s Sample) Loss() Loss {
	unacked := map[uint32]bool{}
	for _, place := range s.Load.Unacked {
		unacked[place] = true
	}
	l := Loss{Damaged: s.Arrived.Damaged, Doubled: s.Arrived.Doubled + s.Arrived.Stray, Ambiguous: len(unacked)}
	for _, place := range s.Arrived.Missing {
		if unacked[place] {
			l.Ambiguous--
		} else {
			l.Lost++
		}
	}
	for _, f := range s.Load.Faults {
		l.Refused += f.Count
	}
	return l
}

// Row is the median over rounds of one cell through one gateway. Ratios are
// medians of the ratios to the yardstick inside each round, so that a busy
// minute of the machine falls on both; 0 means that there is none.
type Row struct {
	Mode       string  `json:"mode"`
	Cell       Cell    `json:"cell"`
	Rounds     int     `json:"rounds"`
	Rate       float64 `json:"msgs_per_s"`
	GatewayCPU float64 `json:"gateway_cpu_us_per_msg"`
	P50        float64 `json:"transaction_p50_us"`
	P99        float64 `json:"transaction_p99_us"`
	SessionP50 float64 `json:"session_p50_us"`
	SessionP99 float64 `json:"session_p99_us"`
	Elsewhere  float64 `json:"cpu_elsewhere_share"`
	RateRatio  float64 `json:"msgs_per_s_ratio"`
	CPURatio   float64 `json:"gateway_cpu_ratio"`
	P99Ratio   float64 `json:"transaction_p99_ratio"`
	Forwarded  float64 `json:"msgs_per_s_ratio_to_forward"`
	Loss       Loss    `json:"loss"` // sums, not medians
}

// Rows summarises samples, in the order in which cells and modes first occur.
func Rows(samples []Sample) []Row {
	var rows []Row
	for _, s := range samples {
		if !slices.ContainsFunc(rows, func(r Row) bool { return r.Mode == s.Mode && r.Cell == s.Cell }) {
			rows = append(rows, row(samples, s.Cell, s.Mode))
		}
	}
	// Samples come round by round; rows stand cell by cell.
	order := map[Cell]int{}
	for i, r := range rows {
		if _, ok := order[r.Cell]; !ok {
			order[r.Cell] = i
		}
	}
	slices.SortStableFunc(rows, func(a, b Row) int { return cmp.Compare(order[a.Cell], order[b.Cell]) })
	return rows
}

func row(samples []Sample, cell Cell, mode string) Row {
	mine := of(samples, cell, mode)
	yard := of(samples, cell, Yardstick)
	r := Row{Mode: mode, Cell: cell, Rounds: len(mine)}
	for _, m := range measures(&r) {
		*m.value = median(mine, m.of)
		if m.ratio != nil {
			*m.ratio = medianRatio(mine, yard, m.of)
		}
	}
	r.Forwarded = medianRatio(mine, of(samples, cell, "forward"), func(s Sample) float64 { return s.Load.Rate })
	for _, s := range mine {
		l := s.Loss()
		r.Loss.Lost += l.Lost
		r.Loss.Damaged += l.Damaged
		r.Loss.Doubled += l.Doubled
		r.Loss.Ambiguous += l.Ambiguous
		r.Loss.Refused += l.Refused
	}
	return r
}

type measure struct {
	value, ratio *float64
	of           func(Sample) float64
}

func measures(r *Row) []measure {
	return []measure{
		{&r.Rate, &r.RateRatio, func(s Sample) float64 { return s.Load.Rate }},
		{&r.GatewayCPU, &r.CPURatio, func(s Sample) float64 { return s.GatewayCPU }},
		{&r.P50, nil, func(s Sample) float64 { return s.Load.Latency.P50 }},
		{&r.P99, &r.P99Ratio, func(s Sample) float64 { return s.Load.Latency.P99 }},
		{&r.SessionP50, nil, func(s Sample) float64 { return s.Load.Session.P50 }},
		{&r.SessionP99, nil, func(s Sample) float64 { return s.Load.Session.P99 }},
		{&r.Elsewhere, nil, func(s Sample) float64 { return s.Elsewhere }},
	}
}

func of(samples []Sample, cell Cell, mode string) []Sample {
	var some []Sample
	for _, s := range samples {
		if s.Cell == cell && s.Mode == mode {
			some = append(some, s)
		}
	}
	return some
}

func median(samples []Sample, f func(Sample) float64) float64 {
	values := make([]float64, len(samples))
	for i, s := range samples {
		values[i] = f(s)
	}
	return middle(values)
}

func medianRatio(mine, yard []Sample, f func(Sample) float64) float64 {
	var ratios []float64
	for _, s := range mine {
		for _, y := range yard {
			if y.Round == s.Round && f(y) > 0 {
				ratios = append(ratios, f(s)/f(y))
			}
		}
	}
	return middle(ratios)
}

// Change tells what the gateway's CPU of a message in one way is to that in another, round by round, and how far that is from sure: the
// geometric mean of the ratios, and its standard error as a part of it. Without two rounds of both there is none.
func Change(samples []Sample, cell Cell, mode, beside string) (ratio, spread float64, ok bool) {
	var logs []float64
	for _, s := range of(samples, cell, mode) {
		for _, b := range of(samples, cell, beside) {
			if b.Round == s.Round && b.GatewayCPU > 0 && s.GatewayCPU > 0 {
				logs = append(logs, math.Log(s.GatewayCPU/b.GatewayCPU))
			}
		}
	}
	n := float64(len(logs))
	if n < 2 {
		return 0, 0, false
	}
	mean, square := 0.0, 0.0
	for _, l := range logs {
		mean += l / n
	}
	for _, l := range logs {
		square += (l - mean) * (l - mean)
	}
	return math.Exp(mean), math.Sqrt(square / (n - 1) / n), true
}

func middle(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}
