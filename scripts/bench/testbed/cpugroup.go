package testbed

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// CPUGroup is a control group that counts the CPU time of processes and of all that they start.
type CPUGroup struct {
	dir string
	v2  bool
}

// NewCPUGroup makes a group and moves processes into it, with those that they have started already.
func NewCPUGroup(name string, pids ...int) (*CPUGroup, error) {
	g := &CPUGroup{dir: "/sys/fs/cgroup/cpuacct"}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		g = &CPUGroup{dir: "/sys/fs/cgroup", v2: true}
	}
	g.dir = filepath.Join(g.dir, Name(os.Getpid())+name)
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		return nil, fmt.Errorf("could not make a control group: %w", err)
	}
	if err := g.take(pids); err != nil {
		return nil, errors.Join(err, os.Remove(g.dir))
	}
	return g, nil
}

// take puts processes and their descendants into the group.
func (g *CPUGroup) take(pids []int) error {
	for n := -1; n != len(pids); { // until nobody had children meanwhile
		n = len(pids)
		for _, pid := range pids {
			if err := os.WriteFile(filepath.Join(g.dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o644); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("could not count the CPU time of process %d: %w", pid, err)
			}
		}
		more, err := children(pids)
		if err != nil {
			return err
		}
		pids = append(pids, more...)
	}
	return nil
}

// children lists processes that some of pids started and that are none of them.
func children(pids []int) (more []int, err error) {
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	for _, path := range all {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:]) // proc(5): state, parent
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil || len(fields) < 2 {
			continue
		}
		if parent, err := strconv.Atoi(string(fields[1])); err == nil && slices.Contains(pids, parent) && !slices.Contains(pids, pid) {
			more = append(more, pid)
		}
	}
	return more, nil
}

// Used is the CPU time of all processes that were in the group, as long as they were.
func (g *CPUGroup) Used() (time.Duration, error) {
	if g.v2 {
		text, err := os.ReadFile(filepath.Join(g.dir, "cpu.stat"))
		if err != nil {
			return 0, err
		}
		n, err := field(text, "usage_usec", 1)
		return time.Duration(n) * time.Microsecond, err
	}
	text, err := os.ReadFile(filepath.Join(g.dir, "cpuacct.usage"))
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return time.Duration(n), err
}

// Close removes the group once its processes have ended.
func (g *CPUGroup) Close() error {
	for end := time.Now().Add(grace); ; time.Sleep(20 * time.Millisecond) { // the kernel is slow to see it empty
		err := os.Remove(g.dir)
		if !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			return err
		}
	}
}
