package main

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"sluice/filter/scanner"
	"sluice/proxy/durable"
)

// pluginAgain is how often at most programs are told that an instance of a plug-in does not answer.
const pluginAgain = time.Hour

// pluginAlarms tell programs which instances of plug-ins do not answer, and which do again. One that comes and goes is told of
// once in a while, and in the end as it is. What was told is kept in a file: who restarts this process, or changes a plug-in's
// settings, has not made it answer.
type pluginAlarms struct {
	path string // "": it is not kept

	mu   sync.Mutex               // held from the look at the plug-ins until it is told: what is seen first is told first
	told map[pluginAt]*pluginTold // nil: not read yet
}

// pluginAt is an instance of a plug-in.
type pluginAt struct{ Name, Address string }

// pluginTold is what was told of an instance last.
type pluginTold struct {
	pluginAt
	Dead bool
	Died time.Time // when its death was told
}

// tell hands over the events that the plug-ins' state makes.
func (a *pluginAlarms) tell(state func() []scanner.Figures, now time.Time, post func(event)) (err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.told == nil {
		err = a.load()
	}
	due := a.due(state(), now)
	for _, e := range due {
		post(e)
	}
	if len(due) > 0 {
		err = errors.Join(err, a.save())
	}
	return err
}

// due are the events that the plug-ins' state at a time makes. a.mu is held.
func (a *pluginAlarms) due(all []scanner.Figures, now time.Time) (out []event) {
	before := a.told
	a.told = map[pluginAt]*pluginTold{}
	for _, f := range all {
		for _, in := range f.Instances {
			at := pluginAt{f.Name, in.Address}
			t := before[at]
			if t == nil {
				t = &pluginTold{pluginAt: at}
			}
			a.told[at] = t
			e := event{Type: "alarm", ID: "alarm_" + rand.Text(), Time: now, Plugin: f.Name, Address: in.Address, State: string(in.State)}
			switch {
			case in.State == scanner.Dead && !t.Dead && now.Sub(t.Died) >= pluginAgain:
				t.Dead, t.Died, e.Then = true, now, f.Then
				if in.Err != nil {
					e.Error = in.Err.Error()
				}
			case in.State == scanner.Alive && t.Dead: // and not one that has not answered yet
				t.Dead = false
			default:
				continue
			}
			out = append(out, e)
		}
	}
	return out
}

// load reads what an earlier process told.
func (a *pluginAlarms) load() error {
	a.told = map[pluginAt]*pluginTold{}
	if a.path == "" {
		return nil
	}
	b, err := os.ReadFile(a.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var all []*pluginTold
	if err == nil {
		err = json.Unmarshal(b, &all)
	}
	if err != nil {
		return fmt.Errorf("could not read what was told of plug-ins, %s: %w", a.path, err)
	}
	for _, t := range all {
		if t != nil {
			a.told[t.pluginAt] = t
		}
	}
	return nil
}

func (a *pluginAlarms) save() error {
	if a.path == "" {
		return nil
	}
	b, err := json.Marshal(slices.Collect(maps.Values(a.told)))
	if err == nil {
		err = durable.WriteFile(a.path, b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("could not keep what was told of plug-ins: %w", err)
	}
	return nil
}

// tellOfPlugins tells programs what is due at a time.
func (d *daemon) tellOfPlugins(now time.Time) {
	if d.retired() {
		return
	}
	err := d.alarmed.tell(d.plugins.Figures, now, func(e event) {
		if err := d.notices.post(e); err != nil {
			d.log.Error("nobody was told how a plug-in is", "plugin", e.Plugin, "state", e.State, "err", err)
		}
	})
	if err != nil {
		d.log.Error("after a restart programs may be told again how plug-ins are, or not that they answer", "err", err)
	}
}
