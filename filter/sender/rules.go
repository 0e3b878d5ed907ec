package sender

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/filter/policy"
)

// RulePhases are the phases at which Rules are asked.
var RulePhases = []filter.Phase{filter.Mail, filter.Data, filter.Part}

// wait is how long a check waits for the DNS, all questions together.
const wait = 2 * time.Second

// DNS answers from memory, or asks within the context's time. An error is a *net.DNSError.
type DNS interface {
	LookupMX(ctx context.Context, domain string) ([]*net.MX, error)
	LookupIPAddr(ctx context.Context, host string) ([]net.IPAddr, error)
	LookupTXT(ctx context.Context, name string) ([]string, error)
}

// Rules hold senders to what their users' settings say: domains, mailboxes, valid addresses, the null sender, DMARC (FRM1, FRM2, FRM4,
// FRM5). A user without such settings costs one look at them.
type Rules struct {
	settings policy.Resolver
	dns      DNS

	// Signs tells whether a user's mail of a domain is signed on its way out; may be nil: none is.
	Signs func(user uint32, login, domain string) bool

	// Book, where it is not nil, notes the mailboxes of good mail, and knows those that were found.
	Book *Book
}

// NewRules returns the check by the settings of s, which asks d.
func NewRules(s policy.Resolver, d DNS) *Rules { return &Rules{settings: s, dns: d} }

// Check implements filter.Check in phases mail, data and part.
func (r *Rules) Check(ctx context.Context, p filter.Phase, m *message.Message, hits []filter.Hit) []filter.Hit {
	set := &r.settings.Settings(m.Flow.User.ID).Sender
	if rules := *set; m.Login == "" {
		if rules.Hello = false; rules == (policy.Sender{}) { // that is another check's
			return hits
		}
	}
	if p == filter.Mail {
		return r.mail(ctx, set, m, hits)
	}
	if set.RequireDomain || m.Login != "" {
		hits = requireDomain(set, m, hits)
	}
	if set.Mailbox != policy.AnyMailbox {
		hits = r.requireMailbox(set, m, hits)
	}
	if set.DMARC != policy.DMARCOff {
		hits = r.predict(ctx, set, m, hits)
	}
	return hits
}

