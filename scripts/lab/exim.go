package lab

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// exim is Debian's Exim as a fresh installation ("internet site", split
// configuration) makes it; only names and addresses and a mailbox for unknown
// local users are the lab's.
type exim struct{}

func (*exim) pkg() string       { return "exim" }
func (*exim) listening() string { return "daemon started" }
func (*exim) logPath() string   { return "var/log/exim4/mainlog" }
func (*exim) sendmail() string  { return "/usr/sbin/exim4" }

// command runs no queue by itself: a run that begins with the daemon would hold the messages that flush wants to try.
func (*exim) command() []string { return []string{"/usr/sbin/exim4", "-bdf"} }

const eximRouter = `lab_archive:
  driver = accept
  domains = +local_domains
  transport = lab_archive
`

const eximTransport = `lab_archive:
  driver = appendfile
  directory = /home/archive/Maildir
  create_directory
  maildir_format
  user = archive
  group = archive
`

// eximRecipients belongs to the ACL of RCPT.
const eximRecipients = `  deny
    message = Recipient unknown
    local_parts = ^reject
  defer
    message = Try again later
    local_parts = ^defer
`

// eximMX is for Debian's configuration: TLS at all addresses but these, the lab's recipients, delivery at once however many
// messages come by one connection (else the eleventh waits for the queue runner), and Exim's 20 connections at each of the four
// doors, which are four servers to its clients.
func eximMX(bare []string) string {
	var none []string
	for _, a := range bare {
		none = append(none, "{eq{$received_ip_address}{"+a+"}}")
	}
	return `MAIN_TLS_ENABLE = yes
MAIN_TLS_CERTIFICATE = /etc/ssl/certs/ssl-cert-snakeoil.pem
MAIN_TLS_PRIVATEKEY = /etc/ssl/private/ssl-cert-snakeoil.key
MAIN_TLS_ADVERTISE_HOSTS = ${if or{` + strings.Join(none, "") + `}{}{*}}
CHECK_RCPT_LOCAL_ACL_FILE = /etc/exim4/lab-recipients
smtp_accept_queue_per_connection = 0
smtp_accept_max = 80
`
}

