package main

import (
	"context"

	"sluice/filter/sender"
)

// signatures looks at DKIM signatures.
type signatures struct{ *sender.Rules }

// Signature implements proxy.Signatures.
func (s signatures) Signature(ctx context.Context, data []byte) (signed, looked bool) {
	r := s.Rules.Signature(ctx, data)
	return r == sender.Signed, r != sender.Unlooked
}
