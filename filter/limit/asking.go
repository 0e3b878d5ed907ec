package limit

import (
	"fmt"
	"time"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/filter/policy"
)

// asking is one question to Rate.
type asking struct {
	r    *Rate
	p    filter.Phase
	m    *message.Message
	h    *message.Reserved
	to   int // recipients to be covered
	hits []filter.Hit
	done bool // a limit refuses
}

// owner is whose limits are asked about.
type owner struct {
	scope policy.Scope
	id    uint32
	of    uint64 // of an identity
	name  string
}

// counted are the kinds that are reserved, with what they count.
var counted = [...]struct {
	kind policy.LimitKind
	what Quantity
}{
	{policy.MessagesMinute, Messages}, {policy.MessagesHour, Messages}, {policy.MessagesDay, Messages}, {policy.MessagesWeek, Messages}, {policy.MessagesMonth, Messages},
	{policy.RecipientsMinute, Recipients}, {policy.RecipientsHour, Recipients}, {policy.RecipientsDay, Recipients}, {policy.RecipientsWeek, Recipients}, {policy.RecipientsMonth, Recipients},
	{policy.BytesDay, Bytes}, {policy.DistinctDay, Distinct}, {policy.NullHour, Null},
}

// all asks about every limit that the message meets, the narrowest first, until one refuses.
func (a *asking) all(set *policy.Settings) {
	user := a.m.Flow.User.ID
	if set.PerIdentity != nil && a.m.Identity != "" {
		a.limits(set.PerIdentity, owner{policy.OfIdentity, user, hashOf(a.m.Identity), a.m.Identity})
	}
	if set.Limits != nil {
		a.limits(set.Limits, owner{scope: policy.OfUser, id: user})
	}
	if set.Budgets != nil {
		for _, b := range *set.Budgets {
			a.limits(b.Limits, owner{scope: b.Scope, id: b.ID, name: b.Name})
		}
	}
}

// limits asks about those of one owner.
func (a *asking) limits(l *policy.Limits, o owner) {
	if o.scope == policy.OfUser && a.p == filter.Rcpt && a.h.Messages == 0 {
		a.past(l, o)
	}
	if o.scope == policy.OfUser && a.p == filter.Rcpt {
		a.waits(l, o)
	}
	for i := range counted {
		c := &counted[i]
		limit := l.Max[c.kind]
		if a.done || limit == 0 {
			continue
		}
		if c.what == Distinct {
			a.recipient(l, c.kind, o)
			continue
		}
		a.reserve(l, c.kind, c.what, o)
	}
}

// reserve brings what is held of one count up to what the message needs. A recipient that was refused by another check or
// by the remote left its reservation behind; the next one uses it.
func (a *asking) reserve(l *policy.Limits, kind policy.LimitKind, what Quantity, o owner) {
	want := 1
	switch what {
	case Null:
		if a.m.Envelope.From != "" {
			return
		}
	case Recipients:
		want = a.to
	case Bytes:
		if want = int(max(a.m.Envelope.FromSize, a.m.DataSize)); want == 0 {
			return
		}
	}
	k := o.key(what, kind)
	have := a.holds(k)
	n := want - *have
	if n <= 0 {
		return
	}
	if l.Shadow[kind] {
		booked, reserved := a.r.counter.Count(k)
		if int64(booked+reserved+n) > l.Max[kind] {
			a.shadow(l, kind, what, o)
		}
		a.r.counter.Settle(k, -n, 0) // noted as under way, whatever the limit says
		*have += n
		return
	}
	wait, ok := a.r.counter.Reserve(k, n, int(l.Max[kind]))
	if !ok {
		a.refuse(l, kind, what, o, wait)
		return
	}
	*have += n
}

// recipient asks whether one more recipient is a new one.
func (a *asking) recipient(l *policy.Limits, kind policy.LimitKind, o owner) {
	k := o.key(Distinct, kind)
	have := a.holds(k)
	switch {
	case a.p == filter.Rcpt:
		a.unique(l, kind, o, k, have, a.m.Rcpt)
	case o.scope == policy.OfIdentity && *have == 0: // it became known with the data
		for _, to := range a.m.Envelope.To {
			if !a.done {
				a.unique(l, kind, o, k, have, to)
			}
		}
	}
}

func (a *asking) unique(l *policy.Limits, kind policy.LimitKind, o owner, k Key, have *int, to message.Address) {
	limit := int(l.Max[kind])
	if l.Shadow[kind] {
		limit = 1 << 40
	}
	wait, taken, ok := a.r.counter.ReserveNew(k, hashOf(string(to)), limit)
	switch {
	case !ok:
		a.refuse(l, kind, Distinct, o, wait)
	case taken:
		*have++
	}
	if l.Shadow[kind] && taken {
		if _, _, ok := a.r.counter.ReserveNew(k, 0, int(l.Max[kind])); !ok {
			a.shadow(l, kind, Distinct, o)
		} else {
			a.r.counter.SettleNew(k, 1, nil)
		}
	}
}

