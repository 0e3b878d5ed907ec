package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"sluice/cmd/internal/api"
	"sluice/filter/policy"
	"sluice/filter/sign"
)

// DKIMKeys lists all keys.
func (b backend) DKIMKeys(context.Context) ([]api.DKIMKey, error) {
	out := []api.DKIMKey{}
	for _, h := range b.d.dkim.ring.All() {
		out = append(out, b.d.shownKey(h))
	}
	return out, nil
}

// DKIMDomain asks the DNS for the records of a domain's keys, and shows them.
func (b backend) DKIMDomain(ctx context.Context, who, domain string) ([]api.DKIMKey, error) {
	domain, err := dkimDomain(domain)
	if err != nil {
		return nil, err
	}
	all := b.d.dkim.ring.Of(domain)
	if len(all) == 0 {
		return nil, noKeys(domain)
	}
	for _, h := range all {
		if h.Err == nil && !b.d.retired() {
			if err := b.d.lookForRecord(ctx, h, who); err != nil {
				return nil, err
			}
		}
	}
	return b.d.shownKeys(domain), nil
}

// MakeDKIM makes keys for a domain.
func (b backend) MakeDKIM(_ context.Context, who string, r api.DKIMRequest) ([]api.DKIMKey, error) {
	d := b.d
	domain, err := dkimDomain(r.Domain)
	if err == nil && r.Selector != "" {
		err = invalidDKIM(policy.CheckSelector(r.Selector))
	}
	if err != nil {
		return nil, err
	}
	d.dkim.change.Lock()
	defer d.dkim.change.Unlock()
	if d.retired() {
		return nil, errRetired
	}
	now, has := time.Now(), d.dkim.ring.Of(domain)
	current := slices.DeleteFunc(slices.Clone(has), func(h *sign.Held) bool { return h.State() == sign.Retired })
	switch {
	case r.Rotate && len(current) == 0:
		return nil, noKeys(domain)
	case !r.Rotate && len(current) > 0:
		return nil, &api.Problem{Status: http.StatusConflict, Code: "refused", What: domain + " has a key already", Remedy: "`sluice dkim rotate " + domain + "` makes a new one in its place"}
	}
	kinds := kindsOf(r.Type, current)
	names, err := freeSelectors(has, r.Selector, kinds, now)
	if err != nil {
		return nil, &api.Problem{Status: http.StatusConflict, Code: "refused", What: err.Error(), Remedy: "give another one with --selector, or none"}
	}
	for i, kind := range kinds {
		h, err := sign.NewHeld(domain, names[i], kind, now)
		if err != nil {
			return nil, err
		}
		h.AtOnce = r.AtOnce
		if err := d.dkim.put(h); err != nil {
			return nil, err
		}
		d.auditKey(who, "dkim key made", h, r.Reason)
	}
	if err := d.retireKeys(domain, who); err != nil { // of what signs at once
		return nil, err
	}
	return slices.DeleteFunc(d.shownKeys(domain), func(k api.DKIMKey) bool { return !slices.Contains(names, k.Selector) }), nil
}

// kindsOf are the types of keys to make: those asked for, else those that the domain has.
func kindsOf(asked string, current []*sign.Held) []string {
	switch asked {
	case "both":
		return []string{sign.RSA, sign.Ed25519}
	case "":
	default:
		return []string{asked}
	}
	var kinds []string
	for _, kind := range []string{sign.RSA, sign.Ed25519} {
		if slices.ContainsFunc(current, func(h *sign.Held) bool { return h.Type == kind }) {
			kinds = append(kinds, kind)
		}
	}
	if len(kinds) == 0 {
		return []string{sign.RSA}
	}
	return kinds
}

