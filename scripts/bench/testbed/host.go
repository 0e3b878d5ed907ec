package testbed

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tick is what /proc/stat counts in: USER_HZ is 100 on every architecture that Go runs on.
const tick = 10 * time.Millisecond

// Host describes the machine, for whoever reads the figures later.
type Host struct {
	Kernel  string `json:"kernel"`
	CPU     string `json:"cpu"`
	Cores   int    `json:"cores"`
	Go      string `json:"go"`
	LoadAvg string `json:"loadavg"`
}

// ReadHost looks at the machine; what cannot be found out stays empty.
func ReadHost() Host {
	h := Host{Cores: runtime.NumCPU(), Go: runtime.Version(), LoadAvg: LoadAvg()}
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		h.Kernel = unix.ByteSliceToString(uts.Release[:])
	}
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return h
	}
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			h.CPU = strings.TrimSpace(value)
			break
		}
	}
	return h
}

// LoadAvg is the load average over 1, 5 and 15 minutes, or empty.
func LoadAvg() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	fields := bytes.Fields(b)
	return string(bytes.Join(fields[:min(3, len(fields))], []byte(" ")))
}

// Idle is the time that all cores together had nothing to do since boot. What
// is not idle was used, by interrupts and by the hypervisor for others too;
// the kernel measures idle time, but only samples what the rest was used for.
func Idle() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	var user, nice, system, idle, iowait int64
	if _, err := fmt.Sscanf(string(b), "cpu %d %d %d %d %d", &user, &nice, &system, &idle, &iowait); err != nil {
		return 0, fmt.Errorf("could not read /proc/stat: %w", err)
	}
	return time.Duration(idle+iowait) * tick, nil
}
