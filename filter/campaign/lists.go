package campaign

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sluice/filter"
	"sluice/filter/content/view"
)

// Digest is a SHA-256 that the operator has listed: of a file as it was before it was attached, up to 512 KiB of it, or of
// the text of a message, see TextDigest.
type Digest struct {
	Hash  string    `json:"hash"` // 64 hexadecimal digits
	Why   string    `json:"why"`
	By    string    `json:"by"`
	Since time.Time `json:"since"`
	Until time.Time `json:"until,omitzero"` // zero: until it is removed
}

// ParseDigest reads 64 hexadecimal digits.
func ParseDigest(s string) (string, error) {
	s = strings.ToLower(strings.TrimSpace(s))
	if b, err := hex.DecodeString(s); err != nil || len(b) != sha256.Size {
		return "", fmt.Errorf("%q is not a SHA-256; give its 64 hexadecimal digits, as `sha256sum` and `sluice campaign digest` print them", s)
	}
	return s, nil
}

// lists are the listed digests. Looking into none costs nothing.
type lists struct {
	mu  sync.Mutex
	all atomic.Pointer[map[[sha256.Size]byte]Digest]
}

// SetDigests replaces what is listed. A digest that is none is left out.
func (t *Tracker) SetDigests(all []Digest) {
	t.lists.mu.Lock()
	defer t.lists.mu.Unlock()
	next := make(map[[sha256.Size]byte]Digest, len(all))
	for _, d := range all {
		if b, err := hex.DecodeString(d.Hash); err == nil && len(b) == sha256.Size {
			next[[sha256.Size]byte(b)] = d
		}
	}
	t.lists.all.Store(&next)
}

// Digests returns what is listed, newest first.
func (t *Tracker) Digests() []Digest {
	var out []Digest
	if all := t.lists.all.Load(); all != nil {
		for _, d := range *all {
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(a, b Digest) int { return b.Since.Compare(a.Since) })
	return out
}

// check looks whether a file or the text of a message is listed.
func (l *lists) check(v *view.View, hits []filter.Hit) []filter.Hit {
	all := l.all.Load()
	if all == nil || len(*all) == 0 {
		return hits
	}
	for i := range v.Files {
		f := &v.Files[i]
		if d, ok := (*all)[sha256.Sum256(f.Head)]; ok && len(f.Head) > 0 {
			hits = d.hit(hits, fmt.Sprintf("attached file %q", f.Name))
		}
	}
	if d, ok := (*all)[textDigest(v)]; ok {
		hits = d.hit(hits, "text of the message")
	}
	return hits
}

func (d *Digest) hit(hits []filter.Hit, what string) []filter.Hit {
	if !d.Until.IsZero() && time.Now().After(d.Until) {
		return hits
	}
	return append(hits, filter.Hit{
		Code: "HASH", Class: filter.Spam, Action: filter.Reject, Points: 1, SMTP: 550, Enhanced: "5.7.1", Outside: true,
		Text: "the message, or a file in it, is on this gateway's list", Evidence: fmt.Sprintf("%s is %s, listed by %s: %s", what, d.Hash, d.By, d.Why),
	})
}

// textDigest is that of the visible text as it was decoded, blanks folded.
func textDigest(v *view.View) [sha256.Size]byte { return sha256.Sum256(v.Text) }

// Named is a digest with what it is of.
type Named struct {
	Of   string `json:"of"` // "text", or the name of a file
	Hash string `json:"hash"`
}

// DigestsOf returns the digests of a message that can be listed.
func DigestsOf(data []byte) []Named {
	var r view.Reader
	v := r.Read(data)
	var out []Named
	if len(v.Text) > 0 {
		sum := textDigest(v)
		out = append(out, Named{"text", hex.EncodeToString(sum[:])})
	}
	for i := range v.Files {
		sum := sha256.Sum256(v.Files[i].Head)
		out = append(out, Named{v.Files[i].Name, hex.EncodeToString(sum[:])})
	}
	return out
}
