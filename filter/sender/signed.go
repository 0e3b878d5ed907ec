package sender

import (
	"bytes"
	"context"
	"slices"
	"strings"

	"github.com/emersion/go-msgauth/dkim"
	"github.com/emersion/go-msgauth/dmarc"

	"sluice/filter/message"
	"sluice/filter/policy"
)

// Bounds of the messages whose signatures are verified: the library takes time by the square of a header's continuation
// lines and of the blank lines at a body's end.
const (
	mostSignedHeader = 64 << 10
	mostSignedBody   = 1 << 20
	mostVerified     = 5 // signatures; each costs a question and a decryption
)

// Signature is what a message's DKIM signatures are worth for where it may leave from.
type Signature uint8

// The results.
const (
	Unlooked Signature = iota // too large to be looked at, or the DNS did not answer
	Unsigned                  // no signature of its author's domain verifies
	Signed                    // one does
)

// Signature tells whether a whole message has a DKIM signature that verifies (RFC 6376 6.1) and is of the domain of its one
// author, or aligned with it as that domain's DMARC record wants (RFC 7489 3.1.1). It asks the DNS for some seconds at most.
func (r *Rules) Signature(ctx context.Context, data []byte) Signature {
	from, _ := fromHeader(data)
	if len(from) != 1 || len(signers(data)) == 0 {
		return Unsigned
	}
	author, err := policy.ALabel(from[0].Domain())
	if err != nil {
		return Unsigned
	}
	if tooLarge(data) {
		return Unlooked
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	rec, _, err := r.record(ctx, author)
	if err != nil {
		return Unlooked
	}
	strict := rec != nil && rec.DKIMAlignment == dmarc.AlignmentStrict
	all, err := r.verify(ctx, data)
	result := Unsigned
	if err != nil && len(all) == 0 {
		return result
	}
	for _, v := range all {
		switch {
		case !aligned(author, v.Domain, strict):
		case v.Err == nil:
			return Signed
		case dkim.IsTempFail(v.Err):
			result = Unlooked
		}
	}
	return result
}

// Foreign tells whether a whole message has a DKIM signature that verifies and is of a domain that is not its user's: he did
// not write it (ATT10). Only of a user whose domains the settings name, and who did not log in, is known whose are not his.
// Nobody is asked about a message without such a signature; what cannot be verified within some seconds is not known to be one.
func (r *Rules) Foreign(ctx context.Context, m *message.Message) bool {
	own := r.settings.Settings(m.Flow.User.ID).Sender.Domains
	if own == nil || len(*own) == 0 || m.Login != "" || tooLarge(m.Data) {
		return false
	}
	foreign := func(domain string) bool {
		return domain != "" && !slices.ContainsFunc(*own, func(o string) bool { return aligned(strings.TrimPrefix(o, "."), domain, false) })
	}
	if !slices.ContainsFunc(signers(m.Data), foreign) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	all, _ := r.verify(ctx, m.Data) // those that were verified stand there beside an error
	return slices.ContainsFunc(all, func(v *dkim.Verification) bool { return v.Err == nil && foreign(v.Domain) })
}

// verify verifies the first signatures of a message, which asks the DNS for their keys.
func (r *Rules) verify(ctx context.Context, data []byte) ([]*dkim.Verification, error) {
	return dkim.VerifyWithOptions(bytes.NewReader(data), &dkim.VerifyOptions{
		LookupTXT: func(name string) ([]string, error) { return r.dns.LookupTXT(ctx, name) }, MaxVerifications: mostVerified,
	})
}

// tooLarge tells whether the signatures of a message are not looked at.
func tooLarge(data []byte) bool {
	head := headerSize(data)
	return head > mostSignedHeader || len(data)-head > mostSignedBody
}

// headerSize is the length of a message's header.
func headerSize(data []byte) int {
	if i := bytes.Index(data, []byte("\r\n\r\n")); i >= 0 {
		return i
	}
	return len(data)
}
