//go:build nettest

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"sluice/intercept/control"
	"sluice/intercept/flow"
)

// proxyMain greets every flow with both of its addresses, and obeys commands on standard input.
func proxyMain(path string) int {
	p := &proxy{path: path}
	if err := p.run(); err != nil {
		fmt.Println("failed", err)
		return 1
	}
	return 0
}

type proxy struct {
	path   string
	client atomic.Pointer[control.Client]
	beat   atomic.Pointer[control.Heartbeat]
	silent atomic.Bool // accept, but never beat
}

func (p *proxy) run() error {
	c, w, err := dialHelper(p.path, nil)
	if err != nil {
		return err
	}
	p.client.Store(c)
	p.beat.Store(w.Heartbeat)
	f := w.Listeners[0].File
	l, err := flow.NewListener(f, flow.Options{Ports: w.Ports})
	if err != nil {
		return err
	}
	go p.accept(l)
	go p.redial(f)
	p.beat.Load().Beat()
	fmt.Println("accepting as", os.Getuid(), "path", w.Path)
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		answer, err := p.obey(strings.Fields(in.Text()))
		if err != nil {
			answer = "error " + strings.ReplaceAll(err.Error(), "\n", " ")
		}
		fmt.Println("answer " + answer)
	}
	return nil
}

func dialHelper(path string, give []control.Listener) (*control.Client, *control.Welcome, error) {
	for until := time.Now().Add(time.Minute); ; {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		c, w, err := control.Dial(ctx, path, give)
		cancel()
		if err == nil || time.Now().After(until) {
			return c, w, err
		}
		time.Sleep(20 * time.Millisecond) // the helper is away: there is no event to await
	}
}

// redial goes back to a new helper and hands the listener back.
func (p *proxy) redial(f *os.File) {
	for {
		<-p.client.Load().Lost()
		c, w, err := dialHelper(p.path, []control.Listener{{Name: "smtp", File: f}})
		if err != nil {
			fmt.Println("failed", err)
			return
		}
		p.beat.Store(w.Heartbeat)
		fmt.Println("redialed, same socket:", control.SameSocket(f, w.Listeners[0].File))
		w.Listeners[0].File.Close()
		p.client.Store(c)
	}
}

func (p *proxy) accept(l *flow.Listener) {
	for {
		l.SetDeadline(time.Now().Add(100 * time.Millisecond))
		c, err := l.Accept()
		if !p.silent.Load() {
			p.beat.Load().Beat()
		}
		var refused *flow.Refused
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
		case errors.As(err, &refused):
			fmt.Println("refused", refused.Reason)
		case err != nil:
			fmt.Println("failed", err)
			return
		default:
			go greet(c)
		}
	}
}

// greet tells the client whose flow it is and closes after him.
func greet(c *flow.Conn) {
	defer c.Close()
	f := c.Flow()
	fmt.Fprintf(c, "proxy %v %v\n", f.Client, f.Target)
	c.SetDeadline(time.Now().Add(10 * time.Second))
	line, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && line == "CLOSE\n" {
		return // the proxy closes first: its socket goes to TIME_WAIT
	}
}

