package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"syscall"
	"time"

	"sluice/filter/content"
	"sluice/filter/content/shipped"
)

// costRounds is how often the mails of a size are judged.
const costRounds = 7

// cost measures the memory of the shipped model, and the processor time of a judgement by it, by size.
func cost(w io.Writer, all []*letter) error {
	before := heapInUse()
	m, err := shipped.Model()
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "memory of the shipped model: %.1f MiB\n", float64(heapInUse()-before)/(1<<20))
	j := content.NewJudge(m)
	fmt.Fprintf(w, "processor time of a judgement, all parts of it: the median of %d rounds\n", costRounds)
	for _, size := range []struct {
		name        string
		least, most int
	}{{"up to 2 KiB", 0, 2 << 10}, {"2 to 8 KiB", 2 << 10, 8 << 10}, {"8 to 12 KiB", 8 << 10, 12 << 10}, {"12 to 50 KiB", 12 << 10, 50 << 10}, {"50 KiB and more", 50 << 10, 1 << 30}} {
		some := pick(all, func(m *letter) bool { return len(m.data) >= size.least && len(m.data) < size.most })
		if len(some) == 0 {
			continue
		}
		some = some[:min(len(some), 500)]
		rounds := make([]float64, costRounds) // the machine's speed changes from one second to the next
		for i := range rounds {
			n := 0
			began := processorTime()
			for n < 1000 {
				for _, x := range some {
					j.Judge(x.data, content.DefaultThresholds, 2)
					n++
				}
			}
			rounds[i] = float64((processorTime() - began).Nanoseconds()) / float64(n) / 1000
		}
		slices.Sort(rounds)
		fmt.Fprintf(w, "  %-18s %8.1f µs, the least %.1f\n", size.name, rounds[len(rounds)/2], rounds[0])
	}
	fmt.Fprintln(w)
	return nil
}

// heapInUse is how much memory is in use.
func heapInUse() int64 {
	runtime.GC()
	runtime.GC() // what was pooled goes with the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
