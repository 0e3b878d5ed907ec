package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sluice/filter/content"
)

// daemonUser runs sluiced: any account without privileges will do.
const daemonUser = "nobody"

// bpfDir is where a run mounts a BPF file system of its own.
const bpfDir = "bpf"

// sluiceConfig is a gateway with the checks on and limits that the load stays
// under: what is measured is counting, not refusing. Every source address
// becomes a user of its own.
const sluiceConfig = `[gateway]
name = "gateway.example"
help_url = "https://gateway.example/why/"
contact = "postmaster@gateway.example"

[intercept]
customer_interfaces = ["%[1]s"]
uplinks = ["%[2]s"]
default_mode = "intercept"
default_fail = "closed"
pin_dir = "%[3]s/bpf/sluice"
state_dir = "%[3]s/intercept"
control_socket = "%[3]s/intercept/control.sock"
daemon_user = "%[4]s"

[delivery]
mode = "managed"
prefixes = ["%[5]s"]
%[6]s
[template]
unknown = "make"

[limits]
messages_per_hour = 100000000
recipients_per_hour = 100000000
queued_messages = 0
connections_per_second = 0

[lock]
automatic = true

[content]
learned = "%[7]s"

[smtp]
spill_dir = "%[3]s/daemon/spill"

[store]
dir = "%[3]s/daemon"

[log]
dir = "%[3]s/daemon/log"

[api]
socket = "%[3]s/daemon/api.sock"
`

func sluiceConfigFor(g *gate, dir, learned string) string {
	var addresses strings.Builder
	a := g.Delivery.Addr()
	for i := range 8 {
		a = a.Next()
		fmt.Fprintf(&addresses, "[[delivery.address]]\naddress = \"%s\"\nhelo = \"out%d.gateway.example\"\n", a, i+1)
	}
	return fmt.Sprintf(sluiceConfig, g.Customer, g.Uplink, dir, daemonUser, g.Delivery, addresses.String(), learned)
}

// withContent returns a way through the programs with the learned content filter off or on; the other checks are on.
func withContent(learned string) func(context.Context, *bench, *gate, options) error {
	return func(ctx context.Context, b *bench, g *gate, o options) error {
		return startSluice(ctx, b, g, o, learned)
	}
}

// startBefore runs an earlier build as the way "sluice" runs the present one.
func startBefore(ctx context.Context, b *bench, g *gate, o options) error {
	o.binaries = o.before
	return startSluice(ctx, b, g, o, content.LearnedOff)
}

// startSluice runs the programs as they run on a real gateway: the helper as
// root, the daemon as an account without privileges.
func startSluice(ctx context.Context, b *bench, g *gate, o options, learned string) error {
	helper, daemon := filepath.Join(o.binaries, "sluice-intercept"), filepath.Join(o.binaries, "sluiced")
	for _, path := range []string{helper, daemon} {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("could not find %s: %w; run make build, or leave sluice out of -modes", path, err)
		}
	}
	credential, err := daemonCredential()
	if err != nil {
		return err
	}
	if err := sluiceDirs(b, g, credential); err != nil {
		return err
	}
	dir := b.path(g.Name)
	config := filepath.Join(dir, "sluice.toml")
	if err := os.WriteFile(config, []byte(sluiceConfigFor(g, dir, learned)), 0o644); err != nil {
		return err
	}
	if err := b.launch(g, "intercept", exec.Command(helper, "--config", config)); err != nil {
		return err
	}
	if err := awaitFile(ctx, g, filepath.Join(dir, "intercept/control.sock")); err != nil {
		return errors.Join(err, g.explain())
	}
	c := exec.Command(daemon, "--config", config)
	c.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
	return b.launch(g, "sluiced", c)
}

// sluiceDirs makes what the programs find on an installed gateway, and a BPF
// file system of this run's own, so that two runs never share pins.
func sluiceDirs(b *bench, g *gate, owner *syscall.Credential) error {
	if err := os.Chmod(b.dir, 0o755); err != nil {
		return err
	}
	dir := b.path(g.Name)
	for _, name := range []string{"", bpfDir, "intercept", "daemon", "daemon/spill", "daemon/log"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			return err
		}
	}
	for _, name := range []string{"daemon", "daemon/spill", "daemon/log"} {
		if err := os.Chown(filepath.Join(dir, name), int(owner.Uid), int(owner.Gid)); err != nil {
			return err
		}
	}
	bpf := filepath.Join(dir, bpfDir)
	if err := unix.Mount("bpf", bpf, "bpf", 0, ""); err != nil {
		return fmt.Errorf("could not mount a BPF file system: %w", err)
	}
	g.undo = append(g.undo, func() error { return unix.Unmount(bpf, unix.MNT_DETACH) })
	return nil
}

func daemonCredential() (*syscall.Credential, error) {
	u, err := user.Lookup(daemonUser)
	if err != nil {
		return nil, fmt.Errorf("could not find the account for sluiced: %w", err)
	}
	uid, uidErr := strconv.ParseUint(u.Uid, 10, 32)
	gid, gidErr := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, errors.Join(uidErr, gidErr)
}

// awaitFile returns when path exists, or when g's programs ended without making it.
func awaitFile(ctx context.Context, g *gate, path string) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	for {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		if err := g.alive(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("could not see %s within %v", path, readyWithin)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
