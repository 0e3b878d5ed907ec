package main

import (
	"context"
	"fmt"
	"strings"
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
	counters, err := b.Counters(ctx)
	if err == nil {
		fs = append(fs, countFindings(counters.Kernel)...)
		fs = append(fs, elsewhereFindings(st.Helper.Elsewhere)...)
		fs = append(fs, b.borrowed(ctx)...)
	} else {
		fs = append(fs, api.Finding{Check: "counters", State: api.Warn, Text: err.Error(), Remedy: "journalctl -u sluice-intercept"})
	}
	fs = append(fs, b.own(st)...)
	fs = append(fs, b.leg(ctx)...)
	fs = append(append(fs, pluginFindings(st.Plugins)...), listFindings(st.DNSLists)...)
	fs = append(fs, b.poolFinding()...)
	fs = append(fs, b.oddFindings()...)
	if l := b.d.policy.LongestLock(); l > longLock {
		fs = append(fs, finding("lock time", true, api.Warn, fmt.Sprintf("up to %.1f days; queues of mail servers return mail after four or five", l.Hours()/24), "lock.time, or lock_minutes of users, accounts and plans: 4 days at most"))
	}
	cfg := b.d.cfg.Load()
	fs = append(fs, b.d.onward.dnssecFinding(ctx))
	fs = append(fs, openFiles(cfg.SMTP.Sessions))
	seen := map[unix.Fsid]string{}
	for _, dir := range []string{cfg.Store.Dir, cfg.Log.Dir, cfg.SMTP.SpillDir} {
		if f, again := disk(dir, seen); !again {
			fs = append(fs, f)
		}
	}
	return fs, nil
}

// longLock is from which time on a lock makes queues return what waits for its end (LCK2).
const longLock = 4 * 24 * time.Hour

// finding is one line; a remedy is said only where something is to be done.
func finding(check string, bad bool, worst, text, remedy string) api.Finding {
	if !bad {
		return api.Finding{Check: check, State: api.OK, Text: text}
	}
	return api.Finding{Check: check, State: worst, Text: text, Remedy: remedy}
}

// own is what the daemon sees without looking at the host.
func (b backend) own(st *api.Status) []api.Finding {
	fs := []api.Finding{
		finding("accepting", !st.Accepting, api.Fail, fmt.Sprintf("%s, %d of %d waiting in the kernel's queue", yesNo(st.Accepting), st.Queue.Waiting, st.Queue.Limit),
			"journalctl -u sluiced: it waits for sluice-intercept, or is stopping"),
		finding("configuration", st.Config.Error != "", api.Fail, "in force since "+st.Config.Loaded.Format(time.DateTime)+", "+orGood(st.Config.Error),
			"sluiced -check; then systemctl reload sluiced sluice-intercept"),
		finding("spool", st.Spool.Error != "", api.Fail, spoolState(&st.Spool), "check the disk of the spool, then restart sluiced: what was taken is safe, the smarthost answers 451"),
		finding("message log", st.Log.Lost > 0, api.Fail, fmt.Sprintf("%d records since start, %d lost", st.Log.Records, st.Log.Lost), "journalctl -u sluiced: the disk took no writes"),
	}
	fs = append(fs, b.d.certificateFindings()...)
	fs = append(fs, b.d.dkimFindings()...)
	if o := st.Observer; o.Wanted {
		fs = append(fs, finding("observer", !o.Present, api.Warn, map[bool]string{true: fmt.Sprintf("reports, %d flows seen", o.Flows),
			false: "sources are in mode observe and nobody watches them: their mail is forwarded unseen"}[o.Present], "systemctl enable --now sluice-observe"))
		if lost := o.LostPieces + o.LostFlows + o.LostRecords; lost > 0 {
			fs = append(fs, finding("observer", true, api.Warn, fmt.Sprintf("too slow for %d pieces, %d flows, %d records: what it reports is not all", o.LostPieces, o.LostFlows, o.LostRecords),
				"give sluice-observe more time: systemctl set-property sluice-observe CPUWeight=500"))
		}
	}
	return fs
}

func helperFindings(h *api.Helper) []api.Finding {
	if !h.Connected {
		return []api.Finding{finding("sluice-intercept", true, api.Fail, "not connected: "+h.Error, "systemctl status sluice-intercept; systemctl restart sluice-intercept")}
	}
	path := h.Path
	if h.PathReason != "" {
		path += ": " + h.PathReason
	}
	fs := []api.Finding{finding("data path", h.Path == "", api.Fail, path, "journalctl -u sluice-intercept")}
	if h.Path == "nftables" && strings.Contains(h.PathReason, "failed") {
		fs[0] = finding("data path", true, api.Warn, path, "let sluice-intercept use BPF (CAP_BPF, kernel.unprivileged_bpf_disabled, lockdown), or set intercept.path = \"nftables\" to be content with it; what it lacks: man sluice-intercept, DATA PATH")
	}
	if h.Version != version {
		fs = append(fs, finding("versions", true, api.Warn, fmt.Sprintf("sluiced is %s, sluice-intercept %s", version, h.Version), "systemctl restart whichever is older"))
	}
	fs = append(fs, finding("heartbeat", h.Heartbeat != "alive", api.Fail, fmt.Sprintf("%s, %d ms old", h.Heartbeat, h.HeartbeatAgeMS),
		"journalctl -u sluiced; new connections meet the fail mode meanwhile"))
	fs = append(fs, attached(h)...)
	for _, b := range h.Bypasses {
		who, end := b.Prefix, "sluice bypass off --prefix "+b.Prefix
		if who == "" {
			who, end = "every source", "sluice bypass off"
		}
		fs = append(fs, finding("bypass", true, api.Warn, fmt.Sprintf("mail of %s is forwarded unfiltered since %s: %s (%s)",
			who, b.Since.Format(time.DateTime), b.Reason, b.By), end))
	}
	for _, p := range h.Problems {
		fs = append(fs, finding("sluice-intercept", true, api.Warn, p, "journalctl -u sluice-intercept"))
	}
	return fs
}

