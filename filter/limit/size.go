package limit

import (
	"context"
	"fmt"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/filter/policy"
)

// SizePhases are the phases at which Size is asked.
var SizePhases = []filter.Phase{filter.Mail, filter.Data, filter.Part}

// Size refuses messages over the user's message size: by what MAIL declares (RFC 1870 6.1), then by what really came.
type Size struct{ settings policy.Resolver }

// NewSize returns the check for the limits of s.
func NewSize(s policy.Resolver) *Size { return &Size{s} }

// Check implements filter.Check.
func (s *Size) Check(_ context.Context, p filter.Phase, m *message.Message, hits []filter.Hit) []filter.Hit {
	size, how := m.Envelope.FromSize, "declared"
	if p >= filter.Data {
		size, how = m.DataSize, "received"
	}
	limit := s.settings.Settings(m.Flow.User.ID).MessageSize
	if limit <= 0 || size <= limit {
		return hits
	}
	return append(hits, filter.Hit{
		Code: "SIZE", Class: filter.Policy, Action: filter.Reject, SMTP: 552, Enhanced: "5.3.4",
		Text:     fmt.Sprintf("message of %d bytes is over this sender's limit of %d bytes", size, limit),
		Evidence: fmt.Sprintf("%d bytes %s", size, how),
	})
}

// PerMailPhases are the phases at which PerMail is asked.
var PerMailPhases = []filter.Phase{filter.Rcpt}

// PerMail bounds the recipients of one mail. The refusal is 452, so that the client sends the rest in a further
// transaction (RFC 5321 4.5.3.1.10).
type PerMail struct{ settings policy.Resolver }

// NewPerMail returns the check for the limits of s.
func NewPerMail(s policy.Resolver) *PerMail { return &PerMail{s} }

// Check implements filter.Check.
func (r *PerMail) Check(_ context.Context, _ filter.Phase, m *message.Message, hits []filter.Hit) []filter.Hit {
	limit := r.settings.Settings(m.Flow.User.ID).RecipientsPerMail
	if limit <= 0 || len(m.Envelope.To) < limit {
		return hits
	}
	return append(hits, filter.Hit{
		Code: "RCPT-MAX", Class: filter.Policy, Action: filter.Defer, SMTP: 452, Enhanced: "4.5.3",
		Text:     fmt.Sprintf("too many recipients: this sender may name %d in one message", limit),
		Evidence: fmt.Sprintf("recipient %d", len(m.Envelope.To)+1),
	})
}
