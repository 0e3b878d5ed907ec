package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"sluice/cmd/internal/config"
	"sluice/proxy/delivery"
	"sluice/proxy/smtp"
	"sluice/proxy/tlspolicy"
)

// queueSettings are those of the queue that a reload replaces.
func queueSettings(c *config.Spool) delivery.Settings {
	s := delivery.Settings{
		Schedule: delivery.Schedule{First: c.FirstRetry.D(), Until: c.GiveUp.D(), Delayed: c.Delayed.D()},
		IPv4:     c.Prefer == "ipv4", AtOnce: c.Sessions, Bounds: delivery.Bounds{PerSite: c.PerSite, PerWay: c.PerSession, PerHour: c.PerHour},
	}
	for _, one := range c.Site {
		s.Sites = append(s.Sites, delivery.Site{
			Name: one.Name, Domains: one.Domains, Exchangers: one.Exchangers,
			Bounds: delivery.Bounds{PerSite: one.PerSite, PerWay: one.PerSession, PerHour: one.PerHour},
		})
	}
	return s
}

// configure puts other settings in force, with relays that were read before.
func (m *mailQueue) configure(c *config.Spool, relays []upstream) {
	m.relay.Store(&relays)
	m.queue.Configure(queueSettings(c))
}

// upstream is a configured relay.
type upstream struct {
	config.Relay
	delivery.Upstream
}

// upstream chooses a relay.
func (m *mailQueue) upstream(user uint32, sender, domain string) *delivery.Upstream {
	relays := *m.relay.Load()
	for i := range relays {
		r := &relays[i]
		if len(r.Users) > 0 {
			u := m.d.roster.Load().user(user)
			if u == nil || !slices.Contains(r.Users, u.Name) {
				continue
			}
		}
		if (len(r.Senders) == 0 || smtp.HasFold(r.Senders, sender)) && (len(r.Domains) == 0 || smtp.HasFold(r.Domains, domain)) {
			return &r.Upstream
		}
	}
	return nil
}

func upstreams(all []config.Relay) (out []upstream, err error) {
	for _, r := range all {
		u := upstream{Relay: r, Upstream: delivery.Upstream{Host: r.Host, Port: r.Port, User: r.Login}}
		if r.Login != "" {
			text, err := os.ReadFile(r.PasswordFile)
			if err != nil {
				return nil, fmt.Errorf("could not read the password for the relay %s: %w; name a file that this user can read in password_file", r.Host, err)
			}
			line, _, _ := strings.Cut(string(text), "\n")
			u.Password = strings.TrimRight(line, "\r")
		}
		switch r.TLS {
		case "required":
			u.Policy = required
		case "verified":
			u.Policy = &tlspolicy.Policy{Level: tlspolicy.Verify, Source: tlspolicy.Setting, Names: []string{strings.ToLower(r.Host)}, SNI: strings.ToLower(r.Host), Why: "spool.relay"}
		}
		out = append(out, u)
	}
	return out, nil
}
