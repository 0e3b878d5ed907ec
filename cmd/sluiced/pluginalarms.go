package main

import (
	"crypto/rand"
	"sync"
	"time"

	"sluice/filter/scanner"
)

// pluginAgain is how often at most programs are told that an instance of a plug-in does not answer.
const pluginAgain = time.Hour

// pluginAlarms tell programs which instances of plug-ins do not answer, and which do again. One that comes and goes is told of
// once in a while, and in the end as it is.
type pluginAlarms struct {
	mu   sync.Mutex                // held from the look at the plug-ins until it is told: what is seen first is told first
	told map[[2]string]*pluginTold // by plug-in and address
}

// pluginTold is what was told of an instance last.
type pluginTold struct {
	dead bool
	died time.Time // when its death was told
}

// tell hands over the events that the plug-ins' state makes.
func (a *pluginAlarms) tell(state func() []scanner.Figures, now time.Time, post func(event)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range a.due(state(), now) {
		post(e)
	}
}

// due are the events that the plug-ins' state at a time makes. a.mu is held.
func (a *pluginAlarms) due(all []scanner.Figures, now time.Time) (out []event) {
	before := a.told
	a.told = map[[2]string]*pluginTold{}
	for _, f := range all {
		for _, in := range f.Instances {
			key := [2]string{f.Name, in.Address}
			t := before[key]
			if t == nil {
				t = &pluginTold{}
			}
			a.told[key] = t
			dead := in.State == scanner.Dead
			if dead == t.dead || dead && now.Sub(t.died) < pluginAgain {
				continue
			}
			e := event{Type: "alarm", ID: "alarm_" + rand.Text(), Time: now, Plugin: f.Name, Address: in.Address, State: string(scanner.Alive)}
			if t.dead = dead; dead {
				t.died, e.State, e.Then = now, string(scanner.Dead), f.Then
				if in.Err != nil {
					e.Error = in.Err.Error()
				}
			}
			out = append(out, e)
		}
	}
	return out
}

// tellOfPlugins tells programs what is due at a time.
func (d *daemon) tellOfPlugins(now time.Time) {
	if d.retired() {
		return
	}
	d.alarmed.tell(d.plugins.Figures, now, func(e event) {
		if err := d.notices.post(e); err != nil {
			d.log.Error("nobody was told how a plug-in is", "plugin", e.Plugin, "state", e.State, "err", err)
		}
	})
}
