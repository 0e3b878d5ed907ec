package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/config"
	"sluice/cmd/internal/notify"
	"sluice/cmd/internal/public"
	"sluice/cmd/internal/store"
	"sluice/docs/codes"
	"sluice/filter/lock"
	"sluice/proxy/durable"
	"sluice/proxy/smtp"
	"sluice/proxy/spool"
)

// notices tell people by mail, and other programs by webhook, what happened to senders (LCK5). Nothing waits for them.
type notices struct {
	d     *daemon
	hooks *notify.Hooks
	key   []byte // of links
	now   atomic.Pointer[noticeSettings]
}

// noticeSettings are what a configuration says of notices.
type noticeSettings struct {
	texts *notify.Texts
	links *public.Links // nil: there are no pages
	ends  []notify.Endpoint
}

// leastSecret is the length of a webhook's secret in bytes, at least.
const leastSecret = 16

// noticesOf reads everything that a configuration names; nothing is in force yet.
func noticesOf(cfg *config.Config, key []byte) (*noticeSettings, error) {
	s := &noticeSettings{}
	var err error
	if s.texts, err = notify.LoadTexts(cfg.Notice.Templates); err != nil {
		return nil, err
	}
	known := s.texts.Languages(notify.Locked)
	for _, u := range append([]config.User{{Name: "", Language: cfg.Notice.Language}}, cfg.User...) {
		if !slices.Contains(known, u.Language) {
			return nil, fmt.Errorf("notices cannot be written in %q; use one of %s, or add locked.%s.txt in notice.templates", u.Language, strings.Join(known, ", "), u.Language)
		}
	}
	if cfg.Public.URL != "" {
		s.links = public.NewLinks(cfg.Public.URL, key)
	}
	for _, w := range cfg.Webhook {
		text, err := os.ReadFile(w.SecretFile)
		if err != nil {
			return nil, fmt.Errorf("could not read the secret of webhook %s: %w; name a file that this user can read in secret_file", w.Name, err)
		}
		secret := strings.TrimSpace(string(text))
		if len(secret) < leastSecret {
			return nil, fmt.Errorf("the secret of webhook %s has fewer than %d bytes; make a longer one, like by `openssl rand -base64 32`", w.Name, leastSecret)
		}
		s.ends = append(s.ends, notify.Endpoint{Name: w.Name, URL: w.URL, Secret: []byte(secret), Kinds: w.Events})
	}
	return s, nil
}

func openNotices(d *daemon, cfg *config.Config) (*notices, error) {
	key, err := linkKey(cfg.Store.Dir)
	if err != nil {
		return nil, err
	}
	n := &notices{d: d, key: key, hooks: notify.NewHooks(notify.HookOptions{
		Journal: calls{d.store}, Agent: "sluiced/" + version, Alarm: func(err error) { d.log.Error("a webhook needs attention", "err", err) },
	})}
	s, err := noticesOf(cfg, key)
	if err != nil {
		return nil, err
	}
	n.configure(s)
	return n, nil
}

// linkKey reads the key of links, and makes it at the first start.
func linkKey(dir string) ([]byte, error) {
	path := filepath.Join(dir, "links.key")
	key, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key = make([]byte, public.KeySize)
		_, _ = rand.Read(key) // never fails
		err = durable.WriteFile(path, key, 0o600)
	}
	if err == nil && len(key) != public.KeySize {
		err = fmt.Errorf("%s has %d bytes, not %d; remove it, and links that were sent end", path, len(key), public.KeySize)
	}
	if err != nil {
		return nil, fmt.Errorf("could not keep the key of links: %w", err)
	}
	return key, nil
}

func (n *notices) configure(s *noticeSettings) {
	n.now.Store(s)
	n.hooks.Configure(s.ends)
}

// page is the link of a code, and of a message; "" where there are no pages.
func (n *notices) page(code, message string) string {
	if l := n.now.Load().links; l != nil {
		return l.Page(code, message)
	}
	return ""
}

// keep tells webhooks until ctx ends or another process does, and first sends what a crash kept from being sent.
func (n *notices) keep(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-n.d.handedOver:
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := n.catchUp(); err != nil {
		n.d.log.Error("could not send notices of locks that a crash kept from being sent", "err", err)
	}
	n.hooks.Run(ctx)
}

