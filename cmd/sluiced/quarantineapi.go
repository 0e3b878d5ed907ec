package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/store"
	"sluice/filter/campaign"
	"sluice/filter/content"
	"sluice/filter/content/school"
	"sluice/filter/content/view"
	"sluice/proxy/quarantine"
	"sluice/proxy/smtp"
)

// heldQuery is a filter of the API.
func heldQuery(f *api.HeldFilter, state string, limit int) (quarantine.Query, error) {
	q := quarantine.Query{ID: f.ID, User: f.User, Sender: f.Sender, Rcpt: f.Recipient, Code: f.Code, Most: limit}
	if f.Campaign != "" {
		group, err := campaign.ParseID(f.Campaign)
		if err != nil {
			return q, &api.Problem{Status: http.StatusBadRequest, Code: "invalid", What: err.Error(), Remedy: "`sluice campaign list` shows them"}
		}
		q.Group = group
	}
	for s := quarantine.Held; s <= quarantine.Released; s++ {
		if s.String() == state {
			q.State = &s
		}
	}
	return q, nil
}

// HeldMail lists held messages.
func (b backend) HeldMail(_ context.Context, q api.HeldQuery) ([]api.HeldMail, error) {
	hq, err := heldQuery(&q.HeldFilter, q.State, 0)
	if err != nil {
		return nil, err
	}
	all, err := b.d.held.List(hq)
	if err != nil {
		return nil, err
	}
	out := []api.HeldMail{}
	for i := range all {
		if q.State == "" && all[i].State == quarantine.Released {
			continue
		}
		if len(out) == q.Limit {
			break
		}
		out = append(out, b.held(&all[i]))
	}
	return out, nil
}

func (b backend) held(e *quarantine.Entry) api.HeldMail {
	m := api.HeldMail{ID: e.ID, Time: e.At, Message: e.Message, User: e.UserName, Login: e.Login, Client: e.Client, Sender: e.From, Recipients: e.To, Size: e.Size,
		Check: e.Check, Code: e.Code, Class: e.Class, Evidence: e.Evidence, Tries: e.Tries, Last: e.Last, Until: e.At.Add(b.d.cfg.Load().Quarantine.Retention.D()),
		State: e.State.String(), By: e.By, Why: e.Why}
	if e.Group != 0 {
		m.Campaign = campaign.ID(e.Group)
	}
	m.Done = moment(e.Done)
	return m
}

// HeldMessage shows one, masked.
func (b backend) HeldMessage(_ context.Context, id string) (*api.HeldDetail, error) {
	e, err := b.d.held.Find(id)
	if err != nil {
		return nil, noHeld(id, err)
	}
	out := &api.HeldDetail{HeldMail: b.held(&e)}
	out.Sender = masked(out.Sender)
	for i, to := range e.To {
		e.To[i] = masked(to)
	}
	c, err := b.d.held.Read(id)
	if err != nil {
		out.Error = err.Error()
		return out, nil
	}
	var r view.Reader
	v := r.Read(c.Text)
	out.From, out.Subject = masked(string(v.Field("from"))), masked(string(v.Subject))
	out.Text = masked(string(v.Text[:min(len(v.Text), mostShown)]))
	for i := range v.Links {
		if h := v.Links[i].Host(); h != "" && len(out.Hosts) < 20 && !slices.Contains(out.Hosts, h) {
			out.Hosts = append(out.Hosts, h)
		}
	}
	for i := range v.Files {
		out.Files = append(out.Files, v.Files[i].Name)
	}
	return out, nil
}

// mostShown bounds the text that is shown of a held message.
const mostShown = 2000

// HeldText writes a message as it is.
func (b backend) HeldText(_ context.Context, who, id string, w io.Writer) error {
	c, err := b.d.held.Read(id)
	if err != nil {
		return noHeld(id, err)
	}
	if err := b.auditHeld(who, "quarantine read", id, c.Envelope.UserName+": the whole message"); err != nil {
		return err
	}
	_, err = w.Write(c.Text)
	return err
}

func noHeld(id string, err error) error {
	p := &api.Problem{Status: http.StatusConflict, Code: "refused", What: err.Error()}
	if what, remedy, ok := strings.Cut(err.Error(), "; "); ok {
		p.What, p.Remedy = what, remedy
	}
	switch {
	case errors.Is(err, quarantine.ErrUnknown):
		return &api.Problem{Status: http.StatusNotFound, Code: "no-such-message", What: fmt.Sprintf("no message %q is held, or no more", id), Remedy: "`sluice quarantine list` shows what is"}
	case errors.Is(err, quarantine.ErrState), errors.Is(err, quarantine.ErrDamaged), errors.Is(err, quarantine.ErrNoKey):
		return p
	}
	return err
}

