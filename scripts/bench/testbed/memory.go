package testbed

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Memory is what the process has of the machine's memory that it shares with nobody, in bytes.
func (p *Process) Memory() (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return 0, err
	}
	return field(text, "RssAnon:", 1024)
}

// Resident is what of the process is in memory, its program's text included, in bytes.
func (p *Process) Resident() (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return 0, err
	}
	return field(text, "VmRSS:", 1024)
}

// field reads the number behind a word of a file of lines.
func field(text []byte, word string, unit int64) (int64, error) {
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), word); ok {
			words := strings.Fields(rest)
			if len(words) == 0 {
				break
			}
			n, err := strconv.ParseInt(words[0], 10, 64)
			return n * unit, err
		}
	}
	return 0, fmt.Errorf("could not find %q", word)
}

// Group is a memory control group of whichever version the machine has: it knows what the kernel keeps for a process.
type Group struct {
	dir string
	v2  bool
}

// NewGroup makes a group of this process's own.
func NewGroup() (*Group, error) {
	g := &Group{dir: "/sys/fs/cgroup/memory"}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		g = &Group{dir: "/sys/fs/cgroup", v2: true}
		if err := os.WriteFile(g.dir+"/cgroup.subtree_control", []byte("+memory"), 0o644); err != nil {
			return nil, fmt.Errorf("could not measure the kernel's memory: %w", err)
		}
	}
	g.dir = filepath.Join(g.dir, Name(os.Getpid())+"memory")
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		return nil, fmt.Errorf("could not make a control group: %w", err)
	}
	return g, nil
}

// Add moves a process into the group; what the kernel had for it before stays elsewhere.
func (g *Group) Add(p *Process) error {
	return os.WriteFile(filepath.Join(g.dir, "cgroup.procs"), []byte(strconv.Itoa(p.PID())), 0o644)
}

// Kernel is what the kernel keeps for the group's processes, in bytes: sockets, files, what they are watched by.
func (g *Group) Kernel() (int64, error) {
	if g.v2 {
		text, err := os.ReadFile(filepath.Join(g.dir, "memory.stat"))
		if err != nil {
			return 0, err
		}
		return field(text, "kernel ", 1)
	}
	text, err := os.ReadFile(filepath.Join(g.dir, "memory.kmem.usage_in_bytes"))
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
}

// Close removes the group once it is empty.
func (g *Group) Close() error {
	for end := time.Now().Add(grace); ; time.Sleep(20 * time.Millisecond) { // the kernel is slow to see it empty
		err := os.Remove(g.dir)
		if !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			return err
		}
	}
}
