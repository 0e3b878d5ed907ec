package main

import (
	"fmt"

	"sluice/cmd/internal/api"
)

// story tells everything that is known of a message, a flow or a lock.
func (s *screen) story(t *api.Story) {
	gap := ""
	next := func() {
		fmt.Fprint(s.out, gap)
		gap = "\n"
	}
	for i := range t.Locks {
		next()
		s.lock(&t.Locks[i])
	}
	for _, m := range t.Messages {
		next()
		s.message(m)
	}
	if len(t.Codes) > 0 {
		next()
	}
	for _, c := range t.Codes {
		s.say("%s: %s", c.Code, plain(c.Title))
		if c.URL != "" {
			s.say("  %s", c.URL)
		}
	}
	for i := range t.Held {
		next()
		s.held(&api.HeldDetail{HeldMail: t.Held[i]})
	}
	for i := range t.Queued {
		next()
		s.queued(&t.Queued[i])
	}
	for i := range t.Appeals {
		next()
		s.appeal(&t.Appeals[i])
	}
	if len(t.Acts) > 0 {
		next()
	}
	for _, a := range t.Acts {
		s.say("%s  %s by %s: %s", s.at(a.At), plain(a.What), plain(a.Who), plain(a.Detail))
	}
}
