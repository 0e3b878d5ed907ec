package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"sluice/cmd/internal/config"
	"sluice/intercept"
	"sluice/intercept/control"
)

const bypassUsage = `usage: sluice-intercept bypass on --reason TEXT [--for 30m] [--prefix P] [--config FILE]
       sluice-intercept bypass off [--prefix P] [--config FILE]
       sluice-intercept bypass status [--config FILE]

  on      new mail connections are forwarded untouched from now on, of all sources or of a prefix, until off or for a
          time; locks and the modes reject and drop stay in force, open sessions finish
  off     end the bypass of the prefix, or every bypass
  status  show what is bypassed

It needs neither sluiced nor a running sluice-intercept, but root.
`

// defaultSocket is where a helper is looked for when the configuration cannot be read.
const defaultSocket = "/run/sluice-intercept/control.sock"

// helperPatience bounds the talk with a helper that may be stuck.
const helperPatience = 5 * time.Second

// bypasser changes bypasses: the running helper's, or those of the pinned maps where there is none.
type bypasser interface {
	put(b control.Bypass) error
	end(p netip.Prefix) error
	list() ([]control.Bypass, error)
	close() error
}

// bypass runs the command of that name and returns its exit status.
func bypass(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	verb := ""
	if len(args) > 0 {
		verb, args = args[0], args[1:]
	}
	fs := flag.NewFlagSet("sluice-intercept bypass", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() { fmt.Fprint(stderr, bypassUsage) }
	file := fs.String("config", "/etc/sluice/sluice.toml", "")
	reason := fs.String("reason", "", "")
	var span config.Duration
	fs.Func("for", "", func(s string) error {
		if err := span.UnmarshalText([]byte(s)); err != nil || span > 0 {
			return err
		}
		return errors.New("leave it out for a bypass until off")
	})
	var b control.Bypass
	fs.Func("prefix", "", func(s string) (err error) {
		b.Prefix, err = sourcePrefix(s)
		return err
	})
	err := fs.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp) || verb == "-h" || verb == "--help":
		fs.Usage()
		return 0
	case err != nil || fs.NArg() > 0 || verb != "on" && verb != "off" && verb != "status":
		fs.Usage()
		return 2
	case verb == "on" && (*reason == "" || len(*reason) > control.MaxReason):
		fmt.Fprintf(stderr, "sluice-intercept: --reason is missing, or longer than %d bytes\n", control.MaxReason)
		return 2
	}
	b.Reason, b.Since, b.By = *reason, time.Now(), fmt.Sprintf("uid %d, pid %d", os.Getuid(), os.Getpid())
	if span > 0 {
		b.Until = b.Since.Add(span.D())
	}
	if err := bypassed(ctx, *file, verb, b, stdout, stderr); err != nil {
		fmt.Fprintf(stderr, "sluice-intercept: %v\n", err)
		return 1
	}
	return 0
}

// sourcePrefix reads a prefix, or an address that stands for itself.
func sourcePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return a.Unmap().Prefix(a.Unmap().BitLen())
	}
	p, err := netip.ParsePrefix(s)
	if err == nil && p != p.Masked() {
		err = fmt.Errorf("%v has bits set behind its length; write %v", p, p.Masked())
	}
	return p, err
}

// bypassed does it and shows what is in force then.
func bypassed(ctx context.Context, file, verb string, b control.Bypass, stdout, stderr io.Writer) error {
	w, err := openBypasser(ctx, file, b.By, stderr)
	if err != nil {
		return err
	}
	switch verb {
	case "on":
		err = w.put(b)
	case "off":
		err = w.end(b.Prefix)
	}
	list, lerr := w.list()
	if err := errors.Join(err, lerr, w.close()); err != nil {
		return err
	}
	if len(list) == 0 {
		fmt.Fprintln(stdout, "no bypass is in force")
	}
	for _, b := range list {
		fmt.Fprintf(stdout, "bypass: %v\n", b)
	}
	return nil
}

// openBypasser finds the helper, or takes its place where none runs.
func openBypasser(ctx context.Context, file, by string, stderr io.Writer) (bypasser, error) {
	set, bad := load(file)
	if bad != nil { // the helper goes on with the last good one
		set = &settings{socket: defaultSocket}
	}
	ctx, cancel := context.WithTimeout(ctx, helperPatience)
	c, err := control.Reach(ctx, set.socket)
	if err == nil {
		return &online{ctx, cancel, c}, nil
	}
	cancel()
	if bad != nil {
		return nil, bad
	}
	if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ECONNREFUSED) {
		return nil, err
	}
	fmt.Fprintln(stderr, "no sluice-intercept runs; this is about what it left in the kernel")
	l, err := control.Listen(set.socket, set.gid) // so that none starts meanwhile
	if err != nil {
		return nil, err
	}
	o, err := intercept.OpenOffline(set.engine, slog.New(slog.NewTextHandler(stderr, nil)))
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &offline{o, by, l}, nil
}

// online asks the helper.
type online struct {
	ctx    context.Context
	cancel context.CancelFunc
	c      *control.Client
}

func (o *online) put(b control.Bypass) error { return o.c.Bypass(o.ctx, b) }
func (o *online) end(p netip.Prefix) error   { return o.c.EndBypass(o.ctx, p) }

func (o *online) list() ([]control.Bypass, error) {
	st, err := o.c.Status(o.ctx)
	if err != nil {
		return nil, err
	}
	return st.Bypasses, nil
}

func (o *online) close() error {
	o.cancel()
	return o.c.Close()
}

// offline writes to the pinned maps.
type offline struct {
	o    *intercept.Offline
	by   string
	hold io.Closer
}

func (o *offline) put(b control.Bypass) error      { return o.o.Put(b) }
func (o *offline) end(p netip.Prefix) error        { return o.o.End(p, o.by) }
func (o *offline) list() ([]control.Bypass, error) { return o.o.List(), nil }
func (o *offline) close() error                    { return errors.Join(o.o.Close(), o.hold.Close()) }