func (*exim) configure(ctx context.Context, m *MTA) error {
	// "<; ::1" style: addresses of both families in one list.
	conf := `dc_eximconfig_configtype='internet'
dc_other_hostnames='` + strings.Join(m.domains(), " : ") + `'
dc_local_interfaces='` + strings.Join(append(slices.Clone(m.listen), m.bare()...), " ; ") + `'
dc_readhost=''
dc_relay_domains=''
dc_minimaldns='false'
dc_relay_nets=''
dc_smarthost=''
CFILEMODE='644'
dc_use_split_config='true'
dc_hide_mailname=''
dc_mailname_in_oh='true'
dc_localdelivery='maildir_home'
`
	settings := ""
	if m.mx != nil {
		settings = eximMX(m.bare())
	}
	for name, text := range map[string]string{
		"etc/exim4/update-exim4.conf.conf":          conf,
		"etc/exim4/conf.d/main/000_lab":             settings,
		"etc/exim4/lab-recipients":                  eximRecipients,
		"etc/exim4/conf.d/router/950_lab_archive":   eximRouter,
		"etc/exim4/conf.d/transport/40_lab_archive": eximTransport,
	} {
		if err := os.WriteFile(filepath.Join(m.root, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	_, err := m.run(ctx, nil, "/bin/sh", "-c", `set -e
mkdir -p /var/spool/exim4 /var/log/exim4 /run/exim4 /var/lib/exim4
chown -R Debian-exim:Debian-exim /var/spool/exim4 /run/exim4
chown -R Debian-exim:adm /var/log/exim4
chmod 750 /var/spool/exim4 /var/log/exim4
update-exim4.conf
`)
	return err
}

// flush runs the queue. A message is put off in the log before the process that tried it lets go of it, and a run passes
// by what another process holds; so it is repeated while it says so, at most for some seconds: a delivery may be slow.
func (e *exim) flush(ctx context.Context, m *MTA) error {
	const held = "Spool file is locked"
	settled, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for {
		before, err := os.ReadFile(filepath.Join(m.root, e.logPath()))
		if err != nil {
			return err
		}
		if _, err := m.run(ctx, nil, "/usr/sbin/exim4", "-qff"); err != nil {
			return err
		}
		after, err := os.ReadFile(filepath.Join(m.root, e.logPath()))
		if err != nil {
			return err
		}
		if !strings.Contains(string(after[min(len(before), len(after)):]), held) || sleep(settled, logPoll) != nil {
			return nil
		}
	}
}

// Lines of exim -bp: age, size, id and sender; then recipients, done ones
// marked D.
var eximQueued = regexp.MustCompile(`^\s*\d+[smhdw]\s+(\S+)\s+([0-9A-Za-z]+-[0-9A-Za-z]+-[0-9A-Za-z]+)\s+<(.*)>`)

func (e *exim) queue(ctx context.Context, m *MTA) ([]QueueEntry, error) {
	out, err := m.run(ctx, nil, "/usr/sbin/exim4", "-bp")
	if err != nil {
		return nil, err
	}
	reasons := map[string]string{}
	if attempts, err := m.Deliveries(); err == nil {
		for _, d := range attempts {
			reasons[d.QueueID+" "+d.To] = d.Text
		}
	}
	var all []QueueEntry
	for line := range strings.Lines(out) {
		if f := eximQueued.FindStringSubmatch(line); f != nil {
			all = append(all, QueueEntry{ID: f[2], Sender: f[3], Size: eximSize(f[1])})
			continue
		}
		words := strings.Fields(line)
		if len(words) != 1 || len(all) == 0 {
			continue // "D address" was delivered
		}
		q := &all[len(all)-1]
		q.Recipients = append(q.Recipients, QueuedRecipient{words[0], reasons[q.ID+" "+words[0]]})
	}
	return all, nil
}

// eximSize reads 812, 2.9K or 1.2M.
func eximSize(s string) int {
	unit := 1.0
	if n := len(s) - 1; n >= 0 {
		switch s[n] {
		case 'K':
			s, unit = s[:n], 1<<10
		case 'M':
			s, unit = s[:n], 1<<20
		}
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return 0
	}
	return int(v * unit)
}

var (
	eximLine = regexp.MustCompile(`^\S+ \S+ ([0-9A-Za-z]+-[0-9A-Za-z]+-[0-9A-Za-z]+) (<=|=>|->|==|\*\*) (\S+)(.*)$`)
	eximID   = regexp.MustCompile(` id=(\S+)`)
	eximHost = regexp.MustCompile(` H=(\S+ \[[^\]]+\])`)
	eximC    = regexp.MustCompile(` C="((?:[^"\\]|\\.)*)"`)
	eximSaid = regexp.MustCompile(`SMTP error from remote mail server after [^:]*(?::<[^>]*>[^:]*)?: (.*)$`)
	eximCode = regexp.MustCompile(`^\d{3}[ -](\d\.\d{1,3}\.\d{1,3})`)
)

func (*exim) parse(log string) []Delivery {
	var all []Delivery
	ids, senders := map[string]string{}, map[string]string{}
	for line := range strings.Lines(log) {
		f := eximLine.FindStringSubmatch(strings.TrimRight(line, "\n"))
		if f == nil {
			continue
		}
		id, sign, addr, rest := f[1], f[2], strings.TrimSuffix(f[3], ":"), f[4]
		if sign == "<=" {
			senders[id] = strings.Trim(addr, "<>")
			if m := eximID.FindStringSubmatch(rest); m != nil {
				ids[id] = "<" + m[1] + ">"
			}
			continue
		}
		d := Delivery{QueueID: id, MessageID: ids[id], From: senders[id], To: addr, Text: strings.TrimSpace(rest), Reply: strings.TrimSpace(rest)}
		d.Status = map[string]string{"=>": Sent, "->": Sent, "==": Deferred, "**": Bounced}[sign]
		if m := eximHost.FindStringSubmatch(rest); m != nil {
			d.Relay = m[1]
		}
		if m := eximC.FindStringSubmatch(rest); m != nil {
			d.Reply = strings.ReplaceAll(m[1], `\"`, `"`)
		} else if m := eximSaid.FindStringSubmatch(rest); m != nil {
			d.Reply = m[1]
		}
		if m := eximCode.FindStringSubmatch(d.Reply); m != nil {
			d.DSN = m[1]
		}
		all = append(all, d)
	}
	return all
}
