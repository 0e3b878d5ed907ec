package lab

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Where the scanners of Debian listen, all on the gateway's loopback.
const (
	ClamdAddress  = "127.0.0.1:3310"
	RspamdAddress = "127.0.0.1:11333"
	SpamdAddress  = "127.0.0.1:783"
	MilterAddress = "127.0.0.1:8895"
)

// The texts that they object to; the gateway itself finds nothing in them.
const (
	ScannerVirus  = "sluice-lab-virus-7f3a"  // clamd, under the name Lab.Virus
	ScannerGuess  = "sluice-lab-guess-91bc"  // clamd, under the name Foreign.Guess
	ScannerRspamd = "sluice-lab-rspamd-02de" // Rspamd: reject
	ScannerSpamd  = "sluice-lab-spamd-5d10"  // SpamAssassin: spam
	ScannerMilter = "sluice-lab-milter-c4f8" // the milter: 554 in the body; refused@ at RCPT, later@ at MAIL
)

// scanner makes a folder of its own and names that of the packages.
func (l *Lab) scanner(ctx context.Context, name string) (dir, root string, err error) {
	if root, err = unpacked(ctx, l.cache, name); err != nil {
		return "", "", err
	}
	dir = filepath.Join(l.dir, name)
	return dir, root, os.MkdirAll(dir, 0o755)
}

// libraries is where packages have them.
func libraries(root string, more ...string) string {
	dirs := []string{filepath.Join(root, "usr/lib/x86_64-linux-gnu"), filepath.Join(root, "usr/lib/aarch64-linux-gnu")}
	return "LD_LIBRARY_PATH=" + strings.Join(append(more, dirs...), ":")
}

// Clamd starts ClamAV's daemon with a few signatures: its own can only be fetched from its makers.
func (l *Lab) Clamd(ctx context.Context) (*Process, error) {
	dir, root, err := l.scanner(ctx, "clamav")
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(dir, "db"), 0o755); err != nil {
		return nil, err
	}
	// In two pieces so that no virus scanner takes this program for a virus.
	eicar := `X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-` + `ANTIVIRUS-TEST-FILE!$H+H*`
	var db strings.Builder
	for name, text := range map[string]string{"Lab.Virus": ScannerVirus, "Foreign.Guess": ScannerGuess, "Lab.Eicar": eicar} {
		fmt.Fprintf(&db, "%s:0:*:%s\n", name, hex.EncodeToString([]byte(text)))
	}
	host, port, _ := strings.Cut(ClamdAddress, ":")
	conf := fmt.Sprintf("DatabaseDirectory %[1]s/db\nTemporaryDirectory %[1]s\nTCPAddr %[2]s\nTCPSocket %[3]s\nForeground yes\nStreamMaxLength 4M\n", dir, host, port)
	if err := writeFiles(dir, map[string]string{"db/lab.ndb": db.String(), "clamd.conf": conf}); err != nil {
		return nil, err
	}
	return l.Start(HostGateway, Command{Args: []string{filepath.Join(root, "usr/sbin/clamd"), "-c", filepath.Join(dir, "clamd.conf")}, Env: []string{libraries(root)}})
}

// Rspamd starts Rspamd's scanner with one rule.
func (l *Lab) Rspamd(ctx context.Context) (*Process, error) {
	dir, root, err := l.scanner(ctx, "rspamd")
	if err != nil {
		return nil, err
	}
	share := filepath.Join(root, "usr/share/rspamd")
	conf := fmt.Sprintf(`options {
  pidfile = "%[1]s/pid"; tempdir = "%[1]s"; hs_cache_dir = "%[1]s"; control_socket = "%[1]s/control.sock mode=0600";
  filters = ""; url_tld = "%[1]s/tld"; disable_hyperscan = true;
  dns { nameserver = ["127.0.0.1"]; timeout = 1s; retransmits = 1; }
}
lua = "%[1]s/lab.lua";
lang_detection { languages = "%[2]s/languages"; }
logging { type = "console"; level = "info"; }
actions { reject = 15; add_header = 6; }
worker "normal" { bind_socket = "%[3]s"; count = 1; }
`, dir, share, RspamdAddress)
	rule := `rspamd_config:register_symbol({name = 'LAB_TEXT', score = 20.0, callback = function(task)
  return string.find(tostring(task:get_content()), '` + ScannerRspamd + `', 1, true) ~= nil
end})
`
	if err := writeFiles(dir, map[string]string{"rspamd.conf": conf, "lab.lua": rule, "tld": "example\ntest\n"}); err != nil {
		return nil, err
	}
	args := []string{filepath.Join(root, "usr/bin/rspamd"), "-f", "-i", "-c", filepath.Join(dir, "rspamd.conf"), "--var=SHAREDIR=" + share}
	for _, v := range []string{"RUNDIR", "DBDIR", "LOGDIR", "CONFDIR", "LOCAL_CONFDIR"} {
		args = append(args, "--var="+v+"="+dir)
	}
	return l.Start(HostGateway, Command{Args: args, Env: []string{libraries(root, filepath.Join(root, "usr/lib/rspamd")), "SHAREDIR=" + share,
		"LUALIBDIR=" + share + "/lualib", "RULESDIR=" + share + "/rules", "PLUGINSDIR=" + share + "/plugins"}})
}

