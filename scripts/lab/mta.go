package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// flavour is what differs between the mail servers.
type flavour interface {
	pkg() string // folder in the cache
	configure(ctx context.Context, m *MTA) error
	command() []string // runs the server in the foreground
	listening() string // text in the log once it is ready
	logPath() string   // inside the root
	queue(ctx context.Context, m *MTA) ([]QueueEntry, error)
	flush(ctx context.Context, m *MTA) error
	sendmail() string
	parse(log string) []Delivery
}

// domains are what a server takes mail for: its own and, at an MX, its doors'.
func (m *MTA) domains() []string {
	all := []string{m.domain}
	for _, d := range m.doors() {
		all = append(all, d.Domain)
	}
	return all
}

func (m *MTA) doors() []Door {
	if m.mx == nil {
		return nil
	}
	return m.mx.Doors()
}

// bare are the addresses at which an MX offers no STARTTLS.
func (m *MTA) bare() []string {
	var all []string
	for _, d := range m.doors() {
		if !d.TLS {
			all = append(all, d.Addr.String())
		}
	}
	return all
}

// MTA is a running mail server of Debian's in a root of its own.
type MTA struct {
	lab    *Lab
	host   string
	domain string
	fqdn   string
	listen []string // addresses; empty: all
	mx     *MX      // one of the internet's, which listens at its doors
	root   string
	proc   *Process
	kind   flavour
}

// Mail is a message to hand to a mail server.
type Mail struct {
	From string // "" is the null sender
	To   []string
	Data []byte
	Args []string // further arguments of sendmail, as in -N or -O
}

// QueueEntry is one message in a mail server's queue.
type QueueEntry struct {
	ID         string
	Queue      string // Postfix's queue: maildrop, incoming, active, deferred, hold
	Sender     string
	Size       int
	Recipients []QueuedRecipient
}

// QueuedRecipient is a recipient that is still to be delivered.
type QueuedRecipient struct {
	Address string
	Reason  string // of the delay, where the server tells
}

// Postfix starts Debian's Postfix with its stock configuration on a customer
// or returns the one that runs. settings are main.cf lines ("name = value")
// that count only for the start.
func (l *Lab) Postfix(ctx context.Context, host string, settings ...string) (*MTA, error) {
	return l.mta(ctx, host+"-postfix", &MTA{
		host: host, domain: host + ".example", fqdn: "mail." + host + ".example", kind: &postfix{settings: settings},
	})
}

// Exim starts Debian's Exim with its stock configuration on a customer or
// returns the one that runs.
func (l *Lab) Exim(ctx context.Context, host string) (*MTA, error) {
	return l.mta(ctx, host+"-exim", &MTA{
		host: host, domain: host + ".example", fqdn: "mail." + host + ".example", kind: &exim{},
	})
}

// OpenSMTPD starts Debian's OpenSMTPD with its stock configuration on a
// customer or returns the one that runs.
func (l *Lab) OpenSMTPD(ctx context.Context, host string) (*MTA, error) {
	return l.mta(ctx, host+"-opensmtpd", &MTA{
		host: host, domain: host + ".example", fqdn: "mail." + host + ".example", kind: &openSMTPD{},
	})
}

// MX starts one of the internet's real mail servers (postfix, exim, opensmtpd,
// haraka, aiosmtpd) or returns the one that runs. The other MX hosts run from
// the start. As at the sinks, recipients reject…@ get 550 and defer…@ get 451.
func (l *Lab) MX(ctx context.Context, name string) (*MTA, error) { return l.MXWith(ctx, name) }

