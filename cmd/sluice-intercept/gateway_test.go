//go:build nettest

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The parts that the test binary plays when it is started again.
const (
	roleVar    = "SLUICE_TEST_ROLE"
	roleHold   = "hold"   // keeps a namespace alive until its standard input ends
	roleHelper = "helper" // is sluice-intercept
	roleProxy  = "proxy"  // is an unprivileged process that speaks to the helper as sluiced does
)

// binary is a copy of this test that the unprivileged account may execute.
var binary string

func TestMain(m *testing.M) {
	switch os.Getenv(roleVar) {
	case roleHold:
		fmt.Println("held")
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	case roleLockedDown:
		if err := refuseBPF(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
		main()
	case roleHelper:
		main()
	case roleProxy:
		os.Exit(proxyMain(os.Args[1]))
	}
	code, err := runTests(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func runTests(m *testing.M) (code int, err error) {
	if os.Getuid() != 0 {
		return 1, errors.New("these tests make network namespaces: run them as root")
	}
	dir, err := os.MkdirTemp("", "sluice-nettest")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "test")
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return 1, err
	}
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(binary, b, 0o755)); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// gateway is three network namespaces in a row: a customer, the gateway, the internet.
type gateway struct {
	t    *testing.T
	dir  string
	gw   *space
	cust *space
	net  *space
}

// space is one network (and, of the gateway, mount) namespace.
type space struct {
	t   *testing.T
	pid int
}

func newSpace(t *testing.T, flags uintptr) *space {
	t.Helper()
	cmd := exec.Command(binary)
	cmd.Env = append(os.Environ(), roleVar+"="+roleHold)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return &space{t, cmd.Process.Pid}
}

// command runs args inside the namespaces, as uid 65534 if asked to.
func (s *space) command(unprivileged bool, args ...string) *exec.Cmd {
	enter := []string{"-t", fmt.Sprint(s.pid), "-n", "-m"}
	if unprivileged {
		enter = append(enter, "-S", "65534", "-G", "65534")
	}
	return exec.Command("nsenter", append(append(enter, "--"), args...)...)
}

// sh runs a script that must succeed and returns what it wrote.
func (s *space) sh(script string) string {
	s.t.Helper()
	var errs bytes.Buffer
	cmd := s.command(false, "sh", "-ec", script)
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("%s: %v\n%s%s", script, err, out, errs.String())
	}
	return string(out)
}

// in calls f on a thread inside the network namespace; sockets that f makes stay there.
func (s *space) in(f func()) {
	s.t.Helper()
	var err error
	var wg sync.WaitGroup
	wg.Go(func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		var ns *os.File
		if ns, err = os.Open(fmt.Sprintf("/proc/%d/ns/net", s.pid)); err != nil {
			return
		}
		defer ns.Close()
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err == nil {
			f()
		}
	})
	wg.Wait()
	if err != nil {
		s.t.Fatal(err)
	}
}

func newGateway(t *testing.T) *gateway {
	t.Helper()
	g := &gateway{t: t, dir: t.TempDir()}
	for _, dir := range []string{g.dir, filepath.Dir(g.dir)} { // the proxy is another account
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	g.gw = newSpace(t, syscall.CLONE_NEWNET|syscall.CLONE_NEWNS)
	g.cust, g.net = newSpace(t, syscall.CLONE_NEWNET), newSpace(t, syscall.CLONE_NEWNET)
	g.gw.sh(fmt.Sprintf(`
		mount --make-rprivate /
		mkdir %[1]s/bpf && mount -t bpf bpf %[1]s/bpf
		echo 1 > /proc/sys/net/ipv4/ip_forward
		echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
		ip link set lo up
		ip link add cust0 type veth peer name eth0 netns %[2]d
		ip link add up0 type veth peer name eth0 netns %[3]d
		ip link set cust0 up; ip link set up0 up
		ip addr add 192.0.2.1/24 dev cust0; ip addr add 2001:db8:1::1/64 dev cust0 nodad
		ip addr add 198.51.100.1/24 dev up0; ip addr add 2001:db8:100::1/64 dev up0 nodad
	`, g.dir, g.cust.pid, g.net.pid))
	g.cust.sh(`ip link set lo up; ip link set eth0 up
		ip addr add 192.0.2.10/24 dev eth0; ip addr add 192.0.2.11/24 dev eth0
		ip addr add 2001:db8:1::10/64 dev eth0 nodad; ip addr add 2001:db8:1::11/64 dev eth0 nodad
		ip route add default via 192.0.2.1; ip route add default via 2001:db8:1::1`)
	g.net.sh(`ip link set lo up; ip link set eth0 up
		ip addr add 198.51.100.25/24 dev eth0; ip addr add 2001:db8:100::25/64 dev eth0 nodad
		ip route add default via 198.51.100.1; ip route add default via 2001:db8:100::1`)
	return g
}

// config writes the configuration and returns its path.
func (g *gateway) config(extra string) string {
	g.t.Helper()
	file := filepath.Join(g.dir, "sluice.toml")
	text := fmt.Sprintf(`
[gateway]
name = "gw.example"
[delivery]
prefixes = ["203.0.113.16/28", "2001:db8:25::/64"]
[intercept]
customer_interfaces = ["cust*"]
uplinks = ["up*"]
default_fail = "closed"
daemon_user = "65534"
pin_dir = "%[1]s/bpf/sluice"
state_dir = "%[1]s/state"
control_socket = "%[1]s/control.sock"
%[2]s
`, g.dir, extra)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		g.t.Fatal(err)
	}
	return file
}

