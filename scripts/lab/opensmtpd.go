package lab

import (
	"context"
	"fmt"
	"regexp"
	"strings"
)

// openSMTPD is Debian's OpenSMTPD. On a customer it has the stock configuration; at an MX it takes everything for its
// domains into one mailbox, and its TLS is broken: Debian 12's version offers STARTTLS but cannot work with the key under
// the OpenSSL it is linked with, so that every handshake fails.
type openSMTPD struct{}

func (*openSMTPD) pkg() string       { return "opensmtpd" }
func (*openSMTPD) listening() string { return "starting" }
func (*openSMTPD) logPath() string   { return "var/log/mail.log" }
func (*openSMTPD) sendmail() string  { return "/usr/sbin/sendmail" }

func (*openSMTPD) command() []string {
	return []string{"/bin/sh", "-c", "exec /usr/sbin/smtpd -d >/var/log/mail.log 2>&1"}
}

const openSMTPDClient = `table aliases file:/etc/aliases
listen on localhost
action "local" maildir alias <aliases>
action "relay" relay
match for local action "local"
match from local for any action "relay"
`

const openSMTPDFilters = `table archive { "@" = "archive" }
pki lab cert "/etc/ssl/certs/ssl-cert-snakeoil.pem"
pki lab key "/etc/ssl/private/ssl-cert-snakeoil.key"
table refused { "^reject" }
table deferred { "^defer" }
filter refuse phase rcpt-to match rcpt-to regex <refused> reject "550 5.1.1 Recipient unknown"
filter defer phase rcpt-to match rcpt-to regex <deferred> reject "451 4.3.0 Try again later"
filter recipients chain { refuse, defer }
`

// openSMTPDMX is the configuration of an MX.
func openSMTPDMX(m *MTA) string {
	var b strings.Builder
	b.WriteString(openSMTPDFilters)
	plain := m.bare()
	for _, a := range m.listen {
		fmt.Fprintf(&b, "listen on %s port 25 tls pki lab hostname %s filter recipients\n", a, m.fqdn)
	}
	for _, a := range plain {
		fmt.Fprintf(&b, "listen on %s port 25 hostname %s filter recipients\n", a, m.fqdn)
	}
	b.WriteString("action \"archive\" maildir virtual <archive>\n")
	for _, d := range m.domains() {
		fmt.Fprintf(&b, "match from any for domain %q action \"archive\"\n", d)
	}
	return b.String()
}

func (*openSMTPD) configure(ctx context.Context, m *MTA) error {
	conf := openSMTPDClient
	if m.mx != nil {
		conf = openSMTPDMX(m)
	}
	if err := m.install(map[string][]byte{"etc/smtpd.conf": []byte(conf)}); err != nil {
		return err
	}
	_, err := m.run(ctx, nil, "/bin/sh", "-c", `set -e
chmod 700 /root
chmod 600 /etc/ssl/private/ssl-cert-snakeoil.key
mkdir -p /var/spool/smtpd
chmod 711 /var/spool/smtpd
`)
	return err
}

// answers is asked after the start: what the server logs comes before its processes can be spoken to.
func (*openSMTPD) answers(ctx context.Context, m *MTA) bool {
	out, err := m.Exec(ctx, "/usr/sbin/smtpctl", "show", "stats")
	return err == nil && out.Code == 0
}

// flush makes everything due at once.
func (*openSMTPD) flush(ctx context.Context, m *MTA) error {
	_, err := m.run(ctx, nil, "/usr/sbin/smtpctl", "schedule", "all")
	return err
}

// queue reads lines of smtpctl: envelope, family, kind, flags, sender, recipient, further fields, the last error.
func (*openSMTPD) queue(ctx context.Context, m *MTA) ([]QueueEntry, error) {
	out, err := m.run(ctx, nil, "/usr/sbin/smtpctl", "show", "queue")
	if err != nil {
		return nil, err
	}
	var all []QueueEntry
	for line := range strings.Lines(out) {
		f := strings.Split(strings.TrimSpace(line), "|")
		if len(f) < 7 {
			continue
		}
		all = append(all, QueueEntry{ID: f[0], Sender: f[4], Recipients: []QueuedRecipient{{f[5], f[len(f)-1]}}})
	}
	return all, nil
}

var openSMTPDLine = regexp.MustCompile(`mta delivery evpid=(\S+) from=<([^>]*)> to=<([^>]*)> .*relay="([^"]*)" .*result="(\w+)" stat="(.*)"`)

// parse does not know Message-IDs: the server logs none.
func (*openSMTPD) parse(log string) []Delivery {
	var all []Delivery
	for line := range strings.Lines(log) {
		f := openSMTPDLine.FindStringSubmatch(strings.TrimRight(line, "\n"))
		if f == nil {
			continue
		}
		d := Delivery{QueueID: f[1], From: f[2], To: f[3], Relay: f[4], Text: f[6], Reply: f[6]}
		d.Status = map[string]string{"Ok": Sent, "TempFail": Deferred, "PermFail": Bounced}[f[5]]
		if code := eximCode.FindStringSubmatch(d.Reply); code != nil {
			d.DSN = code[1]
		}
		all = append(all, d)
	}
	return all
}
