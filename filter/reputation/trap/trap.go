// Package trap knows addresses that nobody has: whoever writes to one has them from where spammers find addresses.
package trap

import (
	"context"
	"strings"
	"sync/atomic"

	"sluice/filter"
	"sluice/filter/message"
)

// Phases are the phases at which the check is asked. It waits for the message, so that the filter can learn it.
var Phases = []filter.Phase{filter.Data, filter.Part}

// Code is the public code of what is refused.
const Code = "TRAP"

// Traps is the check. Safe for concurrent use.
type Traps struct {
	list  atomic.Pointer[map[string]bool]
	teach func(m *message.Message)
}

// New returns the check without traps; teach hears of each message that ran into one, and must neither block nor keep it.
func New(teach func(m *message.Message)) *Traps { return &Traps{teach: teach} }

// Configure puts traps in force: addresses ("old.box@trap.example") and domains ("trap.example"), whatever their case.
func (t *Traps) Configure(all []string) {
	if len(all) == 0 {
		t.list.Store(nil)
		return
	}
	list := make(map[string]bool, len(all))
	for _, a := range all {
		list[strings.ToLower(strings.TrimPrefix(a, "@"))] = true
	}
	t.list.Store(&list)
}

// Check implements filter.Check in phases data and part.
func (t *Traps) Check(_ context.Context, p filter.Phase, m *message.Message, hits []filter.Hit) []filter.Hit {
	list := t.list.Load()
	if list == nil || p < filter.Data {
		return hits
	}
	for _, to := range m.Envelope.To {
		if !known(*list, string(to)) {
			continue
		}
		if p == filter.Data && len(m.Data) > 0 {
			t.teach(m)
		}
		return append(hits, filter.Hit{Code: Code, Class: filter.Spam, Action: filter.Reject, Points: 1, SMTP: 550, Enhanced: "5.7.1",
			Text: "message goes to an address that nobody has", Evidence: "recipient " + string(to)})
	}
	return hits
}

func known(list map[string]bool, to string) bool {
	to = strings.ToLower(to)
	return list[to] || list[to[strings.LastIndexByte(to, '@')+1:]]
}
