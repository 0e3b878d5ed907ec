package nft

import (
	"fmt"

	"sluice/intercept/attach"
	"sluice/intercept/control"
	"sluice/intercept/ruleset"
)

// Path returns this way and why it is in use.
func (f *Filter) Path() (path, reason string) { return Path, f.reason }

// Sync lets the table see the interfaces of the seats and no others. The first one brings the whole table into force.
func (f *Filter) Sync(seats []ruleset.Seat) ([]attach.Interface, error) {
	var customers, uplinks []string
	out := make([]attach.Interface, 0, len(seats))
	for _, s := range seats {
		i := attach.Interface{Link: s.Link, Role: s.Role, Problem: s.Refused}
		if s.Refused == "" {
			i.Path = Path
			if s.Role == ruleset.Uplink {
				uplinks = append(uplinks, s.Link.Name)
			} else {
				customers = append(customers, s.Link.Name)
			}
		}
		out = append(out, i)
	}
	err := f.sync(customers, uplinks)
	if err != nil {
		for i := range out {
			if out[i].Path != "" {
				out[i].Path, out[i].Problem = "", err.Error()
			}
		}
	}
	return out, err
}

func (f *Filter) sync(customers, uplinks []string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state.customers, f.state.uplinks = customers, uplinks
	f.wanted = true
	if f.live {
		return f.apply(interfacesPart)
	}
	return f.install()
}

// install sets the table, or takes over one that stands: first its sets, then what they hold, and the rules, which ask
// them, at last. It needs the lock.
func (f *Filter) install() error {
	f.live, f.shape, f.pulse = false, shape{}, pulse{}
	clear(f.have)
	stood, err := Stands()
	if err != nil {
		return err
	}
	if !stood { // whoever is still to come has his time from now on
		f.since = control.Monotonic()
	}
	rules := f.state.rules(f.port)
	if err := f.nft.run(rules.Sets()); err != nil {
		return fmt.Errorf("%w; if another version of sluice-intercept made the table %s, run sluice-intercept cleanup", err, ruleset.FilterTable)
	}
	if err := f.tell(); err != nil {
		return err
	}
	f.live, f.shape.sets = true, rules.Sets()
	if err := f.apply(everyPart); err != nil {
		f.live = false
		return err
	}
	return nil
}
