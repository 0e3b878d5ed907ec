package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	mail "sluice/filter/message"
	"sluice/filter/policy"
	"sluice/filter/sender"
	"sluice/filter/sign"
	"sluice/proxy"
	"sluice/proxy/smtp"
)

// dkimSigner signs users' mail with the keys that there are.
type dkimSigner struct {
	keys     *dkimKeys
	provider func() string // the domain that signs what a user's own cannot; "": none does
	rules    *sender.Rules
}

func (d *daemon) signer() dkimSigner {
	return dkimSigner{d.dkim, d.provider, sender.NewRules(d.policy, d.dns)}
}

// As implements proxy.Signer.
func (s dkimSigner) As(ctx context.Context, u *policy.Settings, login string, body *smtp.Body) (as sign.As, author bool, why string) {
	if !body.Canonical() {
		return as, false, "it is binary"
	}
	header, err := headerOf(body)
	if err != nil {
		return as, false, err.Error()
	}
	domain, err := sender.AuthorDomain(header)
	if err != nil {
		return as, false, err.Error()
	}
	if u.Signing.DKIM == policy.DKIMUnsigned && !body.Spilled() && hasSignature(header) && s.rules.Signature(ctx, body.Bytes()) == sender.Signed {
		return as, false, ""
	}
	if !sender.MaySign(&u.Sender, login, domain) {
		why = domain + " is none of its user's domains"
	} else {
		as = sign.As{Domain: domain, Selector: u.Signing.Selector}
		keys, err := s.keysOf(as)
		if len(keys) > 0 {
			return as, true, ""
		}
		why = err.Error()
	}
	if p := s.provider(); p != "" && s.keys.ring.Has(p) {
		return sign.As{Domain: p}, false, ""
	}
	return sign.As{}, false, why
}

// keysOf are the keys that sign in somebody's name; an error tells why there is none, or fewer than there should be.
func (s dkimSigner) keysOf(as sign.As) ([]*sign.Key, error) {
	keys, err := s.keys.ring.Keys(as)
	switch {
	case err != nil:
		s.keys.unreadable(as.Domain, err)
	case len(keys) == 0 && as.Selector != "":
		err = fmt.Errorf("the key %s of %s is not in use", as.Selector, as.Domain)
	case len(keys) == 0:
		err = fmt.Errorf("no key of %s is in use", as.Domain)
	}
	return keys, err
}

// Expected implements proxy.Signer.
func (s dkimSigner) Expected(u *policy.Settings, login string, from mail.Address) bool {
	domain, err := policy.ALabel(from.Domain())
	if err != nil || !sender.MaySign(&u.Sender, login, domain) {
		return false
	}
	keys, _ := s.keys.ring.Keys(sign.As{Domain: domain, Selector: u.Signing.Selector})
	return len(keys) > 0
}

// Signatures implements proxy.Signer.
func (s dkimSigner) Signatures(dst []byte, as sign.As, body *smtp.Body, at time.Time) (fields []byte, names, why string) {
	keys, err := s.keysOf(as)
	if err != nil {
		why = err.Error()
	}
	if len(keys) == 0 {
		return dst, "", why
	}
	header, err := headerOf(body)
	if err == nil {
		dst, err = sign.AppendSignatures(dst, keys, header, body.WriteText, at)
	}
	if err != nil {
		return dst, "", err.Error()
	}
	for i, k := range keys {
		if i > 0 {
			names += " "
		}
		names += k.Selector
	}
	return dst, names, why
}

// signsFor tells whether a user's mail of a domain is signed in its name.
func (d *daemon) signsFor(user uint32, login, domain string) bool {
	u := d.policy.Settings(user)
	return u.Signing.DKIM != policy.DKIMOff && d.signer().Expected(u, login, mail.Address("@"+domain))
}

// sign is for what the queue delivers.
func (s dkimSigner) sign(as sign.As, body *smtp.Body) (fields []byte, log string) {
	fields, keys, why := s.Signatures(make([]byte, 0, 2<<10), as, body, time.Now())
	return fields, proxy.SignedBy(as, keys, why)
}

// mostHeader bounds the headers that are signed.
const mostHeader = 1 << 20

// headerOf is the header of a message with the empty line that ends it.
func headerOf(body *smtp.Body) ([]byte, error) {
	n := body.HeaderLen()
	if h := body.Header(); int64(len(h)) == n {
		return h, nil
	}
	if n > mostHeader {
		return nil, fmt.Errorf("its header has %d bytes, more than %d", n, mostHeader)
	}
	h := make([]byte, n)
	if _, err := body.ReadAt(h, 0); err != nil && err != io.EOF {
		return nil, fmt.Errorf("its header cannot be read: %w", err)
	}
	return h, nil
}

func hasSignature(header []byte) bool {
	for name := range mail.Header(header) {
		if bytes.EqualFold(name, []byte("DKIM-Signature")) {
			return true
		}
	}
	return false
}
