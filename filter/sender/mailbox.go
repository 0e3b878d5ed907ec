package sender

import (
	"bytes"
	"strings"
	"time"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/filter/policy"
)

// requireMailbox refuses a message whose envelope sender or From is no mailbox of the user's: neither listed, nor the one that
// logged in, nor, by FoundMailbox, found in his mail (FRM1).
func (r *Rules) requireMailbox(set *policy.Sender, m *message.Message, hits []filter.Hit) []filter.Hit {
	if m.Envelope.From == "" || m.Forwarded {
		return hits
	}
	if set.Mailbox == policy.FoundMailbox && set.LearnUntil != 0 && !set.LearnUntil.Before(m.Received) {
		return hits
	}
	if !r.owns(set, m, string(m.Envelope.From)) {
		return append(hits, reject("FROM-MAILBOX", "5.7.1", "this sender may not send as "+quoted1(string(m.Envelope.From)), "envelope sender"))
	}
	from, list := fromHeader(m.Data)
	if list {
		return hits
	}
	if len(from) == 0 {
		return append(hits, reject("FROM-MAILBOX", "5.7.1", "the message has no From field that could be read", "header From"))
	}
	for _, a := range from {
		if !r.owns(set, m, string(a)) {
			return append(hits, reject("FROM-MAILBOX", "5.7.1", "this sender may not write as "+quoted1(string(a))+" in From", "header From"))
		}
	}
	return hits
}

func (r *Rules) owns(set *policy.Sender, m *message.Message, address string) bool {
	var room, login [mailboxRoom]byte
	box, ok := policy.AppendMailbox(room[:0], address)
	if !ok {
		return false
	}
	if l, ok := policy.AppendMailbox(login[:0], m.Login); ok && bytes.Equal(l, box) {
		return true
	}
	return set.Mailboxes.Has(box) || set.Mailbox == policy.FoundMailbox && r.Book != nil && r.Book.Found(m.Flow.User.ID, box, m.Received)
}

// mailboxRoom is enough for most mailboxes; for longer ones memory is allocated.
const mailboxRoom = 96

// Settle implements filter.Settler: senders of mail that was judged good and taken are noted, of bad mail forgotten.
func (r *Rules) Settle(m *message.Message, o filter.Outcome) {
	if r.Book == nil || m.Flow.User.ID == 0 || m.Envelope.From == "" || o.Verdict == nil || len(m.Data) == 0 {
		return
	}
	bad := o.Verdict.Class.Bad()
	if !bad && (o.Accepted == 0 || !r.good(m.Flow.User.ID, o.Verdict)) || m.Forwarded {
		return
	}
	var room, second [mailboxRoom]byte
	envelope, ok := policy.AppendMailbox(room[:0], string(m.Envelope.From))
	if ok {
		r.Book.settle(m.Flow.User.ID, envelope, m.Received, bad)
	}
	if m.Fields.Listed {
		return
	}
	if m.Fields.Froms == 1 { // as nearly always
		if a, ok := plainAuthor(m.Fields.From); ok {
			if string(a) == string(m.Envelope.From) {
				return
			}
			if box, ok := policy.AppendMailbox(second[:0], a); ok && !bytes.Equal(box, envelope) {
				r.Book.settle(m.Flow.User.ID, box, m.Received, bad)
			}
			return
		}
	}
	authors, list := fromHeader(m.Data)
	if list {
		return
	}
	for _, a := range authors[:min(len(authors), mostAuthors)] {
		if box, ok := policy.AppendMailbox(second[:0], string(a)); ok && !bytes.Equal(box, envelope) {
			r.Book.settle(m.Flow.User.ID, box, m.Received, bad)
		}
	}
}

// good tells whether nothing spoke against a mail that went on: it was neither withheld nor unsure.
func (r *Rules) good(user uint32, v *filter.Verdict) bool {
	if v.Action != filter.None {
		return false
	}
	d := v.Doubt()
	return d == nil || d.Score < r.settings.Settings(user).Content.Unsure
}

// mostAuthors bounds the authors of one message that are noted.
const mostAuthors = 4

// Mailbox is one that was met in a user's good mail.
type Mailbox struct {
	Name        string // as policy.AppendMailbox writes it
	First, Last time.Time
	Days        int // on which it was used, at least 20 hours apart
	Messages    int
	Found       bool // on days enough
}

func byName(a, b Mailbox) int { return strings.Compare(a.Name, b.Name) }
