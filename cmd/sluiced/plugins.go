package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/config"
	"sluice/filter"
	"sluice/filter/policy"
	"sluice/filter/scanner"
)

// opinionsEvery is how often it is looked for plug-ins of which nothing was heard lately, and for lists that are to be tested.
const opinionsEvery = 10 * time.Second

// pluginOptions turns configured plug-ins into those of the filter.
func pluginOptions(all []config.Plugin) []scanner.Options {
	var out []scanner.Options
	for i := range all {
		p := &all[i]
		o := scanner.Options{
			Name: p.Name, Kind: scanner.Kind(p.Kind), Addresses: p.Address, Timeout: p.Timeout.D(), MaxSize: int64(p.MaxSize), Oversize: scanner.Oversize(p.Oversize),
			AtOnce: p.AtOnce, NoteOnly: p.Action == "note", WeighOnly: p.Action == "weigh", Class: classOf(p.Class), Marks: p.Marks, Trusted: p.Trusted,
		}
		o.Failure, _ = policy.ParseFailure(p.Failure) // the configuration allows no other names
		out = append(out, o)
	}
	return out
}

// classOf reads the name of a class as the configuration allows it.
func classOf(name string) filter.Class {
	for c := filter.Policy; c <= filter.Virus; c++ {
		if c.String() == name {
			return c
		}
	}
	return filter.Policy
}

// pluginEvent alarms about plug-ins that die, and tells when they are back.
func (d *daemon) pluginEvent(e scanner.Event) {
	d.audits.Go(func() { d.tellOfPlugins(time.Now()) })
	if e.Dead {
		d.log.Error("a plug-in does not answer", "plugin", e.Plugin, "kind", string(e.Kind), "address", e.Address, "err", e.Err, "meanwhile", e.Then)
		return
	}
	d.log.Warn("a plug-in answers again", "plugin", e.Plugin, "kind", string(e.Kind), "address", e.Address)
}

// keepOpinions looks after plug-ins and lists, so that their death is known before mail needs them.
func (d *daemon) keepOpinions(ctx context.Context) {
	t := time.NewTicker(opinionsEvery)
	defer t.Stop()
	for {
		d.lookAtOpinions(ctx)
		d.tellOfPlugins(time.Now())
		select {
		case <-t.C:
		case <-d.opined:
		case <-d.handedOver:
			return
		case <-ctx.Done():
			return
		}
	}
}

// shownPlugins is how the plug-ins are.
func (d *daemon) shownPlugins() []api.Plugin {
	out := []api.Plugin{}
	for _, f := range d.plugins.Figures() {
		p := api.Plugin{Name: f.Name, Kind: string(f.Kind), Then: f.Then, Asked: f.Asked, Objected: f.Objected, Failed: f.Failed, Deferred: f.Deferred, Unseen: f.Unseen,
			Busy: f.Busy, Micros: f.Micros}
		for _, in := range f.Instances {
			i := api.PluginInstance{Address: in.Address, State: string(in.State)}
			if in.Err != nil {
				i.Error = in.Err.Error()
			}
			p.Instances = append(p.Instances, i)
		}
		out = append(out, p)
	}
	return out
}

// pluginFindings tell of each plug-in whether it answers. What is not configured is not missed.
func pluginFindings(all []api.Plugin) (fs []api.Finding) {
	for i := range all {
		p := &all[i]
		var ill []string
		dead := 0
		for _, in := range p.Instances {
			if in.State == string(scanner.Dead) || in.State == string(scanner.Failing) {
				ill = append(ill, fmt.Sprintf("%s is %s: %s", in.Address, in.State, in.Error))
			}
			if in.State == string(scanner.Dead) {
				dead++
			}
		}
		worst := api.Warn
		if dead == len(p.Instances) {
			worst = api.Fail
		}
		text := fmt.Sprintf("%s answers, %d messages shown, %d objected to, %d without its opinion", p.Kind, p.Asked, p.Objected, p.Failed)
		if len(ill) > 0 {
			text = strings.Join(ill, "; ") + "; " + p.Then
		}
		fs = append(fs, finding("plug-in "+p.Name, len(ill) > 0, worst, text, "look whether it runs and listens there; [[plugin]] in the configuration says where it is asked, and failure what becomes of mail"))
		if p.Busy > 0 {
			fs = append(fs, finding("plug-in "+p.Name, true, api.Warn, fmt.Sprintf("%d messages found it busy with others for too long", p.Busy), "raise at_once as far as it bears, or add an instance"))
		}
	}
	return fs
}

// pluginCounters are the figures of plug-ins as counters.
func (d *daemon) pluginCounters(c map[string]uint64) {
	for _, f := range d.plugins.Figures() {
		alive := uint64(0)
		for _, in := range f.Instances {
			if in.State != scanner.Dead {
				alive++
			}
		}
		name := "plugin_" + strings.Map(counterLetter, f.Name) + "_"
		c[name+"asked"], c[name+"objected"], c[name+"failed"], c[name+"deferred"] = f.Asked, f.Objected, f.Failed, f.Deferred
		c[name+"unscanned"], c[name+"busy"], c[name+"instances_alive"] = f.Unseen, f.Busy, alive
	}
}

// counterLetter keeps names of counters to what every reader of them takes.
func counterLetter(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
		return r
	}
	return '_'
}