// catchUp sends the notices of locks about which this process's forerunner could tell nobody.
func (n *notices) catchUp() error {
	left, err := n.d.store.Untold(n.d.started.Add(-24 * time.Hour))
	if err != nil {
		return err
	}
	for _, ticket := range left {
		l, ok, err := n.d.store.LockOf(ticket)
		if err == nil && ok && l.Ended.IsZero() {
			err = n.locked(&l)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// heard has people and programs told of what happened to a lock. It is called in the way of mail, and waits for nothing.
func (n *notices) heard(e lock.Event) {
	switch e.Kind {
	case lock.Locked, lock.Unlocked, lock.Alarm, lock.Brake:
	default:
		return
	}
	n.d.audits.Go(func() {
		if err := n.tell(&e); err != nil {
			n.d.log.Error("nobody was told what happened to a lock", "what", e.Kind.String(), "user", e.Lock.User.Name, "ticket", e.Lock.Ticket, "err", err)
		}
	})
}

func (n *notices) tell(e *lock.Event) error {
	switch e.Kind {
	case lock.Locked:
		if first, err := n.d.store.NoteNotice(e.Lock.Ticket, e.At); err != nil || !first {
			return err // one of a ticket, however often the lock is changed
		}
		return n.locked(&e.Lock)
	case lock.Unlocked:
		return n.hook("unlock", "unlock_"+e.Lock.Ticket, &e.Lock, e.At)
	case lock.Brake:
		return n.hook("brake", "brake_"+rand.Text(), &e.Lock, e.At)
	}
	return n.hook("alarm", "alarm_"+rand.Text(), &e.Lock, e.At)
}

// locked tells of a new lock.
func (n *notices) locked(l *lock.Lock) error {
	err := errors.Join(n.hook("lock", "lock_"+l.Ticket, l, l.Since), n.d.abused(l), n.mailLock(l))
	if err != nil {
		return err
	}
	return n.d.store.NoticeTold(l.Ticket)
}

// event is what a webhook hears.
type event struct {
	Type    string      `json:"type"`
	ID      string      `json:"id"`
	Time    time.Time   `json:"time"`
	Gateway string      `json:"gateway"`
	Lock    *api.Lock   `json:"lock,omitempty"`
	Appeal  *api.Appeal `json:"appeal,omitempty"`
	Key     string      `json:"key,omitempty"` // that cannot be read, as its record in the DNS is named
	Plugin  string      `json:"plugin,omitempty"`
	Address string      `json:"address,omitempty"` // of its instance
	State   string      `json:"state,omitempty"`   // of that, as in the status: dead or alive
	Then    string      `json:"then,omitempty"`    // what becomes of mail meanwhile
	Error   string      `json:"error,omitempty"`   // why
}

// keyAlarm tells programs of a key that cannot be read; its mail goes unsigned. It waits for nothing.
func (n *notices) keyAlarm(key string, why error) {
	n.d.audits.Go(func() {
		if err := n.post(event{Type: "alarm", ID: "alarm_" + rand.Text(), Time: time.Now(), Key: key, Error: why.Error()}); err != nil {
			n.d.log.Error("nobody was told that a key cannot be read", "key", key, "err", err)
		}
	})
}

func (n *notices) hook(kind, id string, l *lock.Lock, at time.Time) error {
	return n.post(event{Type: kind, ID: id, Time: at, Lock: shownLock(l)})
}

func (n *notices) post(e event) error {
	e.Gateway = n.d.cfg.Load().Gateway.Name
	body, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return n.hooks.Tell(e.Type, e.ID, body)
}

// shown tells how the webhooks do.
func (n *notices) shown() ([]api.Webhook, error) {
	states, err := n.hooks.States()
	var all []api.Webhook
	for _, s := range states {
		w := api.Webhook{Name: s.Name, URL: s.URL, Waiting: s.Waiting, Heard: s.Heard, Dead: s.Dead, Failures: s.Failures, Error: s.Error}
		w.Since = moment(s.Since)
		all = append(all, w)
	}
	return all, err
}

// whom finds who is told of a user: his contact, else that of his account, else the desk.
func (n *notices) whom(user uint32) (to, language string, desk bool) {
	cfg := n.d.cfg.Load()
	contact := n.d.policy.Contact(user)
	if m := n.d.roster.Load().user(user); m != nil && config.Mailbox(m.Contact) {
		contact = m.Contact
	}
	if contact != "" && cfg.Notice.Contacts {
		return contact, n.d.policy.Settings(user).Language, false
	}
	return cfg.Notice.Desk, cfg.Notice.Language, true
}

// pageOf is the code of a lock's page: its own, or that of all locks where its own is never told to a client.
func pageOf(code string) string {
	if _, err := fs.Stat(codes.Pages, code+".md"); err != nil {
		return "LOCKED"
	}
	return code
}

// mostExamples bounds the messages that a notice tells of.
const mostExamples = 5

// mailLock writes to who answers for a locked sender.
func (n *notices) mailLock(l *lock.Lock) error {
	to, language, desk := n.whom(l.User.ID)
	if to == "" {
		return nil
	}
	cfg, s := n.d.cfg.Load(), n.now.Load()
	v := &notify.Vars{User: l.User.Name, Identity: l.Identity, Ticket: l.Ticket, Code: l.Code, Reason: l.Reason, Automatic: l.Automatic, Since: l.Since, Until: l.Until, Page: n.page(pageOf(l.Code), "")}
	if cfg.Gateway.HelpURL != "" {
		v.Page = cfg.Gateway.HelpURL + pageOf(l.Code)
	}
	for i := range l.Evidence[:min(len(l.Evidence), mostExamples)] {
		e := &l.Evidence[i]
		v.Examples = append(v.Examples, notify.Example{Time: e.At, Message: e.Message, From: e.From, Code: e.Code})
	}
	v.More = len(l.Evidence) - len(v.Examples)
	if _, err := n.d.byLink(l); err == nil && s.links != nil && !desk {
		v.UnlockUntil = time.Now().Add(cfg.Notice.LinkTime.D())
		v.Unlock = s.links.Unlock(l.Ticket, v.UnlockUntil)
	}
	return n.mail(notify.Locked, language, to, "lock-"+strings.ToLower(l.Ticket), v)
}

// mail writes one notice and puts it into the queue.
func (n *notices) mail(kind, language, to, id string, v *notify.Vars) error {
	cfg := n.d.cfg.Load()
	v.Gateway, v.Brand, v.Contact, v.To = cfg.Gateway.Name, cfg.Gateway.Brand, cfg.Gateway.Contact, to
	subject, text, err := n.now.Load().texts.Write(kind, language, v)
	if err != nil {
		return fmt.Errorf("could not write a notice to %s: %w", to, err)
	}
	m := &notify.Mail{To: to, ID: id, Subject: subject, Text: text}
	if strings.Contains(cfg.Gateway.Contact, "@") {
		m.ReplyTo = cfg.Gateway.Contact
	}
	return n.d.sendNotice(m)
}

// sendNotice puts mail of the gateway's own into the queue, with the null sender (RFC 3834 4).
func (d *daemon) sendNotice(m *notify.Mail) error {
	cfg := d.cfg.Load()
	m.Gateway, m.From, m.Date = cfg.Gateway.Name, cfg.Notice.From, time.Now()
	if m.From == "" {
		m.From = "postmaster@" + m.Gateway
	}
	body, err := smtp.BodyFromBytes(m.Bytes())
	if err == nil {
		defer body.Release()
		_, err = d.mail.commit(&spool.Envelope{Message: m.ID, Received: m.Date, Class: spool.ClassNotice, Rcpts: []spool.Rcpt{{Address: m.To}}}, nil, body)
	}
	if err != nil {
		return fmt.Errorf("could not send a notice to %s: %w", m.To, err)
	}
	return nil
}

// calls keeps what webhooks are told in the store.
type calls struct{ s *store.Store }

func (c calls) AddCalls(cs ...notify.Call) error {
	all := make([]store.Call, len(cs))
	for i := range cs {
		all[i] = store.Call(cs[i])
	}
	return c.s.AddCalls(all...)
}

func (c calls) DueCalls(hook string, now time.Time, most int) ([]notify.Call, error) {
	due, err := c.s.DueCalls(hook, now, most)
	all := make([]notify.Call, len(due))
	for i := range due {
		all[i] = notify.Call(due[i])
	}
	return all, err
}

func (c calls) CountCalls() (map[string]int, error) { return c.s.CountCalls() }
func (c calls) CallTried(one notify.Call) error     { return c.s.CallTried(store.Call(one)) }
func (c calls) DropCall(hook, id string) error      { return c.s.DropCall(hook, id) }
