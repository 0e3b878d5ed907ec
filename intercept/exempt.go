package intercept

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"sluice/bpf"
	"sluice/intercept/control"
)

// exemptName is a file of its own, written before the kernel changes: what the next helper finds is never older.
const exemptName = "exempt.json"

// setExemptions replaces what the proxy adds to the configuration's exemptions: all of it or nothing.
func (e *Engine) setExemptions(list []control.Exemption) error {
	e.change.Lock()
	defer e.change.Unlock()
	if len(list) > control.MaxExemptions {
		return control.Errorf(control.CodeInvalid, "could not exempt %d destinations: more than %d", len(list), control.MaxExemptions)
	}
	type key struct {
		p    string
		port uint16
	}
	now, seen := time.Now(), make(map[key]bool)
	for _, x := range list {
		k := key{x.Prefix.String(), x.Port}
		if seen[k] {
			return control.Errorf(control.CodeInvalid, "could not exempt %v: it is given twice for port %d", x.Prefix, x.Port)
		}
		seen[k] = true
		if err := e.ceiling.CheckExemption(x, now); err != nil {
			return err
		}
		if !slices.ContainsFunc(e.exempt, func(o control.Exemption) bool { return o.Prefix == x.Prefix && o.Port == x.Port && o.Mode == x.Mode }) {
			if err := e.possible(x.Prefix, x.Mode); err != nil {
				return err
			}
		}
	}
	was := e.exempt
	if err := saveExemptions(e.cfg.StateDir, list); err != nil {
		return err
	}
	err := e.fillExemptions(e.ceiling, list)
	if err == nil {
		return nil
	}
	return errors.Join(err, e.fillExemptions(e.ceiling, was), saveExemptions(e.cfg.StateDir, was))
}

// fillExemptions writes the kernel's table: what the proxy said over what the configuration says. A reload may have made
// the configuration stricter since: then that counts.
func (e *Engine) fillExemptions(ce *ceiling, runtime []control.Exemption) error {
	now := time.Now()
	joined, refused := ce.Exemptions(runtime, now)
	for _, err := range refused {
		e.log.Warn("an exemption of the proxy's is not in force any more", "reason", err)
	}
	var table []bpf.Exemption
	for _, x := range joined.List() {
		table = append(table, bpf.Exemption{Prefix: x.Prefix, Port: x.Port, Mode: kernelMode(x.Mode), Until: x.Until})
	}
	if _, err := e.data.ReplaceExemptions(table); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.exempt = runtime
	return nil
}

// endExemptions takes out what is over, so that what the configuration says of the same destination holds again.
func (e *Engine) endExemptions(now time.Time) error {
	e.change.Lock()
	defer e.change.Unlock()
	var live []control.Exemption
	for _, x := range e.exempt {
		if !x.Over(now) {
			live = append(live, x)
		}
	}
	if len(live) == len(e.exempt) {
		return nil
	}
	return errors.Join(e.fillExemptions(e.ceiling, live), saveExemptions(e.cfg.StateDir, live))
}

func saveExemptions(dir string, list []control.Exemption) error {
	b, err := json.Marshal(list)
	if err == nil {
		err = writeDurably(dir, exemptName, b)
	}
	if err != nil {
		return fmt.Errorf("could not write the exemptions to %s: %w", filepath.Join(dir, exemptName), err)
	}
	return nil
}

// loadExemptions reads those of the last helper that are still valid.
func loadExemptions(dir string, now time.Time) (list []control.Exemption, err error) {
	b, err := os.ReadFile(filepath.Join(dir, exemptName))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var all []control.Exemption
	if err == nil {
		err = json.Unmarshal(b, &all)
	}
	if err != nil {
		return nil, fmt.Errorf("could not read the exemptions in %s: %w", filepath.Join(dir, exemptName), err)
	}
	for _, x := range all {
		if x.Valid() == nil && !x.Over(now) {
			list = append(list, x)
		}
	}
	return list, nil
}
