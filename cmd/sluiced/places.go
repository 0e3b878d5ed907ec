package main

import (
	"net/netip"
	"sync"
	"time"

	"sluice/filter/limit"
)

// place is a change of the sessions that a process which has handed over leads from a source to a destination.
type place struct {
	Source netip.Addr `json:"source"`
	Target netip.Addr `json:"target"`
	N      int        `json:"n"` // begun; negative: ended
}

// placesInNote keeps a note within control.MaxNote: a place has at most 120 bytes.
const placesInNote = 250

// elsewhere holds places in this process's gate for the sessions of older processes, so that caps count both together.
type elsewhere struct {
	gate *limit.Sessions
	mu   sync.Mutex
	open map[place]int // N is 0 in the key; below zero where an end was told before the whole list
	held map[place][]func()
	over *time.Timer // an older process that is killed tells of no ends
}

func (e *elsewhere) moved(list []place) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.open == nil {
		e.open, e.held = make(map[place]int), make(map[place][]func())
	}
	if e.over == nil {
		e.over = time.AfterFunc(oldSessions+2*time.Minute, e.forget)
	}
	for _, p := range list {
		k := p
		k.N = 0
		e.open[k] += p.N
		for want := max(e.open[k], 0); len(e.held[k]) != want; {
			if n := len(e.held[k]); n > want {
				e.held[k][n-1]()
				e.held[k] = e.held[k][:n-1]
			} else {
				e.held[k] = append(e.held[k], e.gate.Hold(k.Source, netip.AddrPortFrom(k.Target, 25)))
			}
		}
		if e.open[k] == 0 {
			delete(e.open, k)
			delete(e.held, k)
		}
	}
}

// forget frees what is still held when no older process can be left.
func (e *elsewhere) forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, all := range e.held {
		for _, release := range all {
			release()
		}
	}
	e.open, e.held, e.over = nil, nil, nil
}

// tellPlaces tells the process that accepts now which sessions this one still leads, and what locked users have already
// sent to the administrator.
func (d *daemon) tellPlaces() {
	var list []place
	for _, p := range d.gate.Places() {
		list = append(list, place{p.Source, p.Target.Addr(), p.N})
	}
	for len(list) > 0 {
		n := min(len(list), placesInNote)
		d.tellOthers(note{Places: list[:n]})
		list = list[n:]
	}
	for user, n := range d.proxy.AdminSpent() {
		d.tellOthers(note{Admin: &adminSpent{user, n}})
	}
}

// moved tells of a session that began or ended here after the hand-over.
func (d *daemon) moved(src, dst netip.Addr, n int) {
	if d.retired() {
		d.tellOthers(note{Places: []place{{src, dst, n}}})
	}
}
