package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"sluice/cmd/internal/api"
)

// Doctor tells what the daemon sees of itself; the command adds what it sees of the host.
func (b backend) Doctor(ctx context.Context) ([]api.Finding, error) {
	st, err := b.Status(ctx)
	if err != nil {
		return nil, err
	}
	fs := helperFindings(&st.Helper)
	add := func(check, state, text, remedy string) {
		if state == api.OK {
			remedy = ""
		}
		fs = append(fs, api.Finding{Check: check, State: state, Text: text, Remedy: remedy})
	}
	state := func(bad bool, worst string) string {
		if bad {
			return worst
		}
		return api.OK
	}
	add("accepting", state(!st.Accepting, api.Fail), fmt.Sprintf("%s, %d of %d waiting in the kernel's queue", yesNo(st.Accepting), st.Queue.Waiting, st.Queue.Limit),
		"sluiced waits for sluice-intercept, or is stopping; see `journalctl -u sluiced`")
	add("configuration", state(st.Config.Error != "", api.Fail), "in force since "+st.Config.Loaded.Format(time.RFC3339)+", "+orGood(st.Config.Error),
		"correct the file, try it with `sluiced -check`, then `systemctl reload sluiced`")
	add("message log", state(st.Log.Lost > 0, api.Fail), fmt.Sprintf("%d records, %d lost", st.Log.Records, st.Log.Lost), "look at the disk and `journalctl -u sluiced`")
	left := time.Until(b.d.certs.Load().NotAfter())
	add("certificate", certificateState(left), fmt.Sprintf("valid for %d more days", int(left.Hours()/24)), "renew tls.certificate, then `systemctl reload sluiced`")
	if err := b.d.certs.Load().Err(); err != nil {
		add("certificate", api.Warn, err.Error(), "correct the files; the certificate read before goes on being used")
	}
	cfg := b.d.cfg.Load()
	for _, dir := range []string{cfg.Store.Dir, cfg.Log.Dir, cfg.SMTP.SpillDir} {
		free, state, err := freeSpace(dir)
		if err != nil {
			add("disk "+dir, api.Fail, err.Error(), "make the folder, owned by sluiced's user")
			continue
		}
		add("disk "+dir, state, fmt.Sprintf("%d MiB free", free>>20), "make room; without it the log and locks are not kept")
	}
	return fs, nil
}

func helperFindings(h *api.Helper) []api.Finding {
	if !h.Connected {
		return []api.Finding{{Check: "sluice-intercept", State: api.Fail, Text: "not connected: " + h.Error, Remedy: "`systemctl status sluice-intercept`"}}
	}
	fs := []api.Finding{{Check: "sluice-intercept", State: api.OK, Text: fmt.Sprintf("version %s, path %s (%s)", h.Version, h.Path, h.PathReason)}}
	if h.Version != version {
		fs = append(fs, api.Finding{Check: "versions", State: api.Warn, Text: fmt.Sprintf("sluiced is %s, sluice-intercept %s", version, h.Version),
			Remedy: "restart whichever is older"})
	}
	beat := api.Finding{Check: "heartbeat", State: api.OK, Text: fmt.Sprintf("%s, %d ms old", h.Heartbeat, h.HeartbeatAgeMS)}
	if h.Heartbeat != "alive" {
		beat.State, beat.Remedy = api.Fail, "new connections meet the fail mode; see `journalctl -u sluiced`"
	}
	fs = append(fs, beat)
	customers := 0
	for _, i := range h.Interfaces {
		f := api.Finding{Check: "interface " + i.Name, State: api.OK, Text: i.Role + ", attached by " + i.Path}
		if i.Error != "" || i.Path == "" {
			f.State, f.Text, f.Remedy = api.Fail, i.Role+", not attached: "+i.Error, "mail from it is not seen; see `journalctl -u sluice-intercept`"
		} else if i.Role == "customer" {
			customers++
		}
		fs = append(fs, f)
	}
	if customers == 0 {
		fs = append(fs, api.Finding{Check: "interfaces", State: api.Fail, Text: "no customer interface is attached", Remedy: "correct intercept.customer_interfaces; `ip link` lists what there is"})
	}
	for _, b := range h.Bypasses {
		who := b.Prefix
		if who == "" {
			who = "every source"
		}
		fs = append(fs, api.Finding{Check: "bypass", State: api.Warn, Text: fmt.Sprintf("mail of %s is forwarded unfiltered since %s: %s (%s)",
			who, b.Since.Format(time.RFC3339), b.Reason, b.By), Remedy: "end it with `sluice bypass off`"})
	}
	for _, p := range h.Problems {
		fs = append(fs, api.Finding{Check: "sluice-intercept", State: api.Warn, Text: p, Remedy: "see `journalctl -u sluice-intercept`"})
	}
	return fs
}

func orGood(text string) string {
	if text == "" {
		return "good"
	}
	return "last reload refused: " + text
}

func certificateState(left time.Duration) string {
	switch {
	case left <= 0:
		return api.Fail
	case left < 14*24*time.Hour:
		return api.Warn
	}
	return api.OK
}

// freeSpace tells the free bytes of the file system that holds dir.
func freeSpace(dir string) (free uint64, state string, err error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, "", fmt.Errorf("could not look at %s: %w", dir, err)
	}
	free = fs.Bavail * uint64(fs.Bsize)
	switch {
	case free < 64<<20:
		return free, api.Fail, nil
	case free < 1<<30:
		return free, api.Warn, nil
	}
	return free, api.OK, nil
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
