package sign

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Held is a key with what is known of it. Its fields are set before a Ring gets it, and not changed afterwards.
type Held struct {
	Domain   string    `json:"domain"` // A-labels in small letters
	Selector string    `json:"selector"`
	Type     string    `json:"type"` // RSA or Ed25519
	Made     time.Time `json:"made"`
	// Seen is when the DNS had its record for the first time; zero: not yet.
	Seen time.Time `json:"seen,omitzero"`
	// AtOnce: it signs though nobody has seen its record.
	AtOnce bool `json:"at_once,omitempty"`
	// Until is how long the record of a key has to stay that signs no more; zero: it signs, or will.
	Until time.Time `json:"until,omitzero"`
	// Public is the key as a record has it.
	Public string `json:"public"`
	// Secret is the private key (PKCS #8).
	Secret []byte `json:"secret,omitempty"`

	Err error `json:"-"` // why it cannot be read; nil: it can

	once   sync.Once // a gateway may have a hundred thousand keys, few of which sign
	key    Key
	keyErr error
}

// The types of keys.
const (
	RSA     = "rsa"
	Ed25519 = "ed25519"
)

// The states of a key.
const (
	Waiting    = "waiting"    // its record is not seen
	Signing    = "signing"    // the newest of its type that may
	Retired    = "retired"    // another took its place
	Unreadable = "unreadable" // its file
)

// usable tells whether it may sign.
func (h *Held) usable() bool { return h.Until.IsZero() && (h.AtOnce || !h.Seen.IsZero()) }

// State tells what becomes of the key, as long as no other took its place meanwhile.
func (h *Held) State() string {
	switch {
	case h.Err != nil:
		return Unreadable
	case !h.Until.IsZero():
		return Retired
	case h.usable():
		return Signing
	}
	return Waiting
}

// With returns a copy that change has changed.
func (h *Held) With(change func(*Held)) *Held {
	c := &Held{Domain: h.Domain, Selector: h.Selector, Type: h.Type, Made: h.Made, Seen: h.Seen, AtOnce: h.AtOnce, Until: h.Until, Public: h.Public, Secret: h.Secret, Err: h.Err}
	change(c)
	return c
}

// Key is what signs.
func (h *Held) Key() (*Key, error) {
	if h.Err != nil {
		return nil, h.Err
	}
	h.once.Do(func() {
		h.key = Key{Domain: h.Domain, Selector: h.Selector}
		h.key.Signer, h.keyErr = parseSecret(h.Type, h.Secret)
	})
	if h.keyErr != nil {
		return nil, h.keyErr
	}
	return &h.key, nil
}

// Ring holds the keys of all domains. Safe for concurrent use.
type Ring struct {
	mu   sync.RWMutex
	keys map[string][]*Held // by domain, the newest first
}

// NewRing returns a ring of some keys.
func NewRing(all []*Held) *Ring {
	r := new(Ring)
	r.Replace(all)
	return r
}

// Replace has other keys in place of all there are.
func (r *Ring) Replace(all []*Held) {
	next := &Ring{keys: make(map[string][]*Held)}
	for _, h := range all {
		next.Put(h)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keys = next.keys
}

// Put adds a key, or replaces the one of its domain and selector.
func (r *Ring) Put(h *Held) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := append(without(r.keys[h.Domain], h.Selector), h)
	slices.SortFunc(all, func(a, b *Held) int {
		if c := b.Made.Compare(a.Made); c != 0 {
			return c
		}
		return strings.Compare(a.Selector, b.Selector)
	})
	r.keys[h.Domain] = all
}

// Remove forgets a key.
func (r *Ring) Remove(domain, selector string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.keys[domain] = without(r.keys[domain], selector); len(r.keys[domain]) == 0 {
		delete(r.keys, domain)
	}
}

// without returns a new slice: a reader may have the old one.
func without(all []*Held, selector string) []*Held {
	out := make([]*Held, 0, len(all)+1)
	for _, h := range all {
		if h.Selector != selector {
			out = append(out, h)
		}
	}
	return out
}

// Of returns the keys of a domain, the newest first. It is not to be changed.
func (r *Ring) Of(domain string) []*Held {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.keys[domain]
}

// All returns all keys, by domain and age.
func (r *Ring) All() []*Held {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var out []*Held
	for _, all := range r.keys {
		out = append(out, all...)
	}
	slices.SortStableFunc(out, func(a, b *Held) int { return strings.Compare(a.Domain, b.Domain) })
	return out
}

// Has tells whether a domain has a key that signs, or would if it could be read.
func (r *Ring) Has(domain string) bool {
	return slices.ContainsFunc(r.Of(domain), func(h *Held) bool { return h.Err != nil || h.usable() })
}

// Keys returns what signs in somebody's name: the key of the selector, or of each type the newest that may. A selector that was retired
// gives way to those. The error tells of keys that cannot be read, beside those that can.
func (r *Ring) Keys(as As) (keys []*Key, err error) {
	all := r.Of(as.Domain)
	if as.Selector != "" {
		i := slices.IndexFunc(all, func(h *Held) bool { return h.Selector == as.Selector })
		if i < 0 {
			return nil, nil
		}
		if all[i].Err != nil || all[i].Until.IsZero() {
			all = all[i : i+1]
		}
	}
	var errs []error
	seen := ""
	for _, h := range all {
		if h.Err == nil && (!h.usable() || seen == h.Type || seen == bothTypes) {
			continue
		}
		k, err := h.Key()
		if err != nil {
			errs = append(errs, fmt.Errorf("could not read the key %s: %w", h.Name(), err))
			continue
		}
		keys = append(keys, k)
		if seen == "" {
			seen = h.Type
		} else {
			seen = bothTypes
		}
	}
	return keys, errors.Join(errs...)
}

const bothTypes = "both"

// Superseded returns the keys of a domain that are not retired, and in whose place a newer one of their type signs.
func (r *Ring) Superseded(domain string) (old []*Held) {
	newest := map[string]bool{}
	for _, h := range r.Of(domain) {
		switch {
		case h.Err != nil || !h.Until.IsZero():
		case newest[h.Type]:
			old = append(old, h)
		case h.usable():
			newest[h.Type] = true
		}
	}
	return old
}
