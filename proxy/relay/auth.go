package relay

import (
	"slices"
	"strings"

	"sluice/proxy/smtp"
)

// Mechanisms are those that a client may be offered to authenticate with at the destination (AUT4): what the destination
// offers in the client's own state of TLS, and in that of the onward leg, which has to carry it. Where either leg is
// encrypted, and so the encryption ends here, the mechanisms that are tied to the channel or to the peer's own identity
// in it are left out: they would fail, as they should.
func (c *Caps) Mechanisms(encrypted bool) []string {
	if encrypted && !c.Encrypted {
		return nil
	}
	out := slices.Clone(c.Auth)
	if !c.Encrypted {
		return out
	}
	return slices.DeleteFunc(out, func(m string) bool {
		return bound(m) || !encrypted && !slices.Contains(c.PlainAuth, m)
	})
}

// bound tells whether a mechanism depends on the TLS channel, or may (RFC 5802 6: a client that could bind and is not
// offered to says so, and is refused by a server that can).
func bound(m string) bool {
	switch m {
	case "EXTERNAL", "NTLM", "GSSAPI", "GSS-SPNEGO":
		return true
	}
	return strings.HasSuffix(m, "-PLUS") || strings.HasPrefix(m, "SCRAM-") || strings.HasPrefix(m, "GS2-")
}

// Ready sends the RSET that is owed, since no AUTH may come within a transaction (RFC 4954 4). The error is a *Failure.
func (s *Session) Ready() error {
	if !s.reset {
		return nil
	}
	if f := s.Reset(); f != nil {
		return f
	}
	return nil
}

// Say sends one line of an AUTH dialogue as it is, of which no copy is kept, and returns the reply, which is valid until
// the next call. The error is a *Failure.
func (s *Session) Say(line []byte) (*smtp.Reply, error) {
	if f := s.quiet(); f != nil {
		return nil, f
	}
	if err := s.conn.WriteSecret(line); err != nil {
		return nil, failed(err)
	}
	if f := s.read(); f != nil {
		return nil, f
	}
	return &s.rep, nil
}
