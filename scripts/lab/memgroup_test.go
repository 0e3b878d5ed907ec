//go:build labtest

package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var groupSerial atomic.Int64

// memoryGroup makes a control group whose processes may take so many bytes from now on, of whichever version the machine
// has. It goes with the test.
func memoryGroup(t *testing.T, bytes int) string {
	t.Helper()
	root, limit := "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		root, limit = "/sys/fs/cgroup", "memory.max"
		if err := os.WriteFile(root+"/cgroup.subtree_control", []byte("+memory"), 0o644); err != nil {
			t.Fatalf("could not bound the memory of a control group: %v", err)
		}
	}
	dir := filepath.Join(root, fmt.Sprintf("sluice-lab-%d-%d", os.Getpid(), groupSerial.Add(1)))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatalf("could not make a control group: %v", err)
	}
	t.Cleanup(func() {
		for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) { // the kernel is slow to see it empty
			err := os.Remove(dir)
			if err == nil || !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
				if err != nil {
					t.Error(err)
				}
				return
			}
		}
	})
	if err := os.WriteFile(filepath.Join(dir, limit), []byte(strconv.Itoa(bytes)), 0o644); err != nil {
		t.Fatalf("could not bound the memory of a control group: %v", err)
	}
	return dir
}

// outOfMemory moves the proxy to a group in which it may take next to nothing new (what it has stays with the old one), and
// sends until the kernel kills it.
func outOfMemory(ctx context.Context, t *testing.T, l *Lab, g *Gateway) error {
	t.Helper()
	group := memoryGroup(t, 64<<10)
	if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(strconv.Itoa(g.Sluiced.Pid())), 0o644); err != nil {
		return err
	}
	body := []byte("Subject: large\r\n\r\n" + strings.Repeat(strings.Repeat("x", 70)+"\r\n", 12_000))
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for range 8 {
		go func() {
			for ctx.Err() == nil {
				if c, err := l.Hello(ctx, "dave", "", "198.51.100.20:25"); err == nil {
					_, _, _ = c.Send("d@dave.example", []string{"large@sink.example"}, body) // it is not meant to arrive
					_ = c.Close()
				}
			}
		}()
	}
	select {
	case <-g.Sluiced.Done():
	case <-ctx.Done():
		return errors.New("the proxy outlives its memory")
	}
	if s := fmt.Sprint(g.Sluiced.Err()); !strings.Contains(s, "killed") {
		return fmt.Errorf("the proxy ended with %s instead of being killed", s)
	}
	return nil
}
