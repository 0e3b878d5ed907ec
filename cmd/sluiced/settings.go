package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sluice/cmd/internal/config"
	"sluice/filter/policy"
	"sluice/filter/sign"
	"sluice/proxy/durable"
	"sluice/proxy/relay"
)

// userSettings turns configured settings into those of the policy.
func userSettings(delivery, auth, onward string, l *config.Limits, k *config.Lock, c config.UserContent) policy.Settings {
	s := policy.Settings{
		Limits:            limitsOf(l),
		RecipientsPerMail: l.RecipientsPerMessage,
		MessageSize:       int64(l.MessageSize),
		SessionsPerSource: l.SessionsPerSource,
		SessionsPerPair:   l.SessionsPerPair,
		PerSecond:         int(l.ConnectionsPerSecond),
		Content:           policy.Content{BlockSpam: c.BlockSpam, Unsure: c.Unsure, Spam: c.Spam, Wait: c.Wait.D()},
		Lock: policy.Lock{
			Automatic:  k.Automatic,
			SpamCount:  k.SpamCount,
			SpamShare:  k.SpamShare,
			Window:     k.Window.D(),
			Time:       k.Time.D(),
			MaxUnlocks: k.MaxUnlocks,
			Explained:  k.Explained,
			KeepPassed: k.KeepPassed,
			Never:      k.Never,
			DayCount:   k.DayCount, DayShare: k.DayShare,
			AverageCount: k.AverageCount, Average: k.Average,
			Viruses: k.Viruses, Phish: k.Phish, Traps: k.Traps, Complaints: k.Complaints, RemoteSpam: k.RemoteSpam,
			Unknown: k.Unknown, UnknownShare: k.UnknownShare, Guesses: k.Guesses, ForwardedShare: k.ForwardedShare, Origins: k.Identities,
			Throttled: k.Throttled, Probation: k.Probation.D(), ProbationRate: k.ProbationPerHour,
			ScoreSlow: k.ScoreSlow, ScoreHeld: k.ScoreHeld, ScoreAlarm: k.ScoreAlarm, ByLink: k.ByLink,
		},
	}
	s.Content.OnSpam, _ = policy.ParseContentAction(c.OnSpam)
	s.Content.OnUnsure, _ = policy.ParseContentAction(c.OnUnsure)
	s.Onward, _ = policy.ParseOnwardTLS(onward) // the configuration allows no other names
	s.Content.Failure, _ = policy.ParseFailure(c.Failure)
	s.RefuseAuth = auth == "refuse"
	s.Delivery, _ = policy.ParseDelivery(delivery)
	return s
}

// withTLS adds what becomes of STARTTLS; the configuration has checked the name.
func withTLS(s policy.Settings, how, why string) policy.Settings {
	s.StartTLS, _ = policy.ParseStartTLS(how)
	s.StartTLSWhy = why
	return s
}

// withIdentity adds how identities are told; the configuration has checked the rules.
func withIdentity(s policy.Settings, c *config.Identity) policy.Settings {
	s.PerIdentity = identityLimits(c)
	id := policy.Identify{Hosts: c.Hosts, Remove: c.Remove}
	if id.Method.UnmarshalText([]byte(c.Method)) != nil || id.Method == policy.ByNothing {
		return s
	}
	for _, h := range c.Headers {
		var r policy.HeaderRule
		if r.UnmarshalText([]byte(h)) == nil {
			id.Headers = append(id.Headers, r)
		}
	}
	s.Identify = &id
	return s
}

// withSender adds who may be the sender; the configuration has checked the names.
func withSender(s policy.Settings, c *config.Sender) policy.Settings {
	s.Sender = policy.Sender{RequireDomain: c.RequireDomain, Valid: c.Valid, DeferUnknown: c.Defer, RefuseNull: c.RefuseNull, Hello: c.Hello}
	_ = s.Sender.DMARC.UnmarshalText([]byte(c.DMARC))
	_ = s.Signing.DKIM.UnmarshalText([]byte(c.DKIM))
	s.Signing.Selector = c.DKIMSelector
	_, _ = s.Sender.Mailbox.UnmarshalText([]byte(c.Mailbox)), s.Sender.LearnUntil.UnmarshalText([]byte(c.Learn))
	if all, err := policy.ParseMailboxes(strings.Join(c.Mailboxes, " ")); err == nil && len(all) > 0 {
		s.Sender.Mailboxes = &all
	}
	if all, err := policy.ParseDomains(strings.Join(c.Domains, " ")); err == nil && len(all) > 0 {
		s.Sender.Domains = &all
	}
	return s
}

// withKeeping adds what is kept for its sender.
func withKeeping(s policy.Settings, withheld, deferred string) policy.Settings {
	s.KeepWithheld, s.KeepDeferred = withheld == "spool", deferred == "spool"
	return s
}

// defaultSettings are those that users inherit.
func defaultSettings(cfg *config.Config) policy.Settings {
	s := userSettings(cfg.Delivery.Mode, cfg.Delivery.Auth, cfg.Delivery.TLS, &cfg.Limits, &cfg.Lock, contentOfAll(&cfg.Content))
	s = withSender(withIdentity(withTLS(s, cfg.TLS.StartTLS, cfg.TLS.StartTLSReason), &cfg.Identity), &cfg.Sender)
	s.Language = cfg.Notice.Language
	return withKeeping(s, cfg.Delivery.Withheld, cfg.Delivery.Deferred)
}

func onwardTimeouts(d *config.Delivery) relay.Timeouts {
	return relay.Timeouts{Connect: d.ConnectTimeout.D(), Command: d.CommandTimeout.D(), Final: d.AnswerTimeout.D()}
}

// maxSize is the largest message that any user may send: what the proxy reads at all.
func maxSize(c *config.Config) int64 {
	most := c.Limits.MessageSize
	for i := range c.User {
		most = max(most, c.User[i].Limits.MessageSize)
	}
	return int64(most)
}

// tracer reads the trace key of this gateway, and makes it at the first start.
func tracer(dir string) (*sign.Tracer, error) {
	path := filepath.Join(dir, "trace.key")
	key, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key = make([]byte, sign.KeySize)
		_, _ = rand.Read(key) // never fails
		err = durable.WriteFile(path, key, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("could not keep the trace key: %w", err)
	}
	return sign.NewTracer(key)
}

// contentOfAll are the settings of the content filter that users inherit.
func contentOfAll(c *config.Content) config.UserContent {
	return config.UserContent{BlockSpam: c.BlockSpam, Unsure: c.Unsure, Spam: c.Spam, OnSpam: c.OnSpam, OnUnsure: c.OnUnsure, Wait: c.Wait, Failure: c.Failure}
}
