package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

// Command is a program to start on a host of the lab.
type Command struct {
	Args  []string // program and arguments
	Name  string   // of the log file; default: the program's base name
	Env   []string // beside a minimal environment
	Dir   string   // working folder, default /
	UID   uint32   // with GID: run as these, without capabilities, when not 0
	GID   uint32
	Root  string // folder to chroot into
	Stdin io.Reader
	// Files are passed as descriptors 3, 4 …
	Files []*os.File
}

// Output of a program that ended.
type Output struct {
	Stdout string
	Stderr string
	Code   int
}

// Process is a background process on a host of the lab.
type Process struct {
	cmd  *exec.Cmd
	name string
	log  *os.File
	done chan struct{}
	err  error
}

var logSerial atomic.Int64

const systemPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environment is what programs in the lab see: nothing of the caller's.
func environment(user string, more ...string) []string {
	return append([]string{
		"PATH=" + systemPath,
		"HOME=/root", "USER=" + user, "LOGNAME=" + user, "LANG=C.UTF-8", "TERM=dumb",
	}, more...)
}

// Exec runs a program on host to its end. A program that ends with another
// code than 0 is no error here; see Output.Code.
func (l *Lab) Exec(ctx context.Context, host string, args ...string) (Output, error) {
	return l.Run(ctx, host, Command{Args: args})
}

// Run is Exec with all of Command's settings.
func (l *Lab) Run(ctx context.Context, host string, c Command) (Output, error) {
	var stdout, stderr bytes.Buffer
	cmd, err := l.spawn(host, c, &stdout, &stderr)
	if err != nil {
		return Output{}, err
	}
	stop := context.AfterFunc(ctx, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	err = cmd.Wait()
	stop()
	out := Output{Stdout: stdout.String(), Stderr: stderr.String(), Code: cmd.ProcessState.ExitCode()}
	if ctx.Err() != nil {
		return out, fmt.Errorf("could not finish %v on %s: %w", c.Args, host, ctx.Err())
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return out, fmt.Errorf("could not run %v on %s: %w", c.Args, host, err)
	}
	return out, nil
}

// must runs a program that has to succeed.
func (l *Lab) must(ctx context.Context, host string, c Command) (string, error) {
	out, err := l.Run(ctx, host, c)
	if err != nil {
		return "", err
	}
	if out.Code != 0 {
		return "", fmt.Errorf("could not run %v on %s: exit %d: %s", c.Args, host, out.Code, bytes.TrimSpace([]byte(out.Stderr+out.Stdout)))
	}
	return out.Stdout, nil
}

// Start starts a program on host in the background. Its output goes to a log
// file of its own; it ends with the lab at the latest.
func (l *Lab) Start(host string, c Command) (*Process, error) {
	name := c.Name
	if name == "" {
		name = filepath.Base(c.Args[0])
	}
	path := filepath.Join(l.dir, "log", fmt.Sprintf("%s-%s-%d.log", host, name, logSerial.Add(1)))
	log, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("could not make a log for %s: %w", name, err)
	}
	cmd, err := l.spawn(host, c, log, log)
	if err != nil {
		_ = log.Close()
		return nil, err
	}
	p := &Process{cmd: cmd, name: name, log: log, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		_ = log.Close()
		close(p.done)
	}()
	l.mu.Lock()
	l.procs = append(l.procs, p)
	l.mu.Unlock()
	return p, nil
}

// spawn starts c inside host's namespaces. The thread that forks is given up.
func (l *Lab) spawn(host string, c Command, stdout, stderr io.Writer) (*exec.Cmd, error) {
	h, err := l.host(host)
	if err != nil {
		return nil, err
	}
	cmd := &exec.Cmd{Path: c.Args[0], Args: c.Args, Dir: c.Dir, Stdin: c.Stdin, Stdout: stdout, Stderr: stderr}
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	cmd.Env = environment("root", c.Env...)
	cmd.ExtraFiles = c.Files
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Chroot: c.Root}
	if c.UID != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: c.UID, Gid: c.GID}
	}
	if c.Root == "" {
		if cmd.Path, err = exec.LookPath(c.Args[0]); err != nil {
			return nil, fmt.Errorf("could not find %s on %s: %w; run scripts/deps", c.Args[0], host, err)
		}
	}
	// A process that keeps a pipe of ours open must not keep Wait from returning.
	cmd.WaitDelay = 2 * time.Second
	err = onThread(func() error {
		if err := l.enterAll(h, c.Root == ""); err != nil {
			return err
		}
		return cmd.Start()
	})
	if err != nil {
		return nil, fmt.Errorf("could not start %v on %s: %w", c.Args, host, err)
	}
	return cmd, nil
}

// Pid of the process as the test's own namespace sees it.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Signal sends sig to the process only.
func (p *Process) Signal(sig os.Signal) error { return p.cmd.Process.Signal(sig) }

// Kill ends the process at once (SIGKILL) and waits until it is gone.
func (p *Process) Kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("could not kill %s: %w", p.name, err)
	}
	<-p.done
	return nil
}

// Stop sends SIGTERM and waits for the end; when ctx ends first it kills and
// says so.
func (p *Process) Stop(ctx context.Context) error {
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("could not stop %s: %w", p.name, err)
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("%s did not stop in time: %w", p.name, ctx.Err()), p.Kill())
	}
}

// CPU is the processor time that the process has used so far, its own threads
// only. The kernel counts it in hundredths of a second.
func (p *Process) CPU() (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Pid()))
	if err != nil {
		return 0, fmt.Errorf("could not read the time of %s: %w", p.name, err)
	}
	// Fields 14 and 15 of proc(5); the second, a name, may hold spaces.
	f := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
	if len(f) < 13 {
		return 0, fmt.Errorf("could not read the time of %s: %q", p.name, data)
	}
	user, err1 := strconv.Atoi(string(f[11]))
	system, err2 := strconv.Atoi(string(f[12]))
	return time.Duration(user+system) * 10 * time.Millisecond, errors.Join(err1, err2)
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err is how the process ended, nil for exit code 0; valid after Done.
func (p *Process) Err() error { return p.err }

// LogPath is the file with the process's output.
func (p *Process) LogPath() string { return p.log.Name() }

// WaitLog waits until the process's output contains text. It fails when the
// process ends without having said it.
func (p *Process) WaitLog(ctx context.Context, text string) error {
	for {
		ended := false
		select {
		case <-p.done:
			ended = true
		default:
		}
		data, err := os.ReadFile(p.LogPath())
		if err != nil {
			return fmt.Errorf("could not read the log of %s: %w", p.name, err)
		}
		if bytes.Contains(data, []byte(text)) {
			return nil
		}
		if ended {
			return fmt.Errorf("%s ended (%v) without saying %q: %s", p.name, p.err, text, tail(data))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s has not said %q: %w: %s", p.name, text, ctx.Err(), tail(data))
		case <-time.After(logPoll):
		}
	}
}

// logPoll is how often files that other programs write are looked at.
const logPoll = 10 * time.Millisecond

// tail is the last kilobyte of a log, for error texts.
func tail(data []byte) []byte {
	if len(data) > 1024 {
		data = data[len(data)-1024:]
	}
	return bytes.TrimSpace(data)
}
