package policy

import (
	"encoding"
	"fmt"
	"slices"
	"strings"
	"time"
)

// LimitKind names one bound on what is sent (LIM1 to LIM3).
type LimitKind uint8

// The kinds. Their numbers stand nowhere but in memory.
const (
	MessagesMinute LimitKind = iota
	MessagesHour
	MessagesDay
	MessagesWeek
	MessagesMonth
	RecipientsMinute
	RecipientsHour
	RecipientsDay
	RecipientsWeek
	RecipientsMonth
	BytesDay
	DistinctDay
	InvalidHour
	InvalidShare // in percent, of those whose fate is known, from LeastInvalid on
	FailedHour
	NullHour
	QueuedMessages // that wait for delivery now, whenever they came
	LimitKinds
)

const (
	day = 24 * time.Hour
	// LeastInvalid is how many invalid recipients within an hour a share of them needs to count.
	LeastInvalid = 20
	maxLimitText = 200
)

// limitKinds describes the kinds, for configuration, API, replies and counters.
var limitKinds = [LimitKinds]struct {
	name, noun string
	window     time.Duration
}{
	{"messages_per_minute", "messages per minute", time.Minute},
	{"messages_per_hour", "messages per hour", time.Hour},
	{"messages_per_day", "messages per day", day},
	{"messages_per_week", "messages per week", 7 * day},
	{"messages_per_month", "messages per month", 30 * day},
	{"recipients_per_minute", "recipients per minute", time.Minute},
	{"recipients_per_hour", "recipients per hour", time.Hour},
	{"recipients_per_day", "recipients per day", day},
	{"recipients_per_week", "recipients per week", 7 * day},
	{"recipients_per_month", "recipients per month", 30 * day},
	{"bytes_per_day", "bytes per day", day},
	{"distinct_recipients_per_day", "different recipients per day", day},
	{"invalid_recipients_per_hour", "invalid recipients per hour", time.Hour},
	{"invalid_recipients_percent", "percent of invalid recipients", time.Hour},
	{"failed_deliveries_per_hour", "failed deliveries per hour", time.Hour},
	{"null_sender_messages_per_hour", "messages without a sender per hour", time.Hour},
	{"queued_messages", "messages waiting for delivery", 0},
}

// String returns the limit's name in configuration and API.
func (k LimitKind) String() string {
	if k >= LimitKinds {
		return "?"
	}
	return limitKinds[k].name
}

// Noun is what a limit counts, as a sentence says it behind a number.
func (k LimitKind) Noun() string { return limitKinds[k].noun }

// Window is the sliding window of a limit; a month has 30 days, and what counts the present has 0.
func (k LimitKind) Window() time.Duration { return limitKinds[k].window }

// ParseLimitKind reads a limit's name.
func ParseLimitKind(name string) (LimitKind, error) {
	for k := range LimitKinds {
		if limitKinds[k].name == name {
			return k, nil
		}
	}
	return 0, fmt.Errorf("there is no limit %q; known are %s", name, strings.Join(LimitNames(), ", "))
}

// LimitNames returns the names of all limits.
func LimitNames() []string {
	names := make([]string, LimitKinds)
	for k := range LimitKinds {
		names[k] = limitKinds[k].name
	}
	return names
}

// LimitAction is what happens to a message over a limit (LIM4).
type LimitAction uint8

// The actions.
const (
	DeferOver  LimitAction = iota // 451: the client tries again
	RejectOver                    // 550
	LockOver                      // 451, and the user is locked
)

var limitActions = []string{"defer", "reject", "lock"}

// String returns the action's name in configuration and API.
func (a LimitAction) String() string {
	if int(a) >= len(limitActions) {
		return "?"
	}
	return limitActions[a]
}

// MarshalText returns the action's name.
func (a LimitAction) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads the action's name.
func (a *LimitAction) UnmarshalText(text []byte) error {
	i := slices.Index(limitActions, string(text))
	if i < 0 {
		return fmt.Errorf("action %q of a limit is unknown; use defer, reject or lock", text)
	}
	*a = LimitAction(i)
	return nil
}

var (
	_ encoding.TextMarshaler   = LimitAction(0)
	_ encoding.TextUnmarshaler = (*LimitAction)(nil)
)