func (b backend) auditHeld(who, what, id, detail string) error {
	b.d.log.Info(what, "id", id, "detail", detail, "by", who)
	return b.d.store.Audit(store.Act{At: time.Now(), Who: who, What: what, Subject: id, Detail: detail})
}

// ChangeHeld releases or deletes.
func (b backend) ChangeHeld(_ context.Context, who string, c api.HeldChange) (*api.HeldChanged, error) {
	q, err := heldQuery(&c.Filter, "", 0)
	if err != nil {
		return nil, err
	}
	all, err := b.d.held.List(q)
	if err != nil {
		return nil, err
	}
	if c.Filter.ID != "" && len(all) == 0 {
		return nil, noHeld(c.Filter.ID, quarantine.ErrUnknown)
	}
	out := &api.HeldChanged{Do: c.Do, IDs: []string{}}
	for i := range all {
		e := &all[i]
		if e.State == quarantine.Released && c.Filter.ID == "" {
			continue
		}
		if err := b.changeHeld(who, e, &c, out); err != nil {
			if c.Filter.ID != "" {
				return nil, noHeld(e.ID, err)
			}
			out.Refused = append(out.Refused, e.ID+": "+err.Error())
			continue
		}
		out.IDs = append(out.IDs, e.ID)
	}
	return out, nil
}

// changeHeld releases or deletes one message, and teaches the content filter where that is asked.
func (b backend) changeHeld(who string, e *quarantine.Entry, c *api.HeldChange, out *api.HeldChanged) error {
	var text []byte
	if c.Train {
		whole, err := b.d.held.Read(e.ID)
		if err != nil {
			return err
		}
		text = whole.Text
	}
	if c.Do == "release" {
		if _, err := b.d.held.Release(e.ID, who, c.Reason, c.Again, b.d.sendHeld); err != nil {
			return err
		}
	} else if _, err := b.d.held.Delete(e.ID); err != nil {
		return err
	}
	detail := fmt.Sprintf("of %s, from <%s> to %v; %s", e.UserName, e.From, e.To, c.Reason)
	if c.Train {
		if _, err := b.d.school.Train(content.CRLF(text), c.Do == "delete", who, true); err == nil {
			out.Learnt++
			detail += "; learnt as " + className(c.Do == "delete")
		} else if !errors.Is(err, school.ErrKnown) {
			detail += "; not learnt: " + err.Error()
		}
	}
	return b.auditHeld(who, "quarantine "+c.Do, e.ID, detail)
}

// sendHeld puts a released message into the queue, with its own envelope.
func (d *daemon) sendHeld(c *quarantine.Content) error {
	body := smtp.NewBody(&smtp.DataOptions{MaxMemory: len(c.Text) + len(c.Text)/8 + 64<<10, Binary: c.Envelope.Body == smtp.BodyBinaryMIME})
	defer body.Release()
	body.Append(c.Text) // its error comes again from Finish
	if err := body.Finish(); err != nil {
		return err
	}
	_, err := d.mail.commit(&c.Envelope, c.Trace, body)
	return err
}

// RotateHeldKeys makes a new key.
func (b backend) RotateHeldKeys(_ context.Context, who string) (*api.HeldRotation, error) {
	n, err := b.d.held.Rotate()
	if err != nil {
		return nil, err
	}
	if _, err := b.d.samples.box.Rotate(); err != nil {
		return nil, err
	}
	return &api.HeldRotation{Messages: n}, b.auditHeld(who, "quarantine key made", "quarantine", fmt.Sprintf("%d messages", n))
}

// masked hides what tells persons apart: local parts of addresses but for their first letter, and long figures.
func masked(s string) string {
	b := []byte(s)
	for i := range b {
		if b[i] != '@' {
			continue
		}
		for k := i - 1; k > 0 && inLocal(b[k]) && inLocal(b[k-1]); k-- {
			b[k] = '*'
		}
	}
	for i := 0; i < len(b); {
		n := 0
		for i+n < len(b) && (b[i+n] >= '0' && b[i+n] <= '9') {
			n++
		}
		if n >= 4 {
			for k := range n {
				b[i+k] = '#'
			}
		}
		i += max(n, 1)
	}
	return strings.ToValidUTF8(string(b), "")
}

func inLocal(c byte) bool {
	return c > ' ' && c != '<' && c != '>' && c != '"' && c != '(' && c != ')' && c != ',' && c != ';' && c != ':' && c != '@'
}