// MXWith is MX with settings of Postfix (lines of main.cf), which count only for the start.
func (l *Lab) MXWith(ctx context.Context, name string, settings ...string) (*MTA, error) {
	plan, err := HostMX(name)
	if err != nil {
		return nil, err
	}
	if len(settings) > 0 && plan.Kind != KindPostfix {
		return nil, fmt.Errorf("could not start MX %s with settings: only Postfix takes them", name)
	}
	m := &MTA{host: HostInternet, domain: plan.Domain(), fqdn: plan.Hostname(), mx: &plan}
	for _, a := range plan.Addrs() {
		m.listen = append(m.listen, a.String())
	}
	switch plan.Kind {
	case KindPostfix:
		m.kind = &postfix{settings: settings}
	case KindExim:
		m.kind = &exim{}
	case KindOpenSMTPD:
		m.kind = &openSMTPD{}
	case KindHaraka:
		m.kind = &haraka{}
	case KindAiosmtpd:
		m.kind = &aiosmtpd{}
	default:
		return nil, fmt.Errorf("could not start MX %s: it is no real mail server; see Sink", name)
	}
	return l.mta(ctx, "mx-"+name, m)
}

func (l *Lab) mta(ctx context.Context, key string, m *MTA) (*MTA, error) {
	l.mu.Lock()
	running, ok := l.mtas[key]
	l.mu.Unlock()
	if ok {
		return running, nil
	}
	l.say("starting %s", key)
	m.lab, m.root = l, filepath.Join(l.dir, "mta", key)
	if err := m.start(ctx); err != nil {
		return nil, fmt.Errorf("could not start %s: %w", key, err)
	}
	l.mu.Lock()
	l.mtas[key] = m
	l.mu.Unlock()
	return m, nil
}

func (m *MTA) start(ctx context.Context) error {
	pkg, err := unpacked(ctx, m.lab.cache, m.kind.pkg())
	if err != nil {
		return err
	}
	if err := m.makeRoot(ctx, pkg); err != nil {
		return err
	}
	if err := m.kind.configure(ctx, m); err != nil {
		return err
	}
	m.proc, err = m.lab.Start(m.host, Command{Args: m.kind.command(), Root: m.root})
	if err != nil {
		return err
	}
	return m.waitReady(ctx)
}

// waitReady waits until the server's log says that it listens.
func (m *MTA) waitReady(ctx context.Context) error {
	for {
		data, err := os.ReadFile(m.LogPath())
		if err == nil && bytes.Contains(data, []byte(m.kind.listening())) && m.answers(ctx) {
			return nil
		}
		select {
		case <-m.proc.Done():
			out, _ := os.ReadFile(m.proc.LogPath())
			return fmt.Errorf("it ended at once (%v): %s %s", m.proc.Err(), tail(out), tail(data))
		case <-ctx.Done():
			return fmt.Errorf("it does not get ready: %w: %s", ctx.Err(), tail(data))
		case <-time.After(logPoll):
		}
	}
}

// answers is true for servers that only have their log to ask.
func (m *MTA) answers(ctx context.Context) bool {
	k, ok := m.kind.(interface {
		answers(context.Context, *MTA) bool
	})
	return !ok || k.answers(ctx, m)
}

// run runs a program inside the server's root.
func (m *MTA) run(ctx context.Context, stdin []byte, args ...string) (string, error) {
	return m.lab.must(ctx, m.host, Command{Args: args, Root: m.root, Stdin: bytes.NewReader(stdin)})
}

// Exec runs a program inside the server's root, for instance postconf.
func (m *MTA) Exec(ctx context.Context, args ...string) (Output, error) {
	return m.lab.Run(ctx, m.host, Command{Args: args, Root: m.root})
}

// Send hands a message to the server's sendmail, which takes over the duty.
// Line ends may be CRLF or LF.
func (m *MTA) Send(ctx context.Context, mail Mail) error {
	args := []string{m.kind.sendmail(), "-i", "-f", mail.From}
	if mail.From == "" {
		args[3] = "<>"
	}
	args = append(append(args, mail.Args...), "--")
	args = append(args, mail.To...)
	data := bytes.ReplaceAll(mail.Data, []byte("\r\n"), []byte("\n"))
	_, err := m.run(ctx, data, args...)
	return err
}

// Queue is what the server has still to deliver.
func (m *MTA) Queue(ctx context.Context) ([]QueueEntry, error) { return m.kind.queue(ctx, m) }

// Flush makes the server try everything in its queue now.
func (m *MTA) Flush(ctx context.Context) error { return m.kind.flush(ctx, m) }

