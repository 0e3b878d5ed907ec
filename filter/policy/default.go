package policy

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Default returns the settings of a user for whom nothing else is said.
func Default() Settings {
	return Settings{
		Delivery:          Managed,
		Limits:            DefaultLimits(),
		RecipientsPerMail: 1000,
		MessageSize:       50 << 20,
		SessionsPerSource: 100,
		SessionsPerPair:   20,
		PerSecond:         100,
		Lock: Lock{
			SpamCount:  5,
			SpamShare:  0.20,
			Window:     10 * time.Minute,
			Time:       time.Hour,
			MaxUnlocks: 3,
			Explained:  10,

			DayCount:       20,
			DayShare:       0.05,
			AverageCount:   5,
			Average:        0.6,
			Viruses:        1,
			Phish:          2,
			Traps:          1,
			Complaints:     3,
			RemoteSpam:     10,
			Unknown:        50,
			UnknownShare:   0.30,
			Guesses:        30,
			ForwardedShare: 0.60,
			Origins:        3,

			Throttled:     20,
			Probation:     24 * time.Hour,
			ProbationRate: 100,
			ScoreSlow:     15,
			ScoreHeld:     55,
			ScoreAlarm:    80,
			ByLink:        3,
		},
		Sender:  Sender{Hello: true},
		Content: Content{BlockSpam: true, Unsure: 0.80, Spam: 0.98, OnSpam: RefuseMail, OnUnsure: DeliverMail, Wait: 10 * time.Minute},
	}
}

// Bounds of settings. A lock above a week outlives every queue that holds the mail it deferred (LCK2).
const (
	MaxLockTime   = 7 * 24 * time.Hour
	MaxLockWindow = 24 * time.Hour
	MaxUnlocks    = 100
	MaxSpamCount  = 1000
	MaxOrigins    = 8
	MaxProbation  = 30 * 24 * time.Hour
)

// Validate reports every setting that is out of its bounds, by name.
func (s *Settings) Validate() error {
	var errs []error
	atLeast := func(name string, v, least int64) {
		if v < least {
			errs = append(errs, fmt.Errorf("%s is %d, want at least %d", name, v, least))
		}
	}
	for _, l := range []*Limits{s.Limits, s.PerIdentity} {
		if l != nil {
			errs = append(errs, l.validate()...)
		}
	}
	atLeast("recipients_per_mail", int64(s.RecipientsPerMail), 0)
	atLeast("message_size", s.MessageSize, 0)
	atLeast("sessions_per_source", int64(s.SessionsPerSource), 0)
	atLeast("sessions_per_pair", int64(s.SessionsPerPair), 0)
	if s.Delivery > Auto {
		errs = append(errs, fmt.Errorf("delivery is %d, want managed, own or auto", s.Delivery))
	}
	if s.StartTLS > Strip {
		errs = append(errs, fmt.Errorf("starttls is %d, want terminate, pass or strip", s.StartTLS))
	}
	if c := s.Content; !(c.Unsure > 0 && c.Unsure <= c.Spam && c.Spam <= 1) { // also refuses NaN
		errs = append(errs, fmt.Errorf("content unsure is %g and spam %g, want both above 0, unsure not above spam, spam at most 1", c.Unsure, c.Spam))
	}
	if s.Content.OnUnsure == DiscardMail {
		errs = append(errs, errors.New("content on_unsure is discard, which is for spam alone; use quarantine"))
	}
	if len(s.Language) > 8 || strings.ContainsFunc(s.Language, func(r rune) bool { return (r < 'a' || r > 'z') && r != '-' }) {
		errs = append(errs, fmt.Errorf("language is %q, want a name such as \"de\"", s.Language))
	}
	if s.Signing.Selector != "" {
		if err := CheckSelector(s.Signing.Selector); err != nil {
			errs = append(errs, err)
		}
	}
	if err := s.Identify.validate(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(append(errs, s.Lock.validate()...)...)
}

func (l *Lock) validate() []error {
	var errs []error
	between := func(name string, v, least, most int64, unit string) {
		if v < least || v > most {
			errs = append(errs, fmt.Errorf("%s is %d%s, want %d to %d%s", name, v, unit, least, most, unit))
		}
	}
	between("lock spam_count", int64(l.SpamCount), 1, MaxSpamCount, "")
	between("lock window", int64(l.Window/time.Second), 1, int64(MaxLockWindow/time.Second), " s")
	between("lock time", int64(l.Time/time.Second), 60, int64(MaxLockTime/time.Second), " s")
	between("lock max_unlocks", int64(l.MaxUnlocks), 1, MaxUnlocks, "")
	between("lock explained", int64(l.Explained), 0, 1<<16, "")
	for _, n := range []struct {
		name string
		v    int
	}{
		{"day_count", l.DayCount}, {"viruses", l.Viruses}, {"phish", l.Phish}, {"traps", l.Traps}, {"complaints", l.Complaints},
		{"remote_spam", l.RemoteSpam}, {"guesses", l.Guesses},
	} {
		between("lock "+n.name, int64(n.v), 0, MaxSpamCount, "")
	}
	between("lock unknown_recipients", int64(l.Unknown), 0, 1<<20, "")
	between("lock unlocks_by_link", int64(l.ByLink), 0, MaxUnlocks, "")
	between("lock origins", int64(l.Origins), 0, MaxOrigins, "")
	between("lock throttled", int64(l.Throttled), 0, 1<<20, "")
	between("lock probation", int64(l.Probation/time.Second), 0, int64(MaxProbation/time.Second), " s")
	between("lock probation_rate", int64(l.ProbationRate), 0, 1<<20, "")
	for _, n := range []struct {
		name string
		v    int
	}{{"score_slow", l.ScoreSlow}, {"score_held", l.ScoreHeld}, {"score_alarm", l.ScoreAlarm}} {
		between("lock "+n.name, int64(n.v), 0, 100, "")
	}
	for _, n := range []struct {
		name string
		v    float64
	}{{"spam_share", l.SpamShare}, {"day_share", l.DayShare}, {"average_score", l.Average}, {"unknown_share", l.UnknownShare}, {"forwarded_share", l.ForwardedShare}} {
		if !(n.v >= 0 && n.v <= 1) { // also refuses NaN
			errs = append(errs, fmt.Errorf("lock %s is %g, want 0 to 1", n.name, n.v))
		}
	}
	return errs
}