func (r *Rules) mail(ctx context.Context, set *policy.Sender, m *message.Message, hits []filter.Hit) []filter.Hit {
	if m.Envelope.From == "" {
		if set.RefuseNull {
			hits = append(hits, reject("NULL-SENDER", "5.7.1", "this sender may not send mail without a sender address", "refuse_null_sender"))
		}
		return hits
	}
	if !set.Valid {
		return hits
	}
	domain := m.Envelope.From.Domain()
	if strings.HasPrefix(domain, "[") {
		return hits // an address takes mail if its host does
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	switch err := r.takesMail(ctx, domain); {
	case err == nil:
	case errors.Is(err, errNullMX):
		hits = append(hits, reject("SENDER-NULLMX", "5.7.27", "the sender's domain says that it takes no mail", err.Error())) // RFC 7505 4.2
	case errors.Is(err, errNoMail):
		hits = append(hits, reject("SENDER-DOMAIN", "5.1.8", "the sender's domain has neither a mail exchanger nor an address", err.Error()))
	case set.DeferUnknown:
		h := reject("SENDER-DNS", "4.4.3", "the sender's domain could not be looked up now, try again later", err.Error())
		h.Action, h.SMTP = filter.Defer, 451
		hits = append(hits, h)
	default:
		hits = append(hits, filter.Hit{Code: "SENDER-DNS", Text: "the sender's domain could not be looked up", Evidence: err.Error()})
	}
	return hits
}

func reject(code, enhanced, text, evidence string) filter.Hit {
	return filter.Hit{Code: code, Class: filter.Policy, Action: filter.Reject, SMTP: 550, Enhanced: enhanced, Text: text, Evidence: evidence}
}

var (
	errNullMX = errors.New("null MX")
	errNoMail = errors.New("no MX, A or AAAA record")
)

// takesMail tells whether a domain has a mail exchanger, or itself an address (RFC 5321 5.1).
func (r *Rules) takesMail(ctx context.Context, domain string) error {
	a, err := policy.ALabel(domain)
	if err != nil {
		return errNoMail
	}
	mxs, err := r.dns.LookupMX(ctx, a)
	if err == nil && len(mxs) > 0 {
		if len(mxs) == 1 && strings.Trim(mxs[0].Host, ".") == "" {
			return errNullMX
		}
		return nil
	}
	if err != nil && !notFound(err) {
		return err
	}
	as, err := r.dns.LookupIPAddr(ctx, a)
	switch {
	case err == nil && len(as) > 0:
		return nil
	case err != nil && !notFound(err):
		return err
	}
	return errNoMail
}

func notFound(err error) bool {
	var d *net.DNSError
	return errors.As(err, &d) && d.IsNotFound
}

// requireDomain refuses a message whose envelope sender or From is of a domain that is not the user's, or his login's (FRM1).
func requireDomain(set *policy.Sender, m *message.Message, hits []filter.Hit) []filter.Hit {
	if m.Envelope.From == "" || m.Forwarded {
		return hits
	}
	own := func(domain string) bool {
		return set.Domains.Has(domain) || m.Login != "" && sameDomain(domain, m.Login[strings.LastIndexByte(m.Login, '@')+1:])
	}
	if d := m.Envelope.From.Domain(); !own(d) {
		return append(hits, reject("FROM-DOMAIN", "5.7.1", "this sender may not send as "+quoted1(d), "envelope sender "+quoted1(string(m.Envelope.From))))
	}
	from, list := fromHeader(m.Data)
	if list {
		return hits // it has the addresses of those who write to it
	}
	if len(from) == 0 {
		return append(hits, reject("FROM-DOMAIN", "5.7.1", "the message has no From field that could be read", "header From"))
	}
	for _, a := range from {
		if d := a.Domain(); !own(d) {
			return append(hits, reject("FROM-DOMAIN", "5.7.1", "this sender may not write as "+quoted1(d)+" in From", "header From "+quoted1(d)))
		}
	}
	return hits
}

func sameDomain(a, b string) bool {
	x, err := policy.ALabel(a)
	y, err2 := policy.ALabel(b)
	return err == nil && err2 == nil && x == y
}

// quoted1 makes what a stranger wrote fit for a reply.
func quoted1(s string) string { return fmt.Sprintf("%.100q", s) }

// fromHeader returns the addresses of all authors that From fields name, and whether the message is of a mailing list.
func fromHeader(data []byte) (from []message.Address, list bool) {
	for name, value := range message.Header(data) {
		switch {
		case bytes.EqualFold(name, []byte("List-Id")), bytes.EqualFold(name, []byte("List-Post")):
			list = true
		case bytes.EqualFold(name, []byte("From")):
			if a, ok := plainAuthor(value); ok {
				from = append(from, message.Address(a))
			} else {
				from = append(from, authors(string(value))...)
			}
		}
	}
	return from, list
}

// plainAuthor is the address of a From field that has a single one in the usual form, Name <address> or the address alone.
// There are no blanks around value.
func plainAuthor(value []byte) (address []byte, ok bool) {
	if bytes.Count(value, []byte("@")) != 1 || bytes.ContainsAny(value, "\"(),:;\\\r\n") {
		return nil, false
	}
	open := bytes.IndexByte(value, '<')
	if open < 0 {
		return value, !bytes.ContainsAny(value, " \t>")
	}
	if value[len(value)-1] != '>' {
		return nil, false
	}
	address = value[open+1 : len(value)-1]
	return address, !bytes.ContainsAny(address, "<> \t") && bytes.IndexByte(address, '@') > 0
}

// marks end an address where a field is not well formed.
const marks = "<>,;()\" \t"

// authors reads the addresses of a From field; where it is not well formed, whatever looks like one in it.
func authors(value string) (from []message.Address) {
	if all, err := message.Mailboxes(value); err == nil {
		return all
	}
	for rest := strings.ReplaceAll(value, "\r\n", ""); ; { // folds; there is no other line end
		at := strings.LastIndexByte(rest, '@')
		if at < 0 {
			return from
		}
		d := rest[at+1:]
		if end := strings.IndexAny(d, marks); end >= 0 {
			d = d[:end]
		}
		rest = rest[:at]
		from = append(from, message.Address(rest[strings.LastIndexAny(rest, marks)+1:]+"@"+d))
	}
}
