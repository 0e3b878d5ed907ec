package policy

import (
	"fmt"
	"time"
)

// Overrides are the settings that a user does not inherit. A nil field inherits.
type Overrides struct {
	Delivery          *Delivery `json:"delivery,omitempty"` // "managed", "own" or "auto"
	MessagesPerHour   *int      `json:"messages_per_hour,omitempty"`
	RecipientsPerHour *int      `json:"recipients_per_hour,omitempty"`
	RecipientsPerMail *int      `json:"recipients_per_mail,omitempty"`
	MessageSize       *int64    `json:"message_size,omitempty"` // bytes
	SessionsPerSource *int      `json:"sessions_per_source,omitempty"`
	SessionsPerPair   *int      `json:"sessions_per_pair,omitempty"`
	StartTLS          *StartTLS `json:"starttls,omitempty"` // "terminate", "pass" or "strip"
	StartTLSWhy       *string   `json:"starttls_reason,omitempty"`
	KeepWithheld      *bool     `json:"keep_withheld,omitempty"`
	KeepDeferred      *bool     `json:"keep_deferred,omitempty"`
	LockAutomatic     *bool     `json:"lock_automatic,omitempty"`
	LockSpamCount     *int      `json:"lock_spam_count,omitempty"`
	LockSpamShare     *float64  `json:"lock_spam_share,omitempty"`     // 0 to 1
	LockWindowMinutes *int      `json:"lock_window_minutes,omitempty"` // sliding
	LockMinutes       *int      `json:"lock_minutes,omitempty"`
	LockMaxUnlocks    *int      `json:"lock_max_unlocks,omitempty"`
	LockExplained     *int      `json:"lock_explained,omitempty"` // connections per minute
	LockKeepPassed    *bool     `json:"lock_keep_passed,omitempty"`
	Identify          *Identify `json:"identity,omitempty"`
	LockNever         *bool     `json:"lock_never,omitempty"`

	// Limits beat messages_per_hour and recipients_per_hour above.
	Limits      *LimitChanges `json:"limits,omitempty"`
	PerIdentity *LimitChanges `json:"limits_per_identity,omitempty"`

	Onward     *OnwardTLS     `json:"onward_tls,omitempty"` // "opportunistic", "required" or "verified"
	RefuseAuth *bool          `json:"refuse_auth,omitempty"`
	BlockSpam  *bool          `json:"block_spam,omitempty"`
	Unsure     *float64       `json:"content_unsure,omitempty"`  // 0 to 1
	Spam       *float64       `json:"content_spam,omitempty"`    // 0 to 1
	Failure    *Failure       `json:"content_failure,omitempty"` // as in the configuration
	OnSpam     *ContentAction `json:"content_on_spam,omitempty"` // "deliver", "tag", "delay", "high-risk", "quarantine", "reject" or "discard"
	OnUnsure   *ContentAction `json:"content_on_unsure,omitempty"`
	Wait       *int           `json:"content_wait_seconds,omitempty"`

	RequireDomain *bool         `json:"require_from_domain,omitempty"`
	Domains       *Domains      `json:"from_domains,omitempty"`
	Mailbox       *MailboxRule  `json:"require_from_mailbox,omitempty"` // "off", "listed" or "found"
	Mailboxes     *Mailboxes    `json:"from_mailboxes,omitempty"`
	LearnUntil    *Day          `json:"from_mailboxes_learnt_until,omitempty"` // like 2027-01-31
	Valid         *bool         `json:"valid_sender_required,omitempty"`
	DeferUnknown  *bool         `json:"valid_sender_defer,omitempty"` // where the DNS does not answer
	RefuseNull    *bool         `json:"refuse_null_sender,omitempty"`
	DMARC         *DMARCOutcome `json:"dmarc_prediction,omitempty"` // "off", "log" or "refuse"
	Hello         *bool         `json:"helo_checks,omitempty"`

	DKIM     *DKIM   `json:"dkim,omitempty"`          // "off", "unsigned" or "always"
	Selector *string `json:"dkim_selector,omitempty"` // "": each domain's current keys

	LockDayCount         *int     `json:"lock_day_count,omitempty"`
	LockDayShare         *float64 `json:"lock_day_share,omitempty"` // 0 to 1
	LockAverageCount     *int     `json:"lock_average_count,omitempty"`
	LockAverage          *float64 `json:"lock_average_score,omitempty"` // 0 to 1
	LockViruses          *int     `json:"lock_viruses,omitempty"`
	LockPhish            *int     `json:"lock_phish,omitempty"`
	LockTraps            *int     `json:"lock_traps,omitempty"`
	LockComplaints       *int     `json:"lock_complaints,omitempty"`
	LockRemoteSpam       *int     `json:"lock_remote_spam,omitempty"`
	LockUnknown          *int     `json:"lock_unknown_recipients,omitempty"`
	LockUnknownShare     *float64 `json:"lock_unknown_share,omitempty"` // 0 to 1
	LockGuesses          *int     `json:"lock_guesses,omitempty"`
	LockForwardedShare   *float64 `json:"lock_forwarded_share,omitempty"` // 0 to 1
	LockOrigins          *int     `json:"lock_identities,omitempty"`
	LockThrottled        *int     `json:"lock_throttled,omitempty"`
	LockProbationMinutes *int     `json:"lock_probation_minutes,omitempty"`
	LockProbationRate    *int     `json:"lock_probation_per_hour,omitempty"`
	LockScoreSlow        *int     `json:"lock_score_slow,omitempty"`
	LockScoreHeld        *int     `json:"lock_score_held,omitempty"`
	LockScoreAlarm       *int     `json:"lock_score_alarm,omitempty"`
	LockByLink           *int     `json:"lock_unlocks_by_link,omitempty"`

	Language *string `json:"language,omitempty"` // of notices
}

