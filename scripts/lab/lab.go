// Package lab opens a small mail world in network namespaces (customers,
// gateway, internet with DNS and MX hosts) to test Sluice with real servers.
//
// The whole world lives in mount and process namespaces of its own: nothing of
// it shows on the host, two labs never meet, and when the process that opened
// one dies, however it dies, the kernel removes all of it.
package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// Options of a lab. The zero value gives the standard one.
type Options struct {
	// Cache holds the unpacked mail servers. Default: $SLUICE_LAB_CACHE, else
	// /var/cache/sluice-lab.
	Cache string
	// Dir takes logs, spools and messages. Default: a fresh temporary folder.
	Dir string
	// Keep leaves Dir in place at Close.
	Keep bool
	// Log hears what the lab does; default nothing.
	Log io.Writer
	// Customers, default DefaultCustomers().
	Customers []Customer
	// GreyDelay is how long the MX "grey" refuses a (peer, sender, recipient)
	// it has not seen; default 0: the second try is accepted.
	GreyDelay time.Duration
	// TXT are further TXT records, by name.
	TXT map[string]string
}

// Lab is one open lab. Its methods may be called from several goroutines.
type Lab struct {
	dir   string
	cache string
	log   io.Writer
	hold  *holder
	dns   *nameServer
	grey  time.Duration
	txt   map[string]string
	certs certificates

	mu        sync.Mutex
	customers []Customer
	hosts     map[string]*host
	sinks     map[string]*Sink
	mtas      map[string]*MTA
	procs     []*Process
	closers   []io.Closer
	closed    bool
	attached  bool // another process holds it
}

// New opens a lab. It needs root, and the mail servers' roots only once
// Postfix, Exim or MX is called. Close it, or end the process.
func New(ctx context.Context, o Options) (*Lab, error) {
	if os.Getuid() != 0 {
		return nil, errors.New("could not open a lab: network namespaces need root; run as root")
	}
	l := &Lab{
		cache:     o.Cache,
		log:       o.Log,
		grey:      o.GreyDelay,
		customers: o.Customers,
		txt:       o.TXT,
		hosts:     map[string]*host{},
		sinks:     map[string]*Sink{},
		mtas:      map[string]*MTA{},
	}
	if l.log == nil {
		l.log = io.Discard
	}
	if l.cache == "" {
		l.cache = os.Getenv("SLUICE_LAB_CACHE")
	}
	if l.cache == "" {
		l.cache = "/var/cache/sluice-lab"
	}
	if l.customers == nil {
		l.customers = DefaultCustomers()
	}
	if err := l.open(ctx, o); err != nil {
		return nil, errors.Join(fmt.Errorf("could not open a lab: %w", err), l.Close())
	}
	return l, nil
}

func (l *Lab) open(ctx context.Context, o Options) error {
	var err error
	dir := o.Dir
	if dir == "" {
		dir, err = os.MkdirTemp("", "sluice-lab-")
	} else {
		err = os.MkdirAll(dir, 0o755)
	}
	if err != nil {
		return err
	}
	if l.dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	// Unprivileged programs of the gateway must be able to pass through.
	if err := os.Chmod(l.dir, 0o755); err != nil {
		return err
	}
	for _, sub := range []string{"log", "mta", "sink", "capture"} {
		if err := os.MkdirAll(filepath.Join(l.dir, sub), 0o755); err != nil {
			return err
		}
	}
	if o.Keep {
		if err := l.KeepFiles(); err != nil {
			return err
		}
	}
	if l.certs, err = newCertificates(); err != nil {
		return err
	}
	names := []string{HostInternet, HostGateway}
	for _, c := range l.customers {
		names = append(names, c.Name)
	}
	if l.hold, err = startHolder(ctx, l.dir, names); err != nil {
		return err
	}
	for _, name := range names {
		if err := l.openHost(name); err != nil {
			return err
		}
	}
	if err := l.network(ctx); err != nil {
		return err
	}
	if err := l.startDNS(ctx); err != nil {
		return err
	}
	if err := l.startSinks(); err != nil {
		return err
	}
	l.say("the lab is open: %s", l.dir)
	return l.writeState()
}

// Dir is the lab's folder: log, mta, sink, capture.
func (l *Lab) Dir() string { return l.dir }

// keepMark is a file whose presence keeps the folder when the lab closes.
const keepMark = ".keep"

// KeepFiles makes Close leave the lab's folder in place.
func (l *Lab) KeepFiles() error {
	if err := os.WriteFile(filepath.Join(l.dir, keepMark), nil, 0o644); err != nil {
		return fmt.Errorf("could not keep the lab's files: %w", err)
	}
	return nil
}

// Customers of this lab, in the order of the gateway's interfaces.
func (l *Lab) Customers() []Customer {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]Customer(nil), l.customers...)
}

// Close ends every process of the lab and removes its namespaces, mounts and
// (unless kept) its folder. It may be called twice.
func (l *Lab) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	closers, procs, hosts := l.closers, l.procs, l.hosts
	l.mu.Unlock()

	var errs []error
	for i := len(closers) - 1; i >= 0; i-- {
		errs = append(errs, closers[i].Close())
	}
	if l.hold != nil && !l.attached {
		errs = append(errs, l.hold.close())
	}
	for _, p := range procs {
		<-p.Done()
	}
	for _, h := range hosts {
		errs = append(errs, h.ns.Close())
	}
	if l.dir != "" && !l.attached {
		if _, err := os.Stat(filepath.Join(l.dir, keepMark)); err != nil {
			errs = append(errs, os.RemoveAll(l.dir))
		}
	}
	return errors.Join(errs...)
}

// ForTest opens a lab for one test and closes it at the test's end. When the
// test failed the lab's folder stays and the test's log names it.
func ForTest(t testing.TB, o Options) *Lab {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	l, err := New(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			if err := l.KeepFiles(); err != nil {
				t.Log(err)
			}
			t.Logf("the failed lab's files: %s", l.dir)
		}
		if err := l.Close(); err != nil {
			t.Errorf("close the lab: %v", err)
		}
	})
	return l
}

// onClose registers something to close with the lab, last first.
func (l *Lab) onClose(c io.Closer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closers = append(l.closers, c)
}

func (l *Lab) say(format string, args ...any) {
	// A progress line that cannot be written changes nothing for the lab.
	_, _ = fmt.Fprintf(l.log, format+"\n", args...)
}
