package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/config"
)

// sysctl reads a setting by its path below /proc/sys.
func (h *host) sysctl(path string) (string, error) {
	b, err := os.ReadFile(filepath.Join(h.proc, path))
	return strings.TrimSpace(string(b)), err
}

// number is a setting that is one; 0 where this kernel does not have it.
func (h *host) number(path string) int {
	text, err := h.sysctl(path)
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0
	}
	return n
}

// system checks what holds for every configuration.
func (h *host) system() []api.Finding {
	var fs []api.Finding
	for _, want := range []struct {
		path  string
		least int
		state string
		why   string
	}{
		{"net/ipv4/ip_forward", 1, api.Fail, "without it this host is no gateway"},
		{"net/ipv6/conf/all/forwarding", 1, api.Warn, "without it IPv6 customers are not routed"},
		{"net/core/somaxconn", 4096, api.Warn, "few connections can wait while sluiced restarts"},
		{"net/ipv4/tcp_max_syn_backlog", 4096, api.Warn, "handshakes fall back to SYN cookies early"},
		{"net/ipv4/tcp_syncookies", 1, api.Warn, "a flood of connections shuts all customers out"},
	} {
		fs = append(fs, h.atLeast(want.path, want.least, want.state, want.why))
	}
	if f, full := h.conntrack(); full {
		fs = append(fs, f)
	}
	if h.clock != nil {
		fs = append(fs, h.time())
	}
	return fs
}

func (h *host) atLeast(path string, least int, state, why string) api.Finding {
	name := strings.ReplaceAll(path, "/", ".")
	f := api.Finding{Check: name, State: api.OK}
	text, err := h.sysctl(path)
	n, nerr := strconv.Atoi(text)
	switch {
	case err != nil:
		f.State, f.Text = api.Warn, "could not be read: "+err.Error()
	case nerr != nil || n < least:
		f.State, f.Text = state, fmt.Sprintf("is %s: %s", text, why)
		f.Remedy = fmt.Sprintf("sysctl -w %s=%d, and in /etc/sysctl.d/ for good", name, least)
	default:
		f.Text = "is " + text
	}
	return f
}

// conntrack is somebody else's table, but forwarded mail dies with it; Sluice itself needs no entry.
func (h *host) conntrack() (f api.Finding, full bool) {
	n, limit := h.number("net/netfilter/nf_conntrack_count"), h.number("net/netfilter/nf_conntrack_max")
	return api.Finding{Check: "connection tracking", State: api.Warn, Text: fmt.Sprintf("%d of %d entries are in use: when they are, forwarded connections are dropped", n, limit),
		Remedy: fmt.Sprintf("sysctl -w net.netfilter.nf_conntrack_max=%d, or leave mail out with notrack", 4*limit)}, limit > 0 && n > limit/10*9
}

// ports checks the range from which outgoing connections take their ports.
func (h *host) ports(cfg *config.Config) api.Finding {
	const few = 16_000
	f := api.Finding{Check: "net.ipv4.ip_local_port_range", State: api.OK}
	text, err := h.sysctl("net/ipv4/ip_local_port_range")
	var first, last int
	if _, serr := fmt.Sscan(text, &first, &last); err != nil || serr != nil {
		f.State, f.Text = api.Warn, fmt.Sprintf("could not be read: %q, %v", text, err)
		return f
	}
	f.Text = fmt.Sprintf("is %d to %d", first, last)
	listen := int(cfg.Intercept.ListenPort)
	reserved, err := h.sysctl("net/ipv4/ip_local_reserved_ports")
	switch {
	case last-first+1 < few:
		f.State, f.Text = api.Warn, f.Text+fmt.Sprintf(": %d connections at once from one delivery address to one destination", last-first+1)
		f.Remedy = `sysctl -w net.ipv4.ip_local_port_range="10240 65535", and in /etc/sysctl.d/ for good`
	case first <= listen && listen <= last && err == nil && !within(reserved, listen):
		f.State, f.Text = api.Warn, f.Text+fmt.Sprintf(", which holds intercept.listen_port %d: another program may be given it first", listen)
		f.Remedy = fmt.Sprintf("sysctl -w net.ipv4.ip_local_reserved_ports=%d, and in /etc/sysctl.d/ for good", listen)
	}
	return f
}

// within reads a list like "8080,9000-9100".
func within(list string, port int) bool {
	for part := range strings.SplitSeq(list, ",") {
		low, high, span := strings.Cut(strings.TrimSpace(part), "-")
		if !span {
			high = low
		}
		a, aerr := strconv.Atoi(low)
		b, berr := strconv.Atoi(high)
		if aerr == nil && berr == nil && a <= port && port <= b {
			return true
		}
	}
	return false
}

// wrongClock is a time that has passed: logs, locks and certificates with it are nonsense.
var wrongClock = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func (h *host) time() api.Finding {
	f := api.Finding{Check: "clock", State: api.OK, Text: "synchronised"}
	ok, err := h.clock()
	switch {
	case time.Now().Before(wrongClock):
		f.State, f.Text, f.Remedy = api.Fail, "it is not "+time.Now().Format(time.DateTime), "systemctl enable --now systemd-timesyncd"
	case err != nil:
		f.State, f.Text = api.Warn, "could not be asked: "+err.Error()
	case !ok:
		f.State, f.Text = api.Warn, "is not synchronised: log, ends of locks and certificates depend on it"
		f.Remedy = "systemctl enable --now systemd-timesyncd (or chrony, ntpd)"
	}
	return f
}

// clockState asks the kernel whether some program keeps its clock in time.
func clockState() (synchronised bool, err error) {
	const unsynchronised, inError = 0x40, 5 // STA_UNSYNC, TIME_ERROR of adjtimex(2)
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	return err == nil && state != inError && t.Status&unsynchronised == 0, err
}

// pins checks that programs and maps can stay in the kernel.
func pins(dir string) api.Finding {
	f := api.Finding{Check: "bpf file system", State: api.OK, Text: "pins are in " + dir}
	var st unix.Statfs_t
	err := unix.Statfs(dir, &st)
	if errors.Is(err, unix.ENOENT) { // before the first start of sluice-intercept
		err = unix.Statfs(filepath.Dir(dir), &st)
	}
	switch {
	case errors.Is(err, unix.EACCES):
		f.State, f.Text, f.Remedy = api.Warn, dir+" may not be looked at", "run doctor as root"
	case err != nil || st.Type != unix.BPF_FS_MAGIC:
		f.State, f.Text = api.Fail, dir+" is not on a BPF file system"
		f.Remedy = "mount -t bpf bpf /sys/fs/bpf (systemd does it by itself), or correct intercept.pin_dir"
	}
	return f
}