// Spamd starts SpamAssassin's daemon with its own rules, those that need the network left out, and one more.
func (l *Lab) Spamd(ctx context.Context) (*Process, error) {
	dir, root, err := l.scanner(ctx, "spamd")
	if err != nil {
		return nil, err
	}
	local := "use_bayes 0\ndns_available no\nbody LAB_TEXT /" + ScannerSpamd + "/\nscore LAB_TEXT 100\n"
	if err := writeFiles(dir, map[string]string{"site/local.cf": local}); err != nil {
		return nil, err
	}
	pres, err := filepath.Glob(filepath.Join(root, "etc/spamassassin/*.pre"))
	if err != nil {
		return nil, err
	}
	for _, p := range pres {
		b, err := os.ReadFile(p)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "site", filepath.Base(p)), b, 0o644)
		}
		if err != nil {
			return nil, err
		}
	}
	args := []string{"perl", "-T", "-I" + filepath.Join(root, "usr/share/perl5")}
	compiled, err := filepath.Glob(filepath.Join(root, "usr/lib/*/perl5/*")) // modules that this machine lacks
	if err != nil {
		return nil, err
	}
	for _, dir := range compiled {
		args = append(args, "-I"+dir)
	}
	return l.Start(HostGateway, Command{Name: "spamd", Env: []string{libraries(root)}, Args: append(args, filepath.Join(root, "usr/sbin/spamd"), "--local", "--max-children=2",
		"--nouser-config", "--syslog=stderr", "--listen="+SpamdAddress, "--configpath="+filepath.Join(root, "usr/share/spamassassin"),
		"--siteconfigpath="+filepath.Join(dir, "site"), "--helper-home-dir="+dir, "-u", "nobody")})
}

// milterScript is a milter by Sendmail's own library.
const milterScript = `import Milter, sys
class Lab(Milter.Base):
    @Milter.noreply
    def connect(self, name, family, address):
        print("connect", name, address[0], flush=True)
        return Milter.CONTINUE
    def envfrom(self, sender, *args):
        return Milter.TEMPFAIL if "later@" in sender else Milter.CONTINUE
    def envrcpt(self, to, *args):
        return Milter.REJECT if "refused@" in to else Milter.CONTINUE
    def header(self, name, value):
        self.marked = getattr(self, "marked", False) or name == "Subject" and value == "mark me"
        return Milter.CONTINUE
    def body(self, chunk):
        if b"%s" in chunk:
            self.setreply("554", "5.7.1", "the milter says no")
            return Milter.REJECT
        return Milter.CONTINUE
    def eom(self):
        if getattr(self, "marked", False):
            self.addheader("X-Spam-Flag", "YES")
        self.addheader("X-Lab-Milter", "seen")
        self.replacebody(b"another body\r\n")
        return Milter.ACCEPT
Milter.factory = Lab
Milter.set_flags(Milter.ADDHDRS + Milter.CHGBODY)
Milter.runmilter("lab", "inet:%s@%s", 30)
`

// Milter starts a milter in Python on Sendmail's library.
func (l *Lab) Milter(ctx context.Context) (*Process, error) {
	dir, root, err := l.scanner(ctx, "milter")
	if err != nil {
		return nil, err
	}
	host, port, _ := strings.Cut(MilterAddress, ":")
	if err := writeFiles(dir, map[string]string{"labmilter.py": fmt.Sprintf(milterScript, ScannerMilter, port, host)}); err != nil {
		return nil, err
	}
	return l.Start(HostGateway, Command{Name: "milter", Args: []string{"python3", filepath.Join(dir, "labmilter.py")},
		Env: []string{libraries(root), "PYTHONPATH=" + filepath.Join(root, "usr/lib/python3/dist-packages")}})
}

// writeFiles writes files below dir, with the folders that they need.
func writeFiles(dir string, files map[string]string) error {
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
