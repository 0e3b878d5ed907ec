package main

import (
	"fmt"
	"strings"

	"sluice/cmd/internal/api"
)

// opinions tells how those are that are asked about messages; nothing where nobody is.
func (s *screen) opinions(st *api.Status) {
	for i := range st.Plugins {
		p := &st.Plugins[i]
		var states []string
		for _, in := range p.Instances {
			states = append(states, in.Address+" "+s.health(in.State, in.Error))
		}
		text := fmt.Sprintf("%s, %s asked about, %d objected to", strings.Join(states, ", "), count(int(p.Asked), "message", "messages"), p.Objected)
		if p.Micros > 0 {
			text += fmt.Sprintf(", %.1f ms each", float64(p.Micros)/1000)
		}
		if p.Failed > 0 {
			text += ", " + s.paint(yellow, fmt.Sprintf("%d without its opinion, %d of them put off", p.Failed, p.Deferred))
		}
		if p.Unseen > 0 {
			text += fmt.Sprintf(", %d too large", p.Unseen)
		}
		s.say("plug-in %s (%s): %s", plain(p.Name), p.Kind, text)
	}
	for i := range st.DNSLists {
		l := &st.DNSLists[i]
		s.say("list %s (%s, %s): %s, %s, %d listed, %d refused", plain(l.Name), l.Zone, l.Of, s.health(l.State, l.Error), count(int(l.Asked), "question", "questions"), l.Listed, l.Refused)
	}
}

// health paints the state of somebody who is asked.
func (s *screen) health(state, why string) string {
	switch state {
	case "alive", "good":
		return s.paint(green, state)
	case "failing":
		return s.paint(yellow, state+": "+plain(why))
	case "dead", "out":
		return s.paint(red, state+": "+plain(why))
	}
	return state
}
