package policy

import (
	"reflect"
	"time"
)

// Full returns overrides that say everything that s says: it is Apply the other way round.
func Full(s *Settings) Overrides {
	l, wait := &s.Lock, int(s.Content.Wait/time.Second)
	o := Overrides{
		Delivery: &s.Delivery, Limits: fullLimits(s.Limits), PerIdentity: fullLimits(s.PerIdentity), RecipientsPerMail: &s.RecipientsPerMail,
		MessageSize: &s.MessageSize, SessionsPerSource: &s.SessionsPerSource, SessionsPerPair: &s.SessionsPerPair,
		StartTLS: &s.StartTLS, StartTLSWhy: &s.StartTLSWhy, KeepWithheld: &s.KeepWithheld, KeepDeferred: &s.KeepDeferred,
		Onward: &s.Onward, RefuseAuth: &s.RefuseAuth, BlockSpam: &s.Content.BlockSpam, Unsure: &s.Content.Unsure, Spam: &s.Content.Spam, Failure: &s.Content.Failure, OnSpam: &s.Content.OnSpam, OnUnsure: &s.Content.OnUnsure, Wait: &wait,
		LockAutomatic: &l.Automatic, LockNever: &l.Never, LockSpamCount: &l.SpamCount, LockSpamShare: &l.SpamShare, LockMaxUnlocks: &l.MaxUnlocks,
		LockExplained: &l.Explained, LockKeepPassed: &l.KeepPassed, LockDayCount: &l.DayCount, LockDayShare: &l.DayShare, LockAverageCount: &l.AverageCount, LockAverage: &l.Average, LockViruses: &l.Viruses,
		LockPhish: &l.Phish, LockTraps: &l.Traps, LockComplaints: &l.Complaints, LockRemoteSpam: &l.RemoteSpam, LockUnknown: &l.Unknown,
		LockUnknownShare: &l.UnknownShare, LockGuesses: &l.Guesses, LockForwardedShare: &l.ForwardedShare, LockOrigins: &l.Origins,
		LockThrottled: &l.Throttled, LockProbationRate: &l.ProbationRate, LockScoreSlow: &l.ScoreSlow, LockScoreHeld: &l.ScoreHeld, LockScoreAlarm: &l.ScoreAlarm, LockByLink: &l.ByLink, Language: &s.Language,
		LockWindowMinutes: minutesOf(l.Window), LockMinutes: minutesOf(l.Time), LockProbationMinutes: minutesOf(l.Probation),
		RequireDomain: &s.Sender.RequireDomain, Domains: s.Sender.Domains, Mailbox: &s.Sender.Mailbox, Mailboxes: s.Sender.Mailboxes, LearnUntil: &s.Sender.LearnUntil, Valid: &s.Sender.Valid, DeferUnknown: &s.Sender.DeferUnknown,
		RefuseNull: &s.Sender.RefuseNull, DMARC: &s.Sender.DMARC, Hello: &s.Sender.Hello, Identify: s.Identify,
		DKIM: &s.Signing.DKIM, Selector: &s.Signing.Selector,
	}
	if o.Domains == nil {
		o.Domains = &Domains{}
	}
	if o.Mailboxes == nil {
		o.Mailboxes = &Mailboxes{}
	}
	if o.Identify == nil {
		o.Identify = &Identify{}
	}
	return o
}

func minutesOf(d time.Duration) *int {
	n := int(d / time.Minute)
	return &n
}

func fullLimits(l *Limits) *LimitChanges {
	c := LimitChanges{}
	if l == nil {
		l = &Limits{}
	}
	for k := range LimitKinds {
		c[k.String()] = LimitChange{Max: &l.Max[k], Action: &l.Action[k], Shadow: &l.Shadow[k], Text: &l.Text[k]}
	}
	return &c
}

// Beside returns what o says otherwise than base does, both being full.
func (o *Overrides) Beside(base *Overrides) Overrides {
	out := *o
	v, b := reflect.ValueOf(&out).Elem(), reflect.ValueOf(base).Elem()
	for i := range v.NumField() {
		if reflect.DeepEqual(v.Field(i).Interface(), b.Field(i).Interface()) {
			v.Field(i).SetZero()
		}
	}
	out.Limits, out.PerIdentity = out.Limits.beside(base.Limits), out.PerIdentity.beside(base.PerIdentity)
	return out
}

func (c *LimitChanges) beside(base *LimitChanges) *LimitChanges {
	if c == nil || base == nil {
		return c
	}
	out := LimitChanges{}
	for name, ch := range *c {
		if !reflect.DeepEqual(ch, (*base)[name]) {
			out[name] = ch
		}
	}
	if len(out) == 0 {
		return nil
	}
	return &out
}
