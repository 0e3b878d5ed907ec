package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	runDir = "/run/netns" // where iproute2 names namespaces
	// grace is how long a program may take to end before it is killed.
	grace = 10 * time.Second
)

// startIn starts c with its network namespace changed. The thread goes back
// afterwards; Go makes no other thread from a locked one.
func startIn(namespace string, c *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	there, err := os.Open(filepath.Join(runDir, namespace))
	if err != nil {
		return err
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("could not enter namespace %s: %w", namespace, err)
	}
	startErr := c.Start()
	if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
		// A thread that stays in the wrong namespace must never serve another goroutine.
		runtime.LockOSThread()
		return errors.Join(startErr, fmt.Errorf("could not leave namespace %s: %w", namespace, err))
	}
	return startErr
}

// Process is a program that runs inside a namespace.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// Start starts c inside a namespace; it ends with the benchmark, also when
// that is killed.
func Start(namespace string, c *exec.Cmd) (*Process, error) {
	if c.SysProcAttr == nil {
		c.SysProcAttr = &syscall.SysProcAttr{}
	}
	c.SysProcAttr.Pdeathsig = unix.SIGKILL
	c.SysProcAttr.Setpgid = true // an interrupt from the terminal reaches the benchmark alone
	if err := startIn(namespace, c); err != nil {
		return nil, fmt.Errorf("could not start %s: %w", c.Path, err)
	}
	p := &Process{cmd: c, done: make(chan struct{})}
	go func() {
		p.err = c.Wait()
		close(p.done)
	}()
	return p, nil
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Wait returns when the program has ended by itself, or kills it when ctx is done.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return errors.Join(ctx.Err(), p.Stop())
	}
}

// Running says whether the program has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Stop asks the program to end, and kills it if it does not within 10 s.
func (p *Process) Stop() error {
	if !p.Running() {
		return nil
	}
	if err := p.cmd.Process.Signal(unix.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(grace):
	}
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.done
	return fmt.Errorf("%s had to be killed: it did not end within %v of SIGTERM", p.cmd.Path, grace)
}

// CPU is the time all threads of the process used so far, those that ended
// included. It reads the process's CPU clock (clock_getcpuclockid(3)), which
// counts nanoseconds where /proc/PID/stat counts ticks and /proc/PID/schedstat
// only the first thread.
func (p *Process) CPU() (time.Duration, error) {
	const schedClock = 2 // CPUCLOCK_SCHED of the kernel's include/linux/posix-timers.h
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^p.PID()<<3|schedClock), &ts); err != nil {
		return 0, fmt.Errorf("could not read the CPU time of %s: %w; has it ended?", p.cmd.Path, err)
	}
	return time.Duration(ts.Nano()), nil
}
