package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// rspamdRoot is where scripts/lab/mtaroots unpacks Rspamd.
func rspamdRoot() string {
	cache := os.Getenv("SLUICE_LAB_CACHE")
	if cache == "" {
		cache = "/var/cache/sluice-lab"
	}
	return filepath.Join(cache, "rspamd")
}

// offline are Rspamd's modules that ask the network or other services: they are left out.
const offline = "antivirus arc asn bayes clickhouse dkim dkim_signing dmarc elastic external_services fuzzy_check greylist history_redis known_senders metadata_exporter " +
	"milter_headers mx_check neural p0f phishing ratelimit rbl replies reputation spamtrap spf surbl url_redirector"

// rspamd measures Debian's Rspamd on the test split.
func rspamd(w io.Writer, dir string, _, test []*letter, _ map[*letter]string) error {
	scores, spent, err := askRspamd(test, filepath.Join(dir, "rspamd"))
	if err != nil {
		return err
	}
	each := spent / time.Duration(len(test))
	printPeer(w, "Rspamd, add header (6)", test, scores, 6, each)
	printPeer(w, "Rspamd, reject (15)", test, scores, 15, each)
	return nil
}

// rspamdPoints are the points that Rspamd gives.
func rspamdPoints(ms []*letter, dir string) (map[string]float64, error) {
	scores, _, err := askRspamd(ms, dir)
	return scores, err
}

// askRspamd has Rspamd judge messages by all rules that need no network, in processor time spent: its usual worker, in a
// network namespace with nothing in it, asked by HTTP at a socket in the file system. dir is for what it writes.
func askRspamd(ms []*letter, dir string) (scores map[string]float64, spent time.Duration, err error) {
	root := rspamdRoot()
	if _, err := os.Stat(filepath.Join(root, "usr/bin/rspamd")); err != nil {
		return nil, 0, errors.New("`scripts/lab/mtaroots` unpacks it")
	}
	if err := writeRspamd(dir, root); err != nil {
		return nil, 0, err
	}
	cmd := startRspamd(dir, root)
	if err := cmd.Start(); err != nil {
		return nil, 0, err
	}
	defer func() {
		_ = cmd.Process.Kill() // its namespace of processes ends with it, and so do the workers
		_ = cmd.Wait()
	}()
	socket := filepath.Join(dir, "normal.sock")
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	if err := waitRspamd(client); err != nil {
		return nil, 0, err
	}
	before, err := familyTime(cmd.Process.Pid)
	if err != nil {
		return nil, 0, err
	}
	scores = map[string]float64{}
	for _, m := range ms {
		if scores[m.file], err = scoreOf(client, m.data); err != nil {
			return nil, 0, fmt.Errorf("%s: %w", m.file, err)
		}
	}
	after, err := familyTime(cmd.Process.Pid)
	return scores, after - before, err
}

// writeRspamd writes what differs from the package's own configuration.
func writeRspamd(dir, root string) error {
	files := map[string]string{
		"rspamd.conf":               fmt.Sprintf(".include \"%[1]s/etc/rspamd/rspamd.conf\"\nlang_detection { languages = \"%[1]s/usr/share/rspamd/languages\"; }\n", root),
		"local.d/options.inc":       fmt.Sprintf("dns { nameserver = [\"127.0.0.1\"]; timeout = 0.05s; retransmits = 0; }\ncontrol_socket = \"%[1]s/control.sock mode=0600\";\nhs_cache_dir = \"%[1]s\";\n", dir),
		"local.d/worker-normal.inc": fmt.Sprintf("bind_socket = \"%s/normal.sock mode=0600\";\ncount = 1;\n", dir),
		"local.d/logging.inc":       "type = \"console\"; level = \"error\";\n",
		"local.d/statistic.conf":    "enabled = false;\n",
	}
	for _, kind := range []string{"controller", "proxy", "fuzzy"} {
		files["local.d/worker-"+kind+".inc"] = "enabled = false;\n"
	}
	for _, m := range strings.Fields(offline) {
		files["local.d/"+m+".conf"] = "enabled = false;\n"
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func startRspamd(dir, root string) *exec.Cmd {
	share := filepath.Join(root, "usr/share/rspamd")
	args := []string{"--net", "--pid", "--kill-child", "--", filepath.Join(root, "usr/bin/rspamd"), "-f", "-i", "-c", filepath.Join(dir, "rspamd.conf"), "--var=CONFDIR=" + filepath.Join(root, "etc/rspamd"), "--var=LOCAL_CONFDIR=" + dir}
	env := os.Environ()
	for name, at := range map[string]string{"SHAREDIR": share, "LUALIBDIR": share + "/lualib", "RULESDIR": share + "/rules", "PLUGINSDIR": share + "/plugins", "RUNDIR": dir, "DBDIR": dir, "LOGDIR": dir} {
		args = append(args, "--var="+name+"="+at)
		env = append(env, name+"="+at)
	}
	cmd := exec.Command("unshare", args...)
	libs, _ := filepath.Glob(filepath.Join(root, "usr/lib/*-linux-gnu")) // the pattern is sound
	cmd.Env = append(env, "LD_LIBRARY_PATH="+strings.Join(append(libs, filepath.Join(root, "usr/lib/rspamd")), ":"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// waitRspamd waits until it answers: its first start compiles its rules, which takes a minute on a busy machine.
func waitRspamd(client *http.Client) error {
	var err error
	for until := time.Now().Add(15 * time.Minute); time.Now().Before(until); time.Sleep(time.Second) {
		var r *http.Response
		if r, err = client.Get("http://rspamd/ping"); err == nil {
			return r.Body.Close()
		}
	}
	return fmt.Errorf("it does not start: %w", err)
}

// scoreOf asks about one message.
func scoreOf(client *http.Client, mail []byte) (float64, error) {
	r, err := client.Post("http://rspamd/checkv2", "application/octet-stream", bytes.NewReader(mail))
	if err != nil {
		return 0, err
	}
	var said struct {
		Score *float64 `json:"score"`
	}
	err = json.NewDecoder(r.Body).Decode(&said)
	if err = errors.Join(err, r.Body.Close()); err == nil && said.Score == nil {
		err = fmt.Errorf("it gave no score: %s", r.Status)
	}
	if err != nil {
		return 0, err
	}
	return *said.Score, nil
}

// familyTime is the processor time of a process and all that descends from it so far (proc(5), stat), in steps of a hundredth
// of a second.
func familyTime(pid int) (all time.Duration, err error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	children, spent := map[int][]int{}, map[int]time.Duration{}
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		own, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(f) < 13 {
			continue
		}
		parent, _ := strconv.Atoi(f[1])
		children[parent] = append(children[parent], own)
		for _, x := range f[11:13] {
			n, _ := strconv.ParseInt(x, 10, 64)
			spent[own] += time.Duration(n) * 10 * time.Millisecond
		}
	}
	for family := []int{pid}; len(family) > 0; family = family[1:] {
		all += spent[family[0]]
		family = append(family, children[family[0]]...)
	}
	return all, nil
}