// Apply returns s with the overrides in place of what they name.
func (o *Overrides) Apply(s Settings) Settings {
	set(&s.Delivery, o.Delivery)
	if o.MessagesPerHour != nil || o.RecipientsPerHour != nil {
		l := Limits{}
		if s.Limits != nil {
			l = *s.Limits
		}
		setMax(&l, MessagesHour, o.MessagesPerHour)
		setMax(&l, RecipientsHour, o.RecipientsPerHour)
		s.Limits = &l
	}
	s.Limits, s.PerIdentity = o.Limits.apply(s.Limits), o.PerIdentity.apply(s.PerIdentity)
	set(&s.RecipientsPerMail, o.RecipientsPerMail)
	set(&s.MessageSize, o.MessageSize)
	set(&s.SessionsPerSource, o.SessionsPerSource)
	set(&s.SessionsPerPair, o.SessionsPerPair)
	set(&s.StartTLS, o.StartTLS)
	set(&s.StartTLSWhy, o.StartTLSWhy)
	set(&s.KeepWithheld, o.KeepWithheld)
	set(&s.KeepDeferred, o.KeepDeferred)
	set(&s.Lock.Automatic, o.LockAutomatic)
	set(&s.Lock.SpamCount, o.LockSpamCount)
	set(&s.Lock.SpamShare, o.LockSpamShare)
	setMinutes(&s.Lock.Window, o.LockWindowMinutes)
	setMinutes(&s.Lock.Time, o.LockMinutes)
	set(&s.Lock.MaxUnlocks, o.LockMaxUnlocks)
	set(&s.Lock.Explained, o.LockExplained)
	set(&s.Lock.KeepPassed, o.LockKeepPassed)
	set(&s.Onward, o.Onward)
	set(&s.RefuseAuth, o.RefuseAuth)
	set(&s.Content.BlockSpam, o.BlockSpam)
	set(&s.Content.Unsure, o.Unsure)
	set(&s.Content.Spam, o.Spam)
	set(&s.Content.Failure, o.Failure)
	set(&s.Content.OnSpam, o.OnSpam)
	set(&s.Content.OnUnsure, o.OnUnsure)
	if o.Wait != nil {
		s.Content.Wait = time.Duration(*o.Wait) * time.Second
	}
	if o.Identify != nil {
		s.Identify = o.Identify
	}
	set(&s.Sender.RequireDomain, o.RequireDomain)
	if o.Domains != nil {
		s.Sender.Domains = o.Domains
	}
	set(&s.Sender.Mailbox, o.Mailbox)
	if o.Mailboxes != nil {
		s.Sender.Mailboxes = o.Mailboxes
	}
	set(&s.Sender.LearnUntil, o.LearnUntil)
	set(&s.Sender.Valid, o.Valid)
	set(&s.Sender.DeferUnknown, o.DeferUnknown)
	set(&s.Sender.RefuseNull, o.RefuseNull)
	set(&s.Sender.DMARC, o.DMARC)
	set(&s.Sender.Hello, o.Hello)
	set(&s.Signing.DKIM, o.DKIM)
	set(&s.Signing.Selector, o.Selector)
	set(&s.Language, o.Language)
	o.applyRules(&s.Lock)
	return s
}

