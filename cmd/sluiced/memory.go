package main

import (
	"log/slog"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"sluice/cmd/internal/config"
)

// tuneMemory trades memory for CPU: with a small live heap the collector would run many times a second. The limit makes
// it work harder only where memory really becomes scarce. GOGC and GOMEMLIMIT in the environment win.
func tuneMemory(cfg *config.Config, log *slog.Logger) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
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
