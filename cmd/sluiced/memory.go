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
	// The bounds of how much garbage may gather before it is collected. As a share of the heap it would be a multiple of all
	// that idle sessions have; with a large heap it may be half of that.
	leastHeadroom, mostHeadroom = 4 << 20, 32 << 20
	mostGC                      = 400 // GOGC
	// markTime is about how long the collector takes for one byte that it has to look into. It is to be at work for a
	// hundredth of one processor's time, and not more often than oftenest: each time it empties the pools, too, which
	// costs short sessions more than the looking.
	markTime    = time.Nanosecond
	oftenest    = 2 * time.Second
	memoryEvery = 2 * time.Second
	leastSpan   = memoryEvery / 20 // in less time too little happens to tell a rate
	// quiet is so little allocation in memoryEvery that nothing is going on; then more than slack is given back.
	quiet = 1 << 20
	slack = 8 << 20
)

// memoryKeeper bounds how much more memory the process has than it uses. GOGC in the environment wins.
type memoryKeeper struct {
	samples   []metrics.Sample
	percent   int
	headroom  uint64
	seen      time.Time // of the last look
	allocated uint64    // bytes ever, as of then
	ticked    uint64    // bytes ever, as of the last tick
	gave      uint64    // bytes ever, as of when memory was given back last
	setGC     func(percent int) int
	giveBack  func()
}

func newMemoryKeeper(now time.Time) *memoryKeeper {
	k := &memoryKeeper{headroom: leastHeadroom, setGC: debug.SetGCPercent, giveBack: giveBack, seen: now}
	for _, name := range []string{
		"/gc/heap/live:bytes", "/memory/classes/heap/stacks:bytes", "/gc/heap/allocs:bytes", "/gc/scan/total:bytes",
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

// keepMemory looks now and then, and after each collection, until ctx ends.
func keepMemory(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	k := newMemoryKeeper(time.Now())
	metrics.Read(k.samples)
	k.allocated = k.at(2) // what it took to start is no rate
	k.look(time.Now())
	t := time.NewTicker(memoryEvery)
	defer t.Stop()
	collected := make(chan struct{}, 1)
	afterNext(collected)
	for {
		select {
		case now := <-t.C:
			metrics.Read(k.samples)
			k.look(now)
			k.tick()
		case <-collected:
			afterNext(collected)
			metrics.Read(k.samples)
			k.look(time.Now())
		case <-ctx.Done():
			return
		}
	}
}

// afterNext has a channel hear of the next collection.
func afterNext(collected chan<- struct{}) {
	runtime.AddCleanup(new([32]byte), func(c chan<- struct{}) { c <- struct{}{} }, collected)
}

// look sets the collector by what is in use, and by how much garbage is made.
func (k *memoryKeeper) look(now time.Time) {
	used, allocated, scanned := k.at(0)+k.at(1), k.at(2), k.at(3)
	if since := now.Sub(k.seen); since >= leastSpan {
		// What comes in a burst has its room at once, and keeps it for some looks.
		k.headroom = max(headroom(float64(allocated-k.allocated)/since.Seconds(), scanned, used), k.headroom/4*3)
		k.seen, k.allocated = now, allocated
	}
	if p := gcPercent(used, k.headroom); p < k.percent*4/5 || p > k.percent*5/4 {
		k.percent = p
		k.setGC(p)
	}
}

// tick gives memory back once nothing is going on.
func (k *memoryKeeper) tick() {
	live, allocated := k.at(0), k.at(2)
	idle := allocated-k.ticked < quiet
	k.ticked = allocated
	// What was allocated since it was given back last is garbage by now, for the most part. What the last collection found
	// in use says little: it may have been in the middle of what went on.
	if idle && allocated-k.gave > slack+live/8 {
		k.gave = allocated
		k.giveBack()
	}
}

func (k *memoryKeeper) at(i int) uint64 { return k.samples[i].Value.Uint64() }

// headroom is how much garbage may gather where so many bytes are allocated a second, the collector looks into scanned ones, and
// used are in use.
func headroom(rate float64, scanned, used uint64) uint64 {
	pause := max(100*markTime*time.Duration(scanned), oftenest)
	return min(max(uint64(rate*pause.Seconds()), leastHeadroom), max(mostHeadroom, used/2))
}

// gcPercent is the GOGC by which at least about room bytes of garbage gather over a heap with its stacks. Rounded down it would be 0
// where a hundredth of a large heap is more than that, and the collector would never rest.
func gcPercent(used, room uint64) int {
	used = max(used, 1)
	return int(min((100*room+used-1)/used, mostGC))
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