// process is a started program whose lines can be waited for.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.WriteCloser
	mu    sync.Mutex
	more  *sync.Cond
	lines []string
	ended bool
	done  chan struct{}
}

func start(t *testing.T, cmd *exec.Cmd, role string) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, done: make(chan struct{})}
	p.more = sync.NewCond(&p.mu)
	cmd.Env = append(os.Environ(), roleVar+"="+role)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	if p.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // the death signal comes when the thread that starts the process ends
		defer runtime.UnlockOSThread()
		started <- cmd.Start()
		<-p.done
	}()
	err = <-started
	w.Close()
	if err != nil {
		close(p.done)
		t.Fatal(err)
	}
	go p.read(r)
	t.Cleanup(func() {
		p.kill()
		p.mu.Lock()
		defer p.mu.Unlock()
		if t.Failed() {
			t.Logf("%s wrote:\n%s", role, strings.Join(p.lines, "\n"))
		}
	})
	return p
}

func (p *process) read(r *os.File) {
	defer close(p.done)
	s := bufio.NewScanner(r)
	for s.Scan() {
		p.mu.Lock()
		p.lines = append(p.lines, s.Text())
		p.more.Broadcast()
		p.mu.Unlock()
	}
	r.Close()
	p.cmd.Wait()
	p.mu.Lock()
	p.ended = true
	p.more.Broadcast()
	p.mu.Unlock()
}

// patience is how long a line is waited for.
var patience = 15 * time.Second

// wait returns the first line from number n on that holds text, and the number after it.
func (p *process) wait(n int, text string) (line string, next int) {
	p.t.Helper()
	late := time.AfterFunc(patience, func() {
		p.mu.Lock()
		p.ended = true
		p.more.Broadcast()
		p.mu.Unlock()
	})
	defer late.Stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		for ; n < len(p.lines); n++ {
			if strings.Contains(p.lines[n], text) {
				return p.lines[n], n + 1
			}
		}
		if p.ended {
			p.t.Fatalf("no line with %q", text)
		}
		p.more.Wait()
	}
}

func (p *process) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.lines)
}

// ask sends a command to the proxy and returns its answer.
func (p *process) ask(format string, args ...any) string {
	p.t.Helper()
	n := p.count()
	if _, err := fmt.Fprintf(p.in, format+"\n", args...); err != nil {
		p.t.Fatal(err)
	}
	line, _ := p.wait(n, "answer ")
	return strings.TrimPrefix(line, "answer ")
}

func (p *process) signal(sig os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
}

// stop ends the process politely and returns when it is gone.
func (p *process) stop() {
	p.signal(syscall.SIGTERM)
	<-p.done
}

// kill ends it at once.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may be gone already
	<-p.done
}

// helper starts sluice-intercept and waits until it is ready.
func (g *gateway) helper(config string) *process {
	g.t.Helper()
	p := start(g.t, g.gw.command(false, binary, "--config", config), roleHelper)
	p.wait(0, "msg=ready")
	return p
}

// proxy starts the unprivileged process and waits until it accepts.
func (g *gateway) proxy() *process {
	g.t.Helper()
	p := start(g.t, g.gw.command(true, binary, filepath.Join(g.dir, "control.sock")), roleProxy)
	p.wait(0, "accepting")
	return p
}

// tool runs sluice-intercept with a command and returns what it wrote.
func (g *gateway) tool(args ...string) (string, error) {
	cmd := g.gw.command(false, append([]string{binary}, args...)...)
	cmd.Env = append(os.Environ(), roleVar+"="+roleHelper)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// mx listens on port 25 of the internet and greets with "mx" and the address it sees.
func (g *gateway) mx() {
	g.t.Helper()
	for _, a := range []string{"198.51.100.25:25", "[2001:db8:100::25]:25"} {
		var l net.Listener
		var err error
		g.net.in(func() { l, err = net.Listen("tcp", a) })
		if err != nil {
			g.t.Fatal(err)
		}
		g.t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					fmt.Fprintf(c, "mx %v\n", c.RemoteAddr())
					io.Copy(io.Discard, c)
				}()
			}
		}()
	}
}

// dial connects from a space; local may be "".
func (s *space) dial(local, remote string, patience time.Duration) (c net.Conn, err error) {
	d := net.Dialer{Timeout: patience}
	if local != "" {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.MustParseAddrPort(local))
		d.Control = func(_, _ string, rc syscall.RawConn) (err error) {
			cerr := rc.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
			return errors.Join(cerr, err)
		}
	}
	d.SetMultipathTCP(false)
	s.in(func() {
		// The client's own former socket may still wait for the ACK of its FIN.
		for until := time.Now().Add(20 * time.Second); ; {
			c, err = d.Dial("tcp", remote)
			if !errors.Is(err, unix.EADDRNOTAVAIL) || time.Now().After(until) {
				return
			}
		}
	})
	return c, err
}

// greeting connects, returns the first line and closes.
func (s *space) greeting(local, remote string) (string, error) {
	c, err := s.dial(local, remote, 20*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	line, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line), err
}

// expect holds that the greeting begins with want.
func (s *space) expect(local, remote, want string) {
	s.t.Helper()
	if got, err := s.greeting(local, remote); err != nil || !strings.HasPrefix(got, want) {
		s.t.Errorf("%s -> %s: %q, %v; want %q", local, remote, got, err, want)
	}
}