// Limits are the bounds on what one user, identity, account, plan or the network sends. They are not changed once they are
// in settings.
type Limits struct {
	Max    [LimitKinds]int64 // 0: none
	Action [LimitKinds]LimitAction
	Shadow [LimitKinds]bool   // only reported (LIM8)
	Text   [LimitKinds]string // for the reply, in place of ours
}

// Hourly tells whether nothing but what goes out within an hour, or came to nothing there, is bounded, and that in earnest. The
// null sender's mail and the queue have limits beside these.
func (l *Limits) Hourly() bool {
	for k, most := range l.Max {
		if most == 0 {
			continue
		}
		switch LimitKind(k) {
		case NullHour, QueuedMessages:
		case MessagesHour, RecipientsHour, InvalidHour, InvalidShare, FailedHour:
			if l.Shadow[k] {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// DefaultLimits are those of a user for whom nothing else is said.
func DefaultLimits() *Limits {
	l := &Limits{}
	l.Max[MessagesHour], l.Max[RecipientsHour], l.Max[InvalidShare], l.Max[NullHour], l.Max[QueuedMessages] = 500, 2000, 10, 200, 500
	return l
}

func (l *Limits) validate() (errs []error) {
	for k := range LimitKinds {
		if l.Max[k] < 0 {
			errs = append(errs, fmt.Errorf("%s is %d, want at least 0", k, l.Max[k]))
		}
		if len(l.Text[k]) > maxLimitText || strings.ContainsFunc(l.Text[k], func(r rune) bool { return r < ' ' || r > '~' }) {
			errs = append(errs, fmt.Errorf("the reply of %s must be one line of at most %d printable ASCII characters", k, maxLimitText))
		}
	}
	if l.Max[InvalidShare] > 100 {
		errs = append(errs, fmt.Errorf("%s is %d, want at most 100", InvalidShare, l.Max[InvalidShare]))
	}
	return errs
}

// LimitChange says of one limit what is not inherited. A nil field inherits.
type LimitChange struct {
	Max    *int64       `json:"max,omitempty"`
	Action *LimitAction `json:"action,omitempty"`
	Shadow *bool        `json:"shadow,omitempty"`
	Text   *string      `json:"text,omitempty"`
}

// LimitChanges are those of several limits, by their names.
type LimitChanges map[string]LimitChange

// apply returns l with the changes in it; l itself stays.
func (c *LimitChanges) apply(l *Limits) *Limits {
	if c == nil || len(*c) == 0 {
		return l
	}
	out := Limits{}
	if l != nil {
		out = *l
	}
	for name, ch := range *c {
		k, err := ParseLimitKind(name)
		if err != nil {
			continue // another version wrote it; what is read from people is validated
		}
		set(&out.Max[k], ch.Max)
		set(&out.Action[k], ch.Action)
		set(&out.Shadow[k], ch.Shadow)
		set(&out.Text[k], ch.Text)
	}
	return &out
}

// Limits returns the bounds that the changes make of nothing, for a budget.
func (c LimitChanges) Limits() *Limits {
	return (&c).apply(&Limits{})
}

// Validate reports names that are no limits, and what is out of bounds.
func (c LimitChanges) Validate() error {
	for name := range c {
		if _, err := ParseLimitKind(name); err != nil {
			return err
		}
	}
	if errs := c.Limits().validate(); len(errs) > 0 {
		return errs[0]
	}
	return nil
}

// Scope says whose budget a limit is of (LIM7).
type Scope uint8

// The scopes, from the narrowest to the widest.
const (
	OfUser Scope = iota // the zero value: what was counted before there were others
	OfIdentity
	OfAccount
	OfPlan
	OfNetwork
	Scopes
)

// String returns the scope's name.
func (s Scope) String() string {
	if s >= Scopes {
		return "?"
	}
	return [...]string{"user", "identity", "account", "plan", "network"}[s]
}

// Budget bounds what all users of an account, of a plan, or of the network send together.
type Budget struct {
	Scope  Scope
	ID     uint32 // of the account or plan; 0 of the network
	Name   string
	Limits *Limits
}

// Budgets are those that one user shares, the narrowest first.
type Budgets []*Budget
