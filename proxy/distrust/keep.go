package distrust

import (
	"errors"
	"fmt"
)

// ErrUnknown says that nothing is known of a pair.
var ErrUnknown = errors.New("nothing is known of this source and destination")

// Allow has a pair's STARTTLS pass unread until a moment, at most GrantTime from now, whether or not it was learnt.
func (l *Ledger) Allow(p Pair, g Grant, user string) (Entry, error) {
	now := l.o.Now()
	if g.Until.IsZero() || g.Until.Sub(now) > GrantTime {
		g.Until = now.Add(GrantTime)
	}
	g.Since = now
	l.saving.Lock()
	defer l.saving.Unlock()
	l.mu.Lock()
	next := Entry{Pair: p, User: user, First: now, Last: now}
	if e := l.entries[p]; e != nil {
		next = *e
	} else if len(l.entries) >= mostEntries || l.grants >= mostGrants {
		l.mu.Unlock()
		return next, fmt.Errorf("%d grants are in force already; forget some", mostGrants)
	}
	l.mu.Unlock()
	next.Grant = g
	if err := l.o.Store.PutRefusals([]Entry{next}, nil); err != nil {
		return next, err
	}
	kept := next
	l.mu.Lock()
	l.put(&kept) // the ledger's own from here on
	l.mu.Unlock()
	l.tell([]Event{{Granted, next}})
	return next, nil
}

// Forget removes all that is known of a pair, its grant too; connections that pass end with their next byte. The error is
// ErrUnknown, or the store's.
func (l *Ledger) Forget(p Pair) (Entry, error) {
	l.saving.Lock()
	defer l.saving.Unlock()
	l.mu.Lock()
	e := l.entries[p]
	if e == nil || !e.kept() {
		l.mu.Unlock()
		return Entry{}, ErrUnknown
	}
	was := *e
	l.mu.Unlock()
	if err := l.o.Store.PutRefusals(nil, []Pair{p}); err != nil {
		return was, err
	}
	l.mu.Lock()
	l.drop(p)
	l.mu.Unlock()
	return was, nil
}

// Save ends what is over and writes what changed since the last time. What could not be written is tried again.
func (l *Ledger) Save() error {
	l.saving.Lock()
	defer l.saving.Unlock()
	put, gone := l.changes()
	if len(put)+len(gone) == 0 {
		return nil
	}
	err := l.o.Store.PutRefusals(put, gone)
	if err != nil {
		l.mu.Lock()
		for i := range put {
			l.dirty[put[i].Pair] = true
		}
		for _, p := range gone {
			l.dirty[p] = true
		}
		l.mu.Unlock()
	}
	return err
}

// changes ends what is over, and takes what is to be written.
func (l *Ledger) changes() (put []Entry, gone []Pair) {
	now := l.o.Now()
	var told []Event
	l.mu.Lock()
	for p, e := range l.entries {
		switch {
		case e.Grant != (Grant{}) && !e.Grant.In(now): // whoever wants another one shows again that he needs it
			told = append(told, Event{Ended, *e})
			l.drop(p)
		case e.Grant == (Grant{}) && now.Sub(e.Last) > evidenceTime, !e.kept() && now.Sub(e.Last) > forgotten:
			l.drop(p)
		}
	}
	for s, b := range l.budgets {
		if b.used(now) == (use{}) {
			delete(l.budgets, s)
		}
	}
	for p := range l.dirty {
		if e := l.entries[p]; e != nil && e.kept() {
			put = append(put, *e)
		} else {
			gone = append(gone, p)
		}
	}
	clear(l.dirty)
	l.mu.Unlock()
	l.tell(told)
	return put, gone
}
