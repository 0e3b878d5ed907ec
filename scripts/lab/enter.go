package lab

import (
	"fmt"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// host is one network namespace of the lab.
type host struct {
	name string // as in the plan: gw, net, alice
	fqdn string
	ns   *os.File
}

func (l *Lab) openHost(name string) error {
	ns, err := l.hold.netns(name)
	if err != nil {
		return fmt.Errorf("open namespace %s: %w", name, err)
	}
	fqdn := "mail." + name + ".example"
	switch name {
	case HostGateway:
		fqdn = "gw.example"
	case HostInternet:
		fqdn = "router.example"
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hosts[name] = &host{name: name, fqdn: fqdn, ns: ns}
	return nil
}

func (l *Lab) host(name string) (*host, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h, ok := l.hosts[name]
	if !ok {
		return nil, fmt.Errorf("could not find host %q in the lab: it has gw, net and its customers", name)
	}
	return h, nil
}

// In runs f on a thread inside host's network namespace. Sockets that f makes
// stay in that namespace and may be used anywhere. f must not start
// goroutines that make sockets.
func (l *Lab) In(host string, f func() error) error {
	h, err := l.host(host)
	if err != nil {
		return err
	}
	return onThread(func() error {
		if err := unix.Setns(int(h.ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("could not enter %s: %w", host, err)
		}
		return f()
	})
}

// inMounts runs f on a thread inside the lab's mount namespace.
func (l *Lab) inMounts(f func() error) error {
	return onThread(func() error {
		if err := l.enterMounts(); err != nil {
			return err
		}
		return f()
	})
}

func (l *Lab) enterMounts() error {
	// A thread that shares its root and working folder with others may not
	// change its mount namespace.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("could not detach a thread: %w", err)
	}
	if err := unix.Setns(int(l.hold.mnt.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("could not enter the lab's mounts: %w", err)
	}
	return nil
}

// enterAll puts the calling thread into everything a process of host lives in,
// with /sys, /etc/resolv.conf and the host name of that host.
func (l *Lab) enterAll(h *host, private bool) error {
	if err := l.enterMounts(); err != nil {
		return err
	}
	if err := unix.Setns(int(h.ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("could not enter %s: %w", h.name, err)
	}
	if err := unix.Setns(int(l.hold.pid.Fd()), unix.CLONE_NEWPID); err != nil {
		return fmt.Errorf("could not enter the lab's processes: %w", err)
	}
	if err := unix.Unshare(unix.CLONE_NEWUTS); err != nil {
		return fmt.Errorf("could not take a host name: %w", err)
	}
	if err := unix.Sethostname([]byte(h.fqdn)); err != nil {
		return fmt.Errorf("could not set the host name: %w", err)
	}
	if !private {
		return nil
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("could not take private mounts: %w", err)
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		return fmt.Errorf("could not mount /sys: %w", err)
	}
	if err := unix.Mount(l.dir+"/resolv.conf", "/etc/resolv.conf", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("could not mount /etc/resolv.conf: %w", err)
	}
	return nil
}

// onThread runs f on an operating system thread that ends with f, so that
// namespaces f enters stick to nothing else. The process's first thread never
// ends, so it is not used.
func onThread(f func() error) error {
	var (
		err  error
		done sync.WaitGroup
	)
	done.Add(1)
	go func() {
		defer done.Done()
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// While this goroutine waits here, the first thread is taken.
			defer runtime.UnlockOSThread()
			err = onThread(f)
			return
		}
		// Not unlocked: the runtime ends the thread with the goroutine.
		err = f()
	}()
	done.Wait()
	return err
}