// WaitEmpty waits until the queue is empty.
func (m *MTA) WaitEmpty(ctx context.Context) error {
	var q []QueueEntry
	err := poll(ctx, func() (empty bool, err error) {
		q, err = m.Queue(ctx)
		return len(q) == 0, err
	})
	if err != nil && len(q) > 0 {
		return fmt.Errorf("%d messages are still queued on %s: %w: %+v", len(q), m.host, err, q[0])
	}
	return err
}

// Pid of the server's first process.
func (m *MTA) Pid() int { return m.proc.Pid() }

// LogPath is the server's mail log.
func (m *MTA) LogPath() string { return filepath.Join(m.root, m.kind.logPath()) }

// Root is the folder that the server sees as /.
func (m *MTA) Root() string { return m.root }

// Deliveries are all attempts in the server's log, oldest first.
func (m *MTA) Deliveries() ([]Delivery, error) {
	data, err := os.ReadFile(m.LogPath())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("could not read the mail log of %s: %w", m.host, err)
	}
	return m.kind.parse(string(data)), nil
}

// WaitDeliveries returns the attempts as soon as enough is true for them.
func (m *MTA) WaitDeliveries(ctx context.Context, enough func([]Delivery) bool) ([]Delivery, error) {
	var all []Delivery
	err := poll(ctx, func() (done bool, err error) {
		if all, err = m.Deliveries(); err != nil {
			return false, err
		}
		return enough(all), nil
	})
	if err != nil {
		return all, fmt.Errorf("waited for deliveries on %s, %d seen: %w", m.host, len(all), err)
	}
	return all, nil
}

// poll looks until look says that it is done. What is looked at grows with a campaign: each pause is some times as long as
// the look, so that who waits leaves the machine to those he waits for.
func poll(ctx context.Context, look func() (done bool, err error)) error {
	for {
		began := time.Now()
		if done, err := look(); done || err != nil {
			return err
		}
		if err := sleep(ctx, min(max(logPoll, 10*time.Since(began)), 2*time.Second)); err != nil {
			return err
		}
	}
}

// Mailbox is the mail that the server delivered locally, oldest first.
func (m *MTA) Mailbox() ([][]byte, error) {
	files, err := filepath.Glob(filepath.Join(m.root, "home/archive/Maildir/new/*"))
	if err != nil {
		return nil, err
	}
	when := make(map[string]time.Time, len(files))
	for _, f := range files {
		when[f] = modified(f)
	}
	slices.SortStableFunc(files, func(a, b string) int { return when[a].Compare(when[b]) })
	var all [][]byte
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("could not read the mailbox on %s: %w", m.host, err)
		}
		all = append(all, data)
	}
	return all, nil
}

// EmptyMailbox removes what Mailbox has shown.
func (m *MTA) EmptyMailbox() error {
	folder := filepath.Join(m.root, "home/archive/Maildir/new")
	if err := os.RemoveAll(folder); err != nil {
		return fmt.Errorf("could not empty the mailbox on %s: %w", m.host, err)
	}
	return os.Mkdir(folder, 0o777) // whoever the server runs as
}

func modified(path string) time.Time {
	info, err := os.Stat(path)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// WaitMailbox returns the mailbox as soon as it has n messages.
func (m *MTA) WaitMailbox(ctx context.Context, n int) ([][]byte, error) {
	var all [][]byte
	err := poll(ctx, func() (done bool, err error) {
		all, err = m.Mailbox()
		return len(all) >= n, err
	})
	if err != nil {
		return all, fmt.Errorf("waited for mail in %s, %d came: %w", m.domain, len(all), err)
	}
	return all, nil
}

// Stop ends the server; its queue and log stay.
func (m *MTA) Stop(ctx context.Context) error {
	m.lab.mu.Lock()
	for key, x := range m.lab.mtas {
		if x == m {
			delete(m.lab.mtas, key)
		}
	}
	m.lab.mu.Unlock()
	return m.proc.Stop(ctx)
}