// RemoveDKIM removes a key, or all of a domain.
func (b backend) RemoveDKIM(_ context.Context, who, domain, selector, reason string) ([]api.DKIMKey, error) {
	d := b.d
	domain, err := dkimDomain(domain)
	if err != nil {
		return nil, err
	}
	d.dkim.change.Lock()
	defer d.dkim.change.Unlock()
	if d.retired() {
		return nil, errRetired
	}
	out := []api.DKIMKey{}
	for _, h := range d.dkim.ring.Of(domain) {
		if selector != "" && h.Selector != selector {
			continue
		}
		shown := d.shownKey(h)
		if err := d.dkim.remove(h); err != nil {
			return nil, err
		}
		d.auditKey(who, "dkim key removed", h, reason)
		out = append(out, shown)
	}
	switch {
	case len(out) == 0 && selector != "" && len(d.dkim.ring.Of(domain)) > 0:
		return nil, &api.Problem{Status: http.StatusNotFound, Code: "no-such-key", What: fmt.Sprintf("%s has no key of the selector %q", domain, selector), Remedy: "`sluice dkim show " + domain + "` shows what it has"}
	case len(out) == 0:
		return nil, noKeys(domain)
	}
	return out, nil
}

func noKeys(domain string) error {
	return &api.Problem{Status: http.StatusNotFound, Code: "no-such-key", What: domain + " has no key", Remedy: "`sluice dkim generate " + domain + "` makes one"}
}

func invalidDKIM(err error) error {
	if err == nil {
		return nil
	}
	what, remedy, _ := strings.Cut(err.Error(), "; ")
	return &api.Problem{Status: http.StatusBadRequest, Code: "invalid", What: what, Remedy: remedy}
}

// longestDomain leaves room for a selector before it: a name in the DNS has 253 characters at most (RFC 1035 2.3.4).
const longestDomain = 253 - 63 - len(recordInfix)

// dkimDomain is a domain as the DNS has it.
func dkimDomain(name string) (string, error) {
	a, err := policy.ALabel(name)
	odd := strings.ContainsFunc(a, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	})
	if err != nil || odd || len(a) > longestDomain || !strings.Contains(a, ".") || strings.Contains(a, "..") || strings.HasPrefix(a, ".") {
		return "", invalidDKIM(fmt.Errorf("%.100q is not a domain that could have a key; write it like customer.example", name))
	}
	return a, nil
}

func (d *daemon) shownKeys(domain string) []api.DKIMKey {
	out := []api.DKIMKey{}
	for _, h := range d.dkim.ring.Of(domain) {
		out = append(out, d.shownKey(h))
	}
	return out
}

func (d *daemon) shownKey(h *sign.Held) api.DKIMKey {
	k := api.DKIMKey{Domain: h.Domain, Selector: h.Selector, Type: h.Type, State: h.State(), AtOnce: h.AtOnce, Name: h.Name(), Made: moment(h.Made), Seen: moment(h.Seen), Until: moment(h.Until)}
	if h.Err != nil {
		k.Error = h.Err.Error()
		return k
	}
	k.Record = h.Record()
	if l, ok := d.dkim.last(h); ok {
		k.DNS, k.Asked = "good", moment(l.at)
		if l.err != nil {
			k.DNS = l.err.Error()
		}
	}
	return k
}

// dkimFindings tell of keys that do not sign as they should.
func (d *daemon) dkimFindings() (fs []api.Finding) {
	all := d.dkim.ring.All()
	for _, h := range all {
		l, known := d.dkim.last(h)
		switch {
		case h.Err != nil:
			fs = append(fs, finding("dkim key "+h.Name(), true, api.Fail, "cannot be read, and mail of "+h.Domain+" goes unsigned: "+h.Err.Error(), "put a copy back and reload sluiced, or sluice dkim remove "+h.Domain+" --selector "+h.Selector))
		case h.State() == sign.Signing && known && l.err != nil:
			fs = append(fs, finding("dkim key "+h.Name(), true, api.Warn, "receivers cannot verify what it signs: "+l.err.Error(), "publish the record that sluice dkim show "+h.Domain+" prints"))
		}
	}
	if p := d.provider(); p != "" && !d.dkim.ring.Has(p) {
		fs = append(fs, finding("dkim.domain", true, api.Warn, p+" has no key that may sign", "sluice dkim generate "+p+"; then publish its record"))
	}
	if len(fs) == 0 && len(all) > 0 {
		fs = append(fs, api.Finding{Check: "dkim keys", State: api.OK, Text: fmt.Sprintf("%d keys can be read", len(all))})
	}
	return fs
}

// provider is the domain that signs what users' own cannot.
func (d *daemon) provider() string {
	a, err := policy.ALabel(d.cfg.Load().DKIM.Domain)
	if err != nil {
		return ""
	}
	return a
}
