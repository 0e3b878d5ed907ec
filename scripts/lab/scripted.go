package lab

import (
	"context"
	_ "embed" // the servers' programs
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// peersRoot is the folder in the cache with the peers that come as libraries: for Python from Debian, for Node.js from
// npm. Each is a server or a client by a small program in the folder peers.
const peersRoot = "peers"

// receiver is what servers have in common that take mail and send none.
type receiver struct{}

func (receiver) pkg() string                       { return peersRoot }
func (receiver) logPath() string                   { return "var/log/mail.log" }
func (receiver) sendmail() string                  { return "/bin/false" }
func (receiver) parse(string) []Delivery           { return nil }
func (receiver) flush(context.Context, *MTA) error { return nil }

// queue is always empty: what such a server takes is delivered before it answers.
func (receiver) queue(context.Context, *MTA) ([]QueueEntry, error) { return nil, nil }

// aiosmtpd is Debian's aiosmtpd.
type aiosmtpd struct {
	receiver
	args []string
}

//go:embed peers/aiosmtpd.py
var aiosmtpdProgram []byte

func (*aiosmtpd) listening() string { return "ready" }

func (a *aiosmtpd) command() []string {
	return append([]string{"/bin/sh", "-c", `exec /usr/bin/python3 /srv/server.py "$@" >/var/log/mail.log 2>&1`, "sh"}, a.args...)
}

func (a *aiosmtpd) configure(_ context.Context, m *MTA) error {
	a.args = []string{
		m.fqdn, "/etc/ssl/certs/ssl-cert-snakeoil.pem", "/etc/ssl/private/ssl-cert-snakeoil.key", "/home/archive/Maildir",
		strings.Join(m.listen, ","), strings.Join(m.bare(), ","),
	}
	return m.install(map[string][]byte{"srv/server.py": aiosmtpdProgram})
}

// haraka is Haraka with a plugin of the lab's.
type haraka struct {
	receiver
	last string // the address at which it listens last
}

//go:embed peers/haraka.js
var harakaPlugin []byte

// harakaConnection has Haraka's own values but for the longest line of a message, which is beyond RFC 5321's.
const harakaConnection = `[haproxy]
hosts[]=
[headers]
add_received=true
clean_auth_results=false
max_lines=1000
max_received=100
[max]
bytes=52428800
mime_parts=1000
line_length=512
data_line_length=1048576
[message]
helo=Haraka is at your service.
close=closing connection. Have a jolly good day.
[uuid]
banner_chars=6
deny_chars=0
`

func (h *haraka) listening() string { return "worker 1 listening on " + h.last }

func (*haraka) command() []string {
	return []string{"/bin/sh", "-c", "exec node /usr/share/sluice-lab/node_modules/Haraka/bin/haraka -c /srv/haraka >/var/log/mail.log 2>&1"}
}

func (h *haraka) configure(_ context.Context, m *MTA) error {
	var listen []string
	for _, a := range append(m.listen, m.bare()...) {
		listen = append(listen, netip.AddrPortFrom(netip.MustParseAddr(a), 25).String())
	}
	h.last = listen[len(listen)-1]
	tls := "key=/etc/ssl/private/ssl-cert-snakeoil.key\ncert=/etc/ssl/certs/ssl-cert-snakeoil.pem\n"
	return m.install(map[string][]byte{
		"srv/haraka/plugins/lab.js":        harakaPlugin,
		"srv/haraka/config/plugins":        []byte("tls\nlab\n"),
		"srv/haraka/config/me":             []byte(m.fqdn + "\n"),
		"srv/haraka/config/smtp.ini":       []byte("listen=" + strings.Join(listen, ",") + "\n"),
		"srv/haraka/config/tls.ini":        []byte(tls),
		"srv/haraka/config/connection.ini": []byte(harakaConnection),
		"srv/haraka/config/bare":           []byte(strings.Join(m.bare(), "\n") + "\n"),
		"srv/haraka/config/log.ini":        []byte("[main]\nlevel=NOTICE\n"),
	})
}

// install writes files into the server's root.
func (m *MTA) install(files map[string][]byte) error {
	for name, data := range files {
		path := filepath.Join(m.root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("make a folder in its root: %w", err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			return fmt.Errorf("write into its root: %w", err)
		}
	}
	return nil
}
