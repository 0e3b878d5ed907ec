package load

import (
	"slices"
	"time"
)

// Latency holds nearest-rank quantiles in microseconds; all are 0 without samples.
type Latency struct {
	P50 float64 `json:"p50_us"`
	P95 float64 `json:"p95_us"`
	P99 float64 `json:"p99_us"`
	Max float64 `json:"max_us"`
}

// quantiles sorts samples in place. Every sample is kept, because a run of
// seconds has some 100,000 of them and a histogram would blur the p99.
func quantiles(samples []time.Duration) Latency {
	if len(samples) == 0 {
		return Latency{}
	}
	slices.Sort(samples)
	at := func(percent int) float64 {
		rank := (len(samples)*percent + 99) / 100
		return float64(samples[rank-1]) / float64(time.Microsecond)
	}
	return Latency{P50: at(50), P95: at(95), P99: at(99), Max: at(100)}
}
