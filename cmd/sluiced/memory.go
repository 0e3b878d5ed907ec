package main

import (
	"context"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"

	"sluice/cmd/internal/config"
)

const (
	// headroom is about how much garbage may gather before it is collected. As a share of the heap it would be a multiple
	// of all that idle sessions have.
	headroom = 32 << 20
	// The bounds of GOGC: with a small heap the collector would run many times a second, with a large one it would never
	// rest.
	leastGC, mostGC = 50, 400
	memoryEvery     = 2 * time.Second
	// quiet is so little allocation in memoryEvery that nothing is going on; then more than slack is given back.
	quiet = 1 << 20
	slack = 8 << 20
)

// memoryKeeper bounds how much more memory the process has than it uses. GOGC in the environment wins.
type memoryKeeper struct {
	samples   []metrics.Sample
	percent   int
	allocated uint64 // bytes ever, as of the last look
	gave      uint64 // bytes ever, as of when memory was given back last
	setGC     func(percent int) int
	giveBack  func()
}

func newMemoryKeeper() *memoryKeeper {
	k := &memoryKeeper{setGC: debug.SetGCPercent, giveBack: giveBack}
	for _, name := range []string{
		"/gc/heap/live:bytes", "/memory/classes/heap/stacks:bytes", "/gc/heap/allocs:bytes",
	} {
		k.samples = append(k.samples, metrics.Sample{Name: name})
	}
	return k
}

// giveBack collects twice: what lies in pools of things to be used again survives once.
func giveBack() {
	runtime.GC()
	debug.FreeOSMemory()
}

// keepMemory looks now and then until ctx ends.
func keepMemory(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	k := newMemoryKeeper()
	t := time.NewTicker(memoryEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			metrics.Read(k.samples)
			k.look()
		case <-ctx.Done():
			return
		}
	}
}

// look sets the collector by what is in use, and gives memory back once nothing is going on.
func (k *memoryKeeper) look() {
	at := func(i int) uint64 { return k.samples[i].Value.Uint64() }
	live, stacks, allocated := at(0), at(1), at(2)
	if p := gcPercent(live + stacks); p < k.percent*4/5 || p > k.percent*5/4 {
		k.percent = p
		k.setGC(p)
	}
	idle := allocated-k.allocated < quiet
	k.allocated = allocated
	// What was allocated since it was given back last is garbage by now, for the most part. What the last collection found
	// in use says little: it may have been in the middle of what went on.
	if idle && allocated-k.gave > slack+live/8 {
		k.gave = allocated
		k.giveBack()
	}
}

// gcPercent is the GOGC by which about headroom of garbage gathers over a heap with its stacks.
func gcPercent(used uint64) int {
	return int(min(max(100*headroom/max(used, 1), leastGC), mostGC))
}

// limitMemory makes the collector work harder where memory really becomes scarce. GOMEMLIMIT in the environment wins.
func limitMemory(cfg *config.Config, log *slog.Logger) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(mostGC)
	}
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	// Bodies, 16 KiB for each session with its two connections, and room for everything else.
	limit := int64(cfg.SMTP.BodyMemoryTotal) + int64(cfg.SMTP.Sessions)*(16<<10) + 256<<20
	if most, ok := cgroupLimit(); ok {
		limit = min(limit, most/10*9)
	}
	debug.SetMemoryLimit(limit)
	log.Debug("memory limit", "bytes", limit)
}

// cgroupLimit reads the memory limit of this process's own control group (MemoryMax= of its unit).
func cgroupLimit() (int64, bool) {
	self, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return 0, false
	}
	path, ok := strings.CutPrefix(strings.TrimSpace(string(self)), "0::")
	if !ok {
		return 0, false
	}
	text, err := os.ReadFile("/sys/fs/cgroup" + path + "/memory.max")
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return n, err == nil && n > 0
}
