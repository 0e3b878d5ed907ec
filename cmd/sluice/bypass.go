package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/config"
	"sluice/intercept/control"
)

const (
	defaultControl = "/run/sluice-intercept/control.sock" // where the configuration cannot be read
	helperPatience = 5 * time.Second
)

// bypassFlags are what the command line says about a bypass.
type bypassFlags struct {
	file, prefix, reason, span string
}

func (p *program) bypassCommand() *cobra.Command {
	var f bypassFlags
	cmd := &cobra.Command{
		Use: "bypass", Short: "let mail go around the proxy", Args: none,
		Long: "bypass lets mail go around the proxy, at once and also when both daemons are dead. Alone it shows what is bypassed.",
		RunE: func(cmd *cobra.Command, _ []string) error { return p.bypass(cmd.Context(), "status", f) },
	}
	on := &cobra.Command{
		Use: "on --reason WHY", Short: "forward new connections untouched",
		Long: `on holds from the next connection on; open sessions finish. Locks and the modes reject and drop stay in force. The
reason stands in the log of sluice-intercept and in "sluice status".

It speaks to sluice-intercept, as root, and needs no sluiced. Where no sluice-intercept runs either, it starts
"sluice-intercept bypass", which changes what is left in the kernel.`,
		Example: "  sluice bypass on --for 30m --reason \"the proxy is stuck, ticket 4711\"\n  sluice bypass on --prefix 192.0.2.64/26 --reason \"customer cannot send\"",
		Args: func(cmd *cobra.Command, args []string) error {
			if f.reason == "" {
				return fmt.Errorf("--reason is missing: %s", cmd.UseLine())
			}
			return none(cmd, args)
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return p.bypass(cmd.Context(), "on", f) },
	}
	off := &cobra.Command{
		Use: "off", Short: "end the bypass of a prefix, or every bypass", Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.bypass(cmd.Context(), "off", f) },
	}
	status := &cobra.Command{
		Use: "status", Short: "show what is bypassed", Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.bypass(cmd.Context(), "status", f) },
	}
	for _, c := range []*cobra.Command{cmd, on, off, status} {
		c.Flags().StringVar(&f.file, "config", configFile(), "configuration `file`, which tells where sluice-intercept is")
	}
	for _, c := range []*cobra.Command{on, off} {
		c.Flags().StringVar(&f.prefix, "prefix", "", "only sources in this `prefix`, or this address")
	}
	on.Flags().StringVar(&f.span, "for", "", "how `long`, like 30m, 2h or 1d; until off unless told")
	on.Flags().StringVar(&f.reason, "reason", "", "`why`, for the log and for sluice status")
	cmd.AddCommand(on, off, status)
	return cmd
}

// bypass does it and shows what is in force then.
func (p *program) bypass(ctx context.Context, verb string, f bypassFlags) error {
	b, err := f.bypass()
	if err != nil {
		return usageError{err}
	}
	path := defaultControl
	cfg, bad := config.Load(f.file)
	if bad == nil { // else sluice-intercept goes on with the last good one
		path = cfg.Intercept.ControlSocket
	}
	ctx, cancel := context.WithTimeout(ctx, helperPatience)
	defer cancel()
	c, err := control.Reach(ctx, path)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED) {
		return errors.Join(bad, p.bypassAlone(ctx, verb, f))
	}
	if err != nil {
		return err
	}
	switch verb {
	case "on":
		err = c.Bypass(ctx, b)
	case "off":
		err = c.EndBypass(ctx, b.Prefix)
	}
	if errors.Is(err, control.ErrLost) {
		err = errors.New("sluice-intercept hung up; bypass needs root")
	}
	if err != nil {
		return errors.Join(err, c.Close())
	}
	st, err := c.Status(ctx)
	if err := errors.Join(err, c.Close()); err != nil {
		return err
	}
	return p.showBypasses(st.Bypasses)
}

// bypass checks the command line.
func (f *bypassFlags) bypass() (b control.Bypass, err error) {
	b.Reason = f.reason
	if len(f.reason) > control.MaxReason {
		return b, fmt.Errorf("--reason: longer than %d bytes", control.MaxReason)
	}
	if f.prefix != "" {
		if b.Prefix, err = api.ParsePrefix(f.prefix); err != nil {
			return b, fmt.Errorf("--prefix: %w", err)
		}
	}
	if f.span != "" {
		var d config.Duration
		if err := d.UnmarshalText([]byte(f.span)); err != nil {
			return b, fmt.Errorf("--for: %w", err)
		}
		if d == 0 {
			return b, errors.New("--for 0: leave it out for a bypass until off")
		}
		b.Until = time.Now().Add(d.D())
	}
	return b, nil
}

// bypassAlone has sluice-intercept change the kernel by itself.
func (p *program) bypassAlone(ctx context.Context, verb string, f bypassFlags) error {
	args := []string{"bypass", verb, "--config", f.file}
	for name, value := range map[string]string{"--prefix": f.prefix, "--for": f.span, "--reason": f.reason} {
		if value != "" {
			args = append(args, name, value)
		}
	}
	name, err := exec.LookPath("sluice-intercept")
	if own, oerr := os.Executable(); err != nil && oerr == nil {
		name = filepath.Join(filepath.Dir(own), "sluice-intercept")
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = p.screen.out, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("no sluice-intercept runs, and its command failed: %w", err)
	}
	return nil
}

func (p *program) showBypasses(list []control.Bypass) error {
	shown := make([]api.Bypass, len(list))
	for i, b := range list {
		shown[i] = api.Bypass{Since: b.Since, Reason: b.Reason, By: b.By}
		if b.Prefix != (netip.Prefix{}) {
			shown[i].Prefix = b.Prefix.String()
		}
		if !b.Until.IsZero() {
			shown[i].Until = &b.Until
		}
	}
	if p.screen.json {
		return p.screen.writeJSON(shown)
	}
	if len(shown) == 0 {
		p.screen.say("no bypass is in force")
	}
	for i := range shown {
		p.screen.say("bypass: new connections of %s", p.screen.bypass(&shown[i]))
	}
	return nil
}

// bypass tells who goes around the proxy, until when and why.
func (s *screen) bypass(b *api.Bypass) string {
	who, until := "every source", "until off"
	if b.Prefix != "" {
		who = b.Prefix
	}
	if b.Until != nil {
		until = "until " + s.at(*b.Until) + " (in " + s.ago(*b.Until) + ")"
	}
	return fmt.Sprintf("%s are forwarded unfiltered %s: %s (%s, since %s)", who, until, plain(b.Reason), plain(b.By), s.at(b.Since))
}