// attached tells whether the programs stand; of thousands of interfaces only a few that they do not stand at.
func attached(h *api.Helper) (fs []api.Finding) {
	const most = 5
	count, left := map[string]int{}, 0
	for _, i := range h.Interfaces {
		if i.Path != "" {
			count[i.Role]++
			if i.Error != "" {
				fs = append(fs, finding("interface "+i.Name, true, api.Warn, i.Error, "tc filter show dev "+i.Name+" ingress"))
			}
			continue
		}
		if len(fs) == most {
			left++
			continue
		}
		why := i.Error
		if why == "" {
			why = "no program stands there"
		}
		fs = append(fs, finding("interface "+i.Name, true, api.Fail, i.Role+", not attached: "+why, "journalctl -u sluice-intercept; mail from there is not seen"))
	}
	if left > 0 {
		fs = append(fs, finding("interfaces", true, api.Fail, fmt.Sprintf("%d more are not attached", left), "sluice status"))
	}
	if count["customer"] == 0 {
		fs = append(fs, finding("attached", true, api.Fail, "no customer interface is attached", "correct intercept.customer_interfaces: `sluice setup --dry-run` shows what this host has"))
	}
	if count["uplink"] == 0 {
		fs = append(fs, finding("attached", true, api.Fail, "no uplink is attached: the guard does not stand, and an interface that appears late is a hole",
			"correct intercept.uplinks: `sluice setup --dry-run` shows what this host has"))
	}
	if count["customer"] > 0 && count["uplink"] > 0 {
		uplinks := nouns(count["uplink"], "uplink", "uplinks")
		guard := "the guard stands at " + uplinks
		if h.Unguarded {
			guard = uplinks + ", without the guard, since no source is closed"
		}
		fs = append(fs, finding("attached", false, "", nouns(count["customer"], "customer interface", "customer interfaces")+"; "+guard, ""))
	}
	return fs
}

// countFindings reads the kernel's counters for what should not happen.
func countFindings(kernel map[string]uint64) (fs []api.Finding) {
	for _, c := range []struct{ names, check, text, remedy string }{
		{"asymmetric", "asymmetric routes", "answers of mail servers came back here for connections that did not go out here: such mail is not filtered",
			"ip route get <customer's address> on the routers around: both directions of customers' mail have to pass this gateway"},
		{"half_open", "asymmetric routes", "answers to connections that went another way were dropped: somebody's mail goes around this gateway, or is made to look so",
			"ip route get <customer's address> on the routers around: both directions of customers' mail have to pass this gateway"},
		{"assign_failed", "kernel", "connections could not be given to the proxy", "journalctl -k; please report it"},
		{"user_full", "kernel", "packets were not counted for their user: the table of counters is full", "systemctl restart sluice-intercept; please report it"},
	} {
		if n := kernel[c.names]; n > 0 {
			fs = append(fs, finding(c.check, true, api.Warn, fmt.Sprintf("%d %s", n, c.text), c.remedy))
		}
	}
	return fs
}

// openFiles compares what this process may open with what its sessions need: two sockets, and a file for a large body.
func openFiles(sessions int) api.Finding {
	const each, rest = 3, 256
	need := uint64(each*sessions + rest)
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return finding("open files", true, api.Warn, err.Error(), "ulimit -n")
	}
	return finding("open files", l.Cur < need, api.Warn, fmt.Sprintf("%d allowed, %d needed for smtp.sessions = %d", l.Cur, need, sessions),
		fmt.Sprintf("systemctl edit sluiced: [Service] LimitNOFILE=%d; or a lower smtp.sessions", need))
}

func orGood(text string) string {
	if text == "" {
		return "good"
	}
	return "last reload refused: " + text
}

func certificateState(left time.Duration) string {
	if left <= 0 {
		return api.Fail
	}
	return api.Warn
}

// disk tells the room on the file system that holds dir, once for each.
func disk(dir string, seen map[unix.Fsid]string) (f api.Finding, again bool) {
	const little, none = 1 << 30, 64 << 20
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return finding("disk "+dir, true, api.Fail, fmt.Sprintf("could not look at %s: %v", dir, err), "systemd-tmpfiles --create, or make it: it belongs to the user that runs sluiced"), false
	}
	if _, again = seen[fs.Fsid]; again {
		return f, true
	}
	seen[fs.Fsid] = dir
	free := fs.Bavail * uint64(fs.Bsize)
	worst := api.Warn
	if free < none {
		worst = api.Fail
	}
	return finding("disk "+dir, free < little, worst, fmt.Sprintf("%d MiB free", free>>20), "make room: without it log and locks are not kept; log.retention says how long lines stay"), false
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func spoolState(s *api.Spool) string {
	if s.Error != "" {
		return s.Error
	}
	return fmt.Sprintf("%d deliveries wait, %d of them on hold", s.Deliveries, s.Held)
}