// past asks what became of earlier mail: recipients that do not exist, deliveries that failed (LIM3).
func (a *asking) past(l *policy.Limits, o owner) {
	invalid, failed := l.Max[policy.InvalidHour], l.Max[policy.FailedHour]
	share := l.Max[policy.InvalidShare]
	if invalid > 0 || share > 0 {
		n, _ := a.r.counter.Count(hourly(o.id, Invalid))
		if invalid > 0 && int64(n) >= invalid {
			a.against(l, policy.InvalidHour, Invalid, o)
		}
		if share > 0 && n >= policy.LeastInvalid {
			good, _ := a.r.counter.Count(hourly(o.id, Recipients))
			if int64(100*n) > share*int64(n+good) {
				a.against(l, policy.InvalidShare, Invalid, o)
			}
		}
	}
	if failed > 0 {
		if n, _ := a.r.counter.Count(hourly(o.id, Failed)); int64(n) >= failed {
			a.against(l, policy.FailedHour, Failed, o)
		}
	}
}

// against refuses, or reports, by what lies in the past.
func (a *asking) against(l *policy.Limits, kind policy.LimitKind, what Quantity, o owner) {
	if l.Shadow[kind] {
		a.shadow(l, kind, what, o)
		return
	}
	if !a.done {
		a.refuse(l, kind, what, o, kind.Window()/Slots)
	}
}

func (o *owner) key(what Quantity, kind policy.LimitKind) Key {
	return Key{User: o.id, What: what, Scope: o.scope, Of: o.of, Window: kind.Window()}
}

// holds returns where it is noted how much is reserved of a count.
func (a *asking) holds(k Key) *int {
	if k.Scope == policy.OfUser && k.Window == time.Hour {
		switch k.What {
		case Messages:
			return &a.h.Messages
		case Recipients:
			return &a.h.Recipients
		}
	}
	w := a.more()
	for i := range w.taken {
		if w.taken[i].key == k {
			return &w.taken[i].n
		}
	}
	w.taken = append(w.taken, taken{key: k})
	return &w.taken[len(w.taken)-1].n
}

func (a *asking) more() *more {
	w, ok := a.h.More.(*more)
	if !ok {
		w = &more{}
		a.h.More = w
	}
	return w
}

// refuse adds the hit of a limit that is met.
func (a *asking) refuse(l *policy.Limits, kind policy.LimitKind, what Quantity, o owner, wait time.Duration) {
	a.done = true
	h := a.hit(l, kind, what, o, wait)
	h.Action, h.SMTP, h.Enhanced = filter.Defer, 451, "4.7.1"
	if l.Action[kind] == policy.RejectOver {
		h.Action, h.SMTP, h.Enhanced = filter.Reject, 550, "5.7.1"
	}
	a.hits = append(a.hits, h)
	a.tell(l, kind, o, &h)
}

// shadow notes that a limit would have refused.
func (a *asking) shadow(l *policy.Limits, kind policy.LimitKind, what Quantity, o owner) {
	w := a.more()
	bit := uint32(1) << kind
	if w.told&bit != 0 {
		return
	}
	w.told |= bit
	h := a.hit(l, kind, what, o, 0)
	h.Class, h.Evidence = filter.Clean, "only reported: "+h.Evidence
	w.shadows = append(w.shadows, h)
	a.tell(l, kind, o, &h)
}

func (a *asking) hit(l *policy.Limits, kind policy.LimitKind, what Quantity, o owner, wait time.Duration) filter.Hit {
	h := filter.Hit{Check: "rate", Code: codes[what], Class: filter.Policy, Text: l.Text[kind]}
	if h.Text == "" {
		h.Text = fmt.Sprintf("%s has reached its limit of %d %s; try again in %s", o.said(), l.Max[kind], kind.Noun(), minutes(wait))
		if kind == policy.InvalidShare {
			h.Text = fmt.Sprintf("too many of this sender's recipients do not exist (limit %d %%); clean the list and try again in %s", l.Max[kind], minutes(wait))
		}
		if kind == policy.QueuedMessages {
			h.Text = fmt.Sprintf("as many messages of %s wait for delivery as may (%d); try again later", o.said(), l.Max[kind])
		}
	}
	h.Evidence = fmt.Sprintf("%s %d of the %s%s", kind, l.Max[kind], o.scope, o.named())
	return h
}

// tell tells whoever wants to hear of it.
func (a *asking) tell(l *policy.Limits, kind policy.LimitKind, o owner, h *filter.Hit) {
	if a.r.over != nil {
		a.r.over(Over{Flow: a.m.Flow, Message: a.m.ID, From: string(a.m.Envelope.From), Identity: a.m.Identity, Kind: kind, Scope: o.scope, Whose: o.name, Max: l.Max[kind],
			Action: l.Action[kind], Shadow: l.Shadow[kind], Code: h.Code, Evidence: h.Evidence})
	}
}

// said is the owner as a stranger may read it: names of accounts and plans are the provider's own business.
func (o *owner) said() string {
	switch o.scope {
	case policy.OfAccount, policy.OfPlan:
		return "this sender's account"
	case policy.OfNetwork:
		return "this network"
	}
	return "this sender"
}

func (o *owner) named() string {
	if o.name == "" {
		return ""
	}
	return " " + o.name
}
