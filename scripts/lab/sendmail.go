package lab

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// sendmailRoot is a web host's: Debian's PHP, and Debian's Sendmail with Debian's settings for a host that sends by
// itself. Nothing runs in it: each message is a start of the program, which delivers before it ends and says what it heard.
type sendmailRoot struct{ receiver }

func (sendmailRoot) pkg() string       { return "webhost" }
func (sendmailRoot) listening() string { return "" }
func (sendmailRoot) command() []string { return nil }

const sendmailMC = "divert(-1)dnl\n" +
	"define(`_USE_ETC_MAIL_')dnl\n" +
	"include(`/usr/share/sendmail/cf/m4/cf.m4')dnl\n" +
	"OSTYPE(`debian')dnl\n" +
	"DOMAIN(`debian-mta')dnl\n" +
	"undefine(`confHOST_STATUS_DIRECTORY')dnl\n" + // what one message hears must not keep another
	"define(`confQUEUE_LA', `10000')dnl\n" + // a busy machine sends at once, too
	"define(`confREFUSE_LA', `10000')dnl\n" +
	"FEATURE(`no_default_msa')dnl\n" +
	"DAEMON_OPTIONS(`Family=inet, Name=MTA-v4, Port=smtp, Addr=127.0.0.1')dnl\n" +
	"MAILER(`local')dnl\n" +
	"MAILER(`smtp')dnl\n"

func (sendmailRoot) configure(ctx context.Context, m *MTA) error {
	if err := m.install(map[string][]byte{
		"etc/mail/sendmail.mc": []byte(sendmailMC), "etc/mail/local-host-names": []byte(m.domain + "\n"), "etc/mail/trusted-users": []byte("root\n"),
	}); err != nil {
		return err
	}
	_, err := m.run(ctx, nil, "/bin/sh", "-c", `set -e
mkdir -p /var/spool/mqueue /var/lib/sendmail /run/sendmail/mta
chmod 700 /var/spool/mqueue
cd /etc/mail
m4 sendmail.mc > sendmail.cf 2>/dev/null
/usr/libexec/sendmail/sendmail -Am -bi >/dev/null
`)
	return err
}

// Sendmail makes a root with Debian's Sendmail on a customer. TLS of a job says nothing to it: it takes what is offered.
func (l *Lab) Sendmail(ctx context.Context, host string) (Agent, error) {
	t, err := l.toolbox(ctx, host, sendmailRoot{})
	if err != nil {
		return nil, err
	}
	return each(t.sendmail), nil
}

// sendmailLine is one of the program's commands or the last line of a reply.
var sendmailLine = regexp.MustCompile(`(?m)^(?:>>> (?:RCPT To:<([^>]*)>.*|(.*))|(\d{3}) .*)$`)

func (t *Toolbox) sendmail(ctx context.Context, j Job) (Codes, error) {
	args := append([]string{"/usr/libexec/sendmail/sendmail", "-Am", "-v", "-odi", "-OErrorMode=p", "-i", "-f", j.From, "--"}, j.To...)
	out, err := t.Run(ctx, bytes.ReplaceAll(j.Data, []byte("\r\n"), []byte("\n")), args...)
	if err != nil {
		return nil, err
	}
	codes, last := Codes{}, 0
	type command struct{ rcpt, text string }
	var waiting []command // commands go out several at once, replies come in their order
	for _, m := range sendmailLine.FindAllStringSubmatch(out.Stdout, -1) {
		if m[3] == "" {
			waiting = append(waiting, command{m[1], m[2]})
			continue
		}
		if len(waiting) == 0 {
			continue // the greeting
		}
		code, _ := strconv.Atoi(m[3]) // three digits
		switch c := waiting[0]; {
		case c.rcpt != "":
			codes[c.rcpt] = code
		case c.text == ".":
			last = code
		case strings.HasPrefix(c.text, "MAIL") && code >= 400:
			for _, to := range j.To {
				codes[to] = code
			}
		}
		waiting = waiting[1:]
	}
	for to, c := range codes {
		if c == 250 {
			codes[to] = last
		}
	}
	if len(codes) != len(j.To) {
		return codes, fmt.Errorf("sendmail to %v ended with %d: %s%s", j.To, out.Code, out.Stdout, out.Stderr)
	}
	return codes, nil
}

// PHP runs a program text in a web host's root; its function mail starts Sendmail. Settings are those of php.ini.
func (l *Lab) PHP(ctx context.Context, host, text string, settings ...string) error {
	t, err := l.toolbox(ctx, host, sendmailRoot{})
	if err != nil {
		return err
	}
	args := []string{"/usr/bin/php8.2", "-n", "-d", "sendmail_path=/usr/libexec/sendmail/sendmail -Am -odi -t -i"}
	for _, s := range settings {
		args = append(args, "-d", s)
	}
	out, err := t.Run(ctx, nil, append(args, "-r", text)...)
	if err == nil && out.Code != 0 {
		err = fmt.Errorf("php ended with %d: %s%s", out.Code, out.Stdout, out.Stderr)
	}
	return err
}
