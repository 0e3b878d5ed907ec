package intercept

import (
	"sluice/intercept/control"
	"sluice/intercept/ruleset"
)

// possible tells whether a mode is one that can be given now; nil means that it is. What stands already is not asked again: an
// uplink may go for a moment.
func (e *Engine) possible(what any, m control.Mode) error {
	if m != control.Shadow && m != control.Canary {
		return nil
	}
	if why := e.noOwnAddresses(); why != "" {
		return control.Errorf(control.CodeImpossible, "could not set mode %v for %v, which connects from customers' own addresses: %s", m, what, why)
	}
	return nil
}

// noOwnAddresses tells why the proxy cannot connect from customers' own addresses, and what helps; "" means that it can.
func (e *Engine) noOwnAddresses() string {
	if !e.swapped.Load() {
		return "" // nothing is known yet
	}
	if !e.entered() {
		return "the namespace of the proxy's sockets cannot be entered; give sluice-intercept CAP_SYS_ADMIN and restart it, then sluiced"
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	for _, i := range e.ifaces {
		if i.Role == ruleset.Uplink && i.Path != "" {
			return ""
		}
	}
	return "no uplink is attached, by which answers would come back; correct intercept.uplinks, or choose another mode"
}