func (p *proxy) obey(words []string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c := p.client.Load()
	if len(words) == 0 {
		return "", errors.New("nothing to do")
	}
	switch words[0] {
	case "users":
		list, err := readSources(words[1:])
		if err != nil {
			return "", err
		}
		return "ok", c.SetUsers(ctx, list)
	case "put", "gone": // of those that are there
		if words[0] == "gone" {
			return "ok", c.ChangeUsers(ctx, nil, []netip.Prefix{netip.MustParsePrefix(words[1])})
		}
		list, err := readSources(words[1:])
		if err != nil {
			return "", err
		}
		return "ok", c.PutUsers(ctx, list...)
	case "lock": // user, budget, prefixes
		user, err := strconv.Atoi(words[1])
		if err != nil {
			return "", err
		}
		n, err := strconv.Atoi(words[2])
		if err != nil {
			return "", err
		}
		l := control.Lock{User: uint32(user), PerMinute: n, Until: time.Now().Add(time.Hour)}
		for _, w := range words[3:] {
			l.Prefixes = append(l.Prefixes, netip.MustParsePrefix(w))
		}
		start := time.Now()
		err = c.Lock(ctx, l)
		return fmt.Sprint("ok ", time.Since(start)), err
	case "lockspeed": // prefix: how long a lock takes, from the decision until the kernel holds it
		var took []time.Duration
		l := control.Lock{User: 77, PerMinute: 10, Prefixes: []netip.Prefix{netip.MustParsePrefix(words[1])}, Until: time.Now().Add(time.Hour)}
		for range 2000 {
			start := time.Now()
			if err := c.Lock(ctx, l); err != nil {
				return "", err
			}
			took = append(took, time.Since(start))
		}
		slices.Sort(took)
		return fmt.Sprintf("p50 %v p99 %v", took[1000], took[1980]), c.Unlock(ctx, 77)
	case "many": // n single sources
		n, err := strconv.Atoi(words[1])
		if err != nil {
			return "", err
		}
		list := make([]control.Source, n)
		for i := range list {
			a := netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0xff, 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)})
			list[i] = control.Source{Prefix: netip.PrefixFrom(a, 128), User: uint32(i + 1), Mode: control.Intercept, Fail: control.Closed}
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		start := time.Now()
		err = c.SetUsers(ctx, list)
		return fmt.Sprint("ok ", time.Since(start).Round(time.Millisecond)), err
	case "lockexempt":
		var list []netip.Addr
		for _, w := range words[1:] {
			list = append(list, netip.MustParseAddr(w))
		}
		return "ok", c.SetLockExempt(ctx, list)
	case "unlock":
		user, err := strconv.Atoi(words[1])
		if err != nil {
			return "", err
		}
		return "ok", c.Unlock(ctx, uint32(user))
	case "bypass":
		return "ok", c.Bypass(ctx, control.Bypass{Reason: "a way out"})
	case "unbypass":
		return "ok", c.EndBypass(ctx, netip.Prefix{})
	case "connect": // from a customer's address, by the helper
		tc, err := c.Connect(ctx, netip.MustParseAddr(words[1]), netip.MustParseAddrPort(words[2]))
		if err != nil {
			return "", err
		}
		return firstLine(tc)
	case "steal": // a customer's address, its destination, and another one
		tc, err := c.Connect(ctx, netip.MustParseAddr(words[1]), netip.MustParseAddrPort(words[2]))
		if err != nil {
			return "", err
		}
		return steal(tc, netip.MustParseAddrPort(words[3]))
	case "dial": // from the gateway itself; words[2], if any, is the local address
		d := net.Dialer{Timeout: 5 * time.Second}
		if len(words) > 2 {
			d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(words[2]), 0))
		}
		nc, err := d.Dial("tcp", words[1])
		if err != nil {
			return "", err
		}
		return firstLine(nc)
	case "silent":
		p.silent.Store(true)
		return "ok", nil
	case "counter":
		n, err := c.Counters(ctx)
		return fmt.Sprint(n[words[1]]), err
	case "problems":
		s, err := c.Status(ctx)
		if err != nil {
			return "", err
		}
		return strings.Join(s.Problems, "; "), nil
	case "status":
		s, err := c.Status(ctx)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%s %s sources=%d locks=%d %+v", s.Path, s.Heartbeat, s.Sources, s.Locks, s.Interfaces), nil
	}
	return "", fmt.Errorf("no command %q", words[0])
}

// readSources reads prefix,user,mode,fail …
func readSources(words []string) ([]control.Source, error) {
	var list []control.Source
	for _, w := range words {
		f := strings.Split(w, ",")
		user, err := strconv.Atoi(f[1])
		s := control.Source{Prefix: netip.MustParsePrefix(f[0]), User: uint32(user)}
		if err := errors.Join(err, s.Mode.UnmarshalText([]byte(f[2])), s.Fail.UnmarshalText([]byte(f[3]))); err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

func firstLine(c net.Conn) (string, error) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	line, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line), err
}

// steal connects a passed socket anew.
func steal(tc *net.TCPConn, to netip.AddrPort) (string, error) {
	f, err := tc.File() // a blocking one
	if err != nil {
		return "", err
	}
	defer tc.Close()
	defer f.Close()
	fd := int(f.Fd())
	unspec := unix.RawSockaddr{Family: unix.AF_UNSPEC}
	if _, _, e := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&unspec)), unsafe.Sizeof(unspec)); e != 0 {
		return "", e
	}
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Usec: 200_000}),
		unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}))
	return "connected", err
}
