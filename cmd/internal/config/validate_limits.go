package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// LimitNames are the keys of [limits] that may refuse, lock, be only reported, and have texts.
func LimitNames() (names []string) {
	for _, f := range schema(reflect.TypeFor[Limits]()) {
		if strings.Contains(f.name, "_per_") && f.name != "recipients_per_message" && !strings.HasPrefix(f.name, "sessions_") && f.name != "connections_per_second" ||
			f.name == "invalid_recipients_percent" || f.name == "queued_messages" {
			names = append(names, f.name)
		}
	}
	return names
}

func (v *validator) limits(c *Config) {
	v.limitsOf("limits", &c.Limits)
	for i := range c.User {
		v.limitsOf(fmt.Sprintf("user[%d].limits", i), &c.User[i].Limits)
	}
}

func (v *validator) limitsOf(key string, l *Limits) {
	known := LimitNames()
	check := func(list, name string) {
		if !slices.Contains(known, name) {
			v.report(key+"."+list, fmt.Sprintf("%q is not a limit", name), "known are "+strings.Join(known, ", "))
		}
	}
	for list, names := range map[string][]string{"reject": l.Reject, "lock": l.Lock, "shadow": l.Shadow} {
		for _, n := range names {
			check(list, n)
		}
	}
	for _, n := range l.Reject {
		if slices.Contains(l.Lock, n) {
			v.report(key+".lock", n+" stands in reject, too", "a limit either refuses for good, or locks and refuses for a time")
		}
	}
	for _, t := range l.Texts {
		name, text, ok := strings.Cut(t, ":")
		if check("texts", name); !ok || strings.TrimSpace(text) == "" {
			v.report(key+".texts", fmt.Sprintf("%q has no text", t), `write it like "messages_per_day: your plan allows 500 messages a day"`)
		}
		v.oneLine(key+".texts", strings.TrimSpace(text))
	}
}