// applyRules does so with the rules of locks.
func (o *Overrides) applyRules(l *Lock) {
	set(&l.Never, o.LockNever)
	set(&l.DayCount, o.LockDayCount)
	set(&l.DayShare, o.LockDayShare)
	set(&l.AverageCount, o.LockAverageCount)
	set(&l.Average, o.LockAverage)
	set(&l.Viruses, o.LockViruses)
	set(&l.Phish, o.LockPhish)
	set(&l.Traps, o.LockTraps)
	set(&l.Complaints, o.LockComplaints)
	set(&l.RemoteSpam, o.LockRemoteSpam)
	set(&l.Unknown, o.LockUnknown)
	set(&l.UnknownShare, o.LockUnknownShare)
	set(&l.Guesses, o.LockGuesses)
	set(&l.ForwardedShare, o.LockForwardedShare)
	set(&l.Origins, o.LockOrigins)
	set(&l.Throttled, o.LockThrottled)
	setMinutes(&l.Probation, o.LockProbationMinutes)
	set(&l.ProbationRate, o.LockProbationRate)
	set(&l.ScoreSlow, o.LockScoreSlow)
	set(&l.ScoreHeld, o.LockScoreHeld)
	set(&l.ScoreAlarm, o.LockScoreAlarm)
	set(&l.ByLink, o.LockByLink)
}

// Validate reports every override that is out of its bounds, by name.
func (o *Overrides) Validate() error {
	for _, m := range []*int{o.LockWindowMinutes, o.LockMinutes, o.LockProbationMinutes} {
		// Beyond these the multiplication to a duration could wrap round into the allowed range.
		if m != nil && (*m < 0 || *m > int(MaxProbation/time.Minute)) {
			return fmt.Errorf("%d minutes are not between 0 and %d", *m, int(MaxProbation/time.Minute))
		}
	}
	if w := o.Wait; w != nil && (*w < 0 || *w > int(day/time.Second)) {
		return fmt.Errorf("content_wait_seconds is %d, want 0 to %d", *w, int(day/time.Second))
	}
	for _, c := range []*LimitChanges{o.Limits, o.PerIdentity} {
		if c != nil {
			if err := c.Validate(); err != nil {
				return err
			}
		}
	}
	if o.PerIdentity != nil {
		if n := (*o.PerIdentity)[QueuedMessages.String()].Max; n != nil && *n != 0 {
			return fmt.Errorf("%s is of users, not of their identities; set it without %q", QueuedMessages, perIdentity)
		}
	}
	s := o.Apply(Default())
	return s.Validate()
}

func set[T any](dst, v *T) {
	if v != nil {
		*dst = *v
	}
}

func setMax(l *Limits, k LimitKind, v *int) {
	if v != nil {
		l.Max[k] = int64(*v)
	}
}

func setMinutes(dst *time.Duration, m *int) {
	if m != nil {
		*dst = time.Duration(*m) * time.Minute
	}
}

// ParseDelivery reads the setting's name in configuration and API.
func ParseDelivery(name string) (Delivery, error) {
	switch name {
	case "managed":
		return Managed, nil
	case "own":
		return Own, nil
	case "auto":
		return Auto, nil
	}
	return 0, fmt.Errorf("delivery %q is unknown; use managed, own or auto", name)
}

// MarshalText returns the setting's name.
func (d Delivery) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads the setting's name.
func (d *Delivery) UnmarshalText(text []byte) error {
	v, err := ParseDelivery(string(text))
	if err == nil {
		*d = v
	}
	return err
}
