package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// postfix is Debian's Postfix as a fresh installation ("Internet Site") makes
// it; only names and addresses, the log file and the mailbox are the lab's.
type postfix struct {
	settings []string
}

func (*postfix) pkg() string       { return "postfix" }
func (*postfix) listening() string { return "daemon started" }
func (*postfix) logPath() string   { return "var/log/mail.log" }
func (*postfix) sendmail() string  { return "/usr/sbin/sendmail" }
func (*postfix) command() []string { return []string{"/usr/sbin/postfix", "start-fg"} }

func (p *postfix) configure(ctx context.Context, m *MTA) error {
	inet := "all"
	if len(m.listen) > 0 {
		inet = strings.Join(m.listen, ", ")
	}
	// What Debian's postinst writes after main.cf.debian and main.cf.tls.
	access, doors := "", ""
	if m.mx != nil {
		access = "smtpd_recipient_restrictions = check_recipient_access regexp:/etc/postfix/lab-recipients"
		doors = postfixDoors(m.bare())
	}
	lines := []string{
		access,
		"smtpd_relay_restrictions = permit_mynetworks permit_sasl_authenticated defer_unauth_destination",
		"myhostname = " + m.fqdn,
		"alias_maps = hash:/etc/aliases",
		"alias_database = hash:/etc/aliases",
		"myorigin = /etc/mailname",
		"mydestination = $myhostname, " + strings.Join(m.domains(), ", ") + ", localhost",
		"relayhost =",
		"mynetworks = 127.0.0.0/8 [::ffff:127.0.0.0]/104 [::1]/128",
		"mailbox_size_limit = 0",
		"recipient_delimiter = +",
		"inet_interfaces = " + inet,
		"inet_protocols = all",
		// The lab's.
		"maillog_file = /var/log/mail.log",
		"home_mailbox = Maildir/",
		"local_recipient_maps =",
		"luser_relay = archive",
		"compatibility_level = 3.6",
	}
	for name, text := range map[string]string{
		"main.cf.lab":    strings.Join(lines, "\n") + "\n",
		"master.cf.lab":  doors,
		"settings.lab":   strings.Join(p.settings, "\n") + "\n",
		"lab-recipients": "/^reject/ 550 5.1.1 Recipient unknown\n/^defer/ 451 4.3.0 Try again later\n",
	} {
		if err := os.WriteFile(filepath.Join(m.root, "etc/postfix", name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	_, err := m.run(ctx, nil, "/bin/sh", "-c", `set -e
cd /etc/postfix
cat /usr/share/postfix/master.cf.dist master.cf.lab > master.cf
cp /usr/share/postfix/dynamicmaps.cf dynamicmaps.cf
# Later lines win; Debian's own file first.
cat /usr/share/postfix/main.cf.debian /usr/share/postfix/main.cf.tls main.cf.lab > main.cf
# In place: each line that is there twice is a warning, and postlogd waits for itself once it has logged ten of them.
while read -r line; do [ -z "$line" ] || /usr/sbin/postconf -e "$line"; done < settings.lab
mkdir -p /var/spool/postfix /var/lib/postfix
chown postfix: /var/lib/postfix
# Postfix waits until a file that was just edited has cooled down.
touch -d '1 hour ago' /etc/aliases main.cf master.cf
newaliases
/usr/lib/postfix/configure-instance.sh - 2>/dev/null
`)
	return err
}

// postfixDoors are the services of master.cf at addresses without STARTTLS.
func postfixDoors(addrs []string) string {
	var b strings.Builder
	for _, a := range addrs {
		fmt.Fprintf(&b, "[%s]:smtp inet n - y - - smtpd\n  -o smtpd_tls_security_level=none\n", a)
	}
	return b.String()
}

// flush has the deferred queue delivered. What was just put off is logged before it is in that queue, so messages that
// are still in the active one are waited for, at most for some seconds: they may be in the midst of a slow delivery.
func (p *postfix) flush(ctx context.Context, m *MTA) error {
	settled, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for {
		all, err := p.queue(ctx, m)
		if err != nil {
			return err
		}
		busy := slices.ContainsFunc(all, func(e QueueEntry) bool { return e.Queue != "deferred" && e.Queue != "hold" })
		if !busy || sleep(settled, logPoll) != nil {
			break
		}
	}
	_, err := m.run(ctx, nil, "/usr/sbin/postqueue", "-f")
	return err
}

func (*postfix) queue(ctx context.Context, m *MTA) ([]QueueEntry, error) {
	out, err := m.run(ctx, nil, "/usr/sbin/postqueue", "-j")
	if err != nil {
		return nil, err
	}
	var all []QueueEntry
	for line := range strings.Lines(out) {
		var e struct {
			ID         string `json:"queue_id"`
			Queue      string `json:"queue_name"`
			Sender     string `json:"sender"`
			Size       int    `json:"message_size"`
			Recipients []struct {
				Address string `json:"address"`
				Reason  string `json:"delay_reason"`
			} `json:"recipients"`
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			return nil, fmt.Errorf("could not read postqueue's line %q: %w", line, err)
		}
		q := QueueEntry{ID: e.ID, Queue: e.Queue, Sender: e.Sender, Size: e.Size}
		for _, r := range e.Recipients {
			q.Recipients = append(q.Recipients, QueuedRecipient(r))
		}
		all = append(all, q)
	}
	return all, nil
}

var (
	postfixLine = regexp.MustCompile(`^(\S+ +\d+ [\d:]+) \S+ postfix/\S+\[\d+\]: ([0-9A-Za-z]+): (.*)$`)
	postfixTo   = regexp.MustCompile(`^to=<([^>]*)>,.* relay=([^,]+),.* dsn=([\d.]+), status=(\w+) \((.*)\)$`)
	postfixSaid = regexp.MustCompile(`(?s)^host \S+ (?:said|refused to talk to me): (.*?)(?: \(in reply to [^)]*\))?$`)
)

func (*postfix) parse(log string) []Delivery {
	var all []Delivery
	ids, senders := map[string]string{}, map[string]string{}
	for line := range strings.Lines(log) {
		f := postfixLine.FindStringSubmatch(strings.TrimRight(line, "\n"))
		if f == nil {
			continue
		}
		id, rest := f[2], f[3]
		if v, ok := strings.CutPrefix(rest, "message-id="); ok {
			ids[id] = v
			continue
		}
		if v, ok := strings.CutPrefix(rest, "from=<"); ok {
			senders[id], _, _ = strings.Cut(v, ">")
			continue
		}
		t := postfixTo.FindStringSubmatch(rest)
		if t == nil {
			continue
		}
		d := Delivery{QueueID: id, MessageID: ids[id], From: senders[id], To: t[1], Relay: t[2], DSN: t[3], Text: t[5], Reply: t[5]}
		d.Status = map[string]string{"sent": Sent, "deferred": Deferred, "bounced": Bounced}[t[4]]
		if said := postfixSaid.FindStringSubmatch(t[5]); said != nil {
			d.Reply = said[1]
		}
		all = append(all, d)
	}
	return all
}
