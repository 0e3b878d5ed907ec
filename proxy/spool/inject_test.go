//go:build nettest && linux

package spool

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestSystemCallsFail: whichever call fails, by the kernel's own word, what was said to be kept is there at the next start,
// and what was done is not. The calls are failed by strace.
func TestSystemCallsFail(t *testing.T) {
	t.Parallel()
	for _, fault := range []string{"fdatasync:error=EIO", "fsync:error=EIO", "write:error=EIO", "write:error=ENOSPC", "unlinkat:error=EIO", "linkat:error=EIO", "renameat:error=EIO"} {
		for _, when := range []int{1, 2, 7, 23} {
			t.Run(fmt.Sprintf("%s at %d", fault, when), func(t *testing.T) { failAt(t, fault, when) })
		}
	}
}

// mostLines is when a child is ended whose fault does not come, or is survived.
const mostLines = 400

func failAt(t *testing.T, fault string, when int) {
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	call, _, _ := strings.Cut(fault, ":")
	cmd := exec.Command("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace="+call, "-e", fmt.Sprintf("inject=%s:when=%d", fault, when), exe, "-test.run=^$")
	cmd.Env = append(os.Environ(), "SLUICE_SPOOL_CHILD="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	led := newHeard()
	in := bufio.NewScanner(out)
	for lines := 0; in.Scan(); lines++ {
		_ = led.note(in.Text()) // it says so when a call fails
		if lines == mostLines {
			if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != nil { // tracer and child
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait() // it failed, or was killed
	s, err := Open(dir, Options{SegmentSize: 64 << 10, Crashes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	there := stored(t, s)
	led.check(t, there)
	t.Logf("%d kept, %d done, %d left", len(led.kept), len(led.done), len(there))
}
