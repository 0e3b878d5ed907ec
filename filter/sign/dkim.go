package sign

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
)

// As is in whose name a message is to be signed. The zero value: in nobody's.
type As struct {
	Domain   string // A-labels in small letters
	Selector string // "": the domain's current keys
}

// Key signs for a domain.
type Key struct {
	Domain, Selector string
	Signer           crypto.Signer // *rsa.PrivateKey or ed25519.PrivateKey
}

// Why a message cannot be signed.
var (
	errNoFrom    = errors.New("it has no From field")
	errNotFields = errors.New("its header has a line that is no field")
	errTooMany   = errors.New("its header has too many fields that would have to be signed")
)

// signedFields are what a signature covers, where it is there (RFC 6376 5.4.1, RFC 8058 4). Of those marked true none can be added
// behind our back: they are named once more than they are there (RFC 6376 8.15).
var signedFields = []struct {
	name string
	over bool
}{
	{"from", true}, {"sender", false}, {"reply-to", true}, {"subject", true}, {"date", true}, {"message-id", false}, {"to", true}, {"cc", true},
	{"mime-version", true}, {"content-type", true}, {"content-transfer-encoding", true}, {"content-id", false}, {"content-description", false},
	{"in-reply-to", false}, {"references", false}, {"list-id", false}, {"list-help", false}, {"list-unsubscribe", false},
	{"list-unsubscribe-post", false}, {"list-subscribe", false}, {"list-post", false}, {"list-owner", false}, {"list-archive", false},
	{"feedback-id", false}, {"cfbl-address", false}, {"cfbl-feedback-id", false},
}

// mostSigned bounds the fields that one signature names: a stranger's header may have any number.
const mostSigned = 100

// Room is how much signatures add to a message at most, those of two keys: a destination that says how much it takes must have it.
const Room = 4 << 10

// lineLength is about how long the lines of a field of ours are.
const lineLength = 72

// AppendSignatures appends a DKIM-Signature field for each key to dst (RFC 6376, RFC 8463), in the relaxed form of header and body.
// The header comes with the empty line that ends it, where there is one; body writes what follows, in lines that end in CRLF. It is
// read once, whatever the number of keys.
func AppendSignatures(dst []byte, keys []*Key, header []byte, body func(io.Writer) error, at time.Time) ([]byte, error) {
	names, fields, err := cover(header)
	if err != nil {
		return dst, err
	}
	text := relaxedBody{hash: sha256.New(), out: make([]byte, 0, canonicalBlock)}
	if err := body(&text); err != nil {
		return dst, err
	}
	var sum [sha256.Size]byte
	bodyHash := base64.StdEncoding.AppendEncode(nil, text.sum(sum[:0]))
	for _, k := range keys {
		if dst, err = k.append(dst, names, fields, bodyHash, at); err != nil {
			return dst, err
		}
	}
	return dst, nil
}

// append appends the field of one key.
func (k *Key) append(dst []byte, names []string, fields, bodyHash []byte, at time.Time) ([]byte, error) {
	algorithm := "rsa-sha256"
	if _, ok := k.Signer.Public().(ed25519.PublicKey); ok {
		algorithm = "ed25519-sha256"
	}
	start := len(dst)
	dst = append(dst, "DKIM-Signature: v=1; a="+algorithm+"; c=relaxed/relaxed; d="+k.Domain+";\r\n\ts="+k.Selector+"; t="...)
	dst = append(strconv.AppendInt(dst, at.Unix(), 10), "; h="...)
	line := lineLength / 2
	for i, n := range names {
		if i > 0 {
			dst = append(dst, ':')
		}
		if line += len(n) + 1; line > lineLength {
			dst = append(dst, "\r\n\t "...)
			line = len(n) + 3
		}
		dst = append(dst, n...)
	}
	dst = append(append(append(dst, ";\r\n\tbh="...), bodyHash...), ";\r\n\tb="...)
	own := dst[start:]
	h := sha256.New()
	h.Write(fields)
	h.Write(appendRelaxed(make([]byte, 0, len(own)), own[:len("DKIM-Signature")], own[len("DKIM-Signature:"):]))
	value, err := k.sign(h.Sum(nil))
	if err != nil {
		return dst[:start], fmt.Errorf("could not sign with the key %s of %s: %w", k.Selector, k.Domain, err)
	}
	for i, c := range base64.StdEncoding.AppendEncode(nil, value) {
		if i > 0 && i%lineLength == 0 {
			dst = append(dst, "\r\n\t "...)
		}
		dst = append(dst, c)
	}
	return append(dst, "\r\n"...), nil
}

// sign signs a digest. Ed25519 takes that for its message (RFC 8463 3).
func (k *Key) sign(digest []byte) ([]byte, error) {
	switch s := k.Signer.(type) {
	case *rsa.PrivateKey:
		return rsa.SignPKCS1v15(nil, s, crypto.SHA256, digest)
	case ed25519.PrivateKey:
		return ed25519.Sign(s, digest), nil
	}
	return nil, fmt.Errorf("it is of type %T", k.Signer)
}

// cover finds what a signature covers: the names in h=, and the fields themselves in their canonical form and order. Of several fields of
// one name the last one comes first (RFC 6376 5.4.2).
func cover(header []byte) (names []string, fields []byte, err error) {
	var room [64]rawField
	all := room[:0]
	for len(header) > 0 && !bytes.HasPrefix(header, []byte("\r\n")) {
		f, n := nextField(header)
		if f.name == nil {
			return nil, nil, errNotFields
		}
		all, header = append(all, f), header[n:]
	}
	names, fields = make([]string, 0, 32), make([]byte, 0, 2048)
	for _, s := range signedFields {
		there := 0
		for i := len(all) - 1; i >= 0; i-- {
			if f := &all[i]; len(f.name) == len(s.name) && bytes.EqualFold(f.name, []byte(s.name)) {
				there++
				names = append(names, s.name)
				fields = append(appendRelaxed(fields, f.name, f.value), "\r\n"...)
			}
		}
		switch {
		case there == 0 && s.name == "from":
			return nil, nil, errNoFrom
		case len(names) > mostSigned:
			return nil, nil, errTooMany
		case s.over:
			names = append(names, s.name)
		}
	}
	return names, fields, nil
}

// rawField is a header field as it stands there, folds included.
type rawField struct{ name, value []byte }

// nextField returns the field that header begins with, and its length; without a name where there is none.
func nextField(header []byte) (f rawField, n int) {
	for {
		nl := bytes.IndexByte(header[n:], '\n')
		if nl < 0 {
			n = len(header)
			break
		}
		if n += nl + 1; n == len(header) || header[n] != ' ' && header[n] != '\t' {
			break
		}
	}
	colon := bytes.IndexByte(header[:n], ':')
	name := bytes.TrimRight(header[:max(colon, 0)], " \t")
	if len(name) == 0 || bytes.ContainsAny(name, " \t\r\n") {
		return rawField{}, n
	}
	return rawField{name, header[colon+1 : n]}, n
}
