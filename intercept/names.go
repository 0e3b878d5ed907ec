package intercept

import (
	"fmt"
	"maps"
	"net/netip"
	"path"
	"slices"
	"sync"

	"sluice/bpf"
	"sluice/intercept/attach"
	"sluice/intercept/ruleset"
)

// names tells which interface has a name now.
type names struct {
	mu     sync.Mutex
	byName map[string]int
	byLink map[int]string
}

// index is what the data path compares with: Nowhere while no interface has the name.
func (n *names) index(name string) uint32 {
	if n == nil {
		return bpf.Nowhere
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if i, ok := n.byName[name]; ok {
		return uint32(i)
	}
	return bpf.Nowhere
}

// renew puts down what the interfaces are called that the indexes name; some of them may be gone. It returns the names that
// now mean another interface than before.
func (n *names) renew(indexes []int, links []ruleset.Link) (changed []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.byName == nil {
		n.byName, n.byLink = make(map[string]int), make(map[int]string)
	}
	was := make(map[string]int)
	for _, i := range indexes {
		if name, ok := n.byLink[i]; ok {
			was[name] = i
			delete(n.byLink, i)
			delete(n.byName, name)
		}
	}
	for _, l := range links {
		if _, known := was[l.Name]; !known {
			was[l.Name] = n.byName[l.Name]
		}
		n.byName[l.Name], n.byLink[l.Index] = l.Index, l.Name
	}
	for name, index := range was {
		if n.byName[name] != index {
			changed = append(changed, name)
		}
	}
	return changed
}

// renewAll is renew for all interfaces: these are there, and no others.
func (n *names) renewAll(links []ruleset.Link) (changed []string) {
	n.mu.Lock()
	indexes := slices.Collect(maps.Keys(n.byLink))
	n.mu.Unlock()
	return n.renew(indexes, links)
}

// rebind has the sources that are bound to one of the names follow it to another interface.
func (e *Engine) rebind(changed []string) error {
	if len(e.boundTo(changed)) == 0 {
		return nil
	}
	e.change.Lock()
	defer e.change.Unlock()
	touched := make(map[netip.Prefix]bool)
	for _, p := range e.boundTo(changed) {
		touched[p] = true
		for q := range e.runtime.Inside(p) {
			touched[q] = true
		}
		for q := range e.ceiling.Sources().Inside(p) {
			touched[q] = true
		}
	}
	put := make([]bpf.Source, 0, len(touched))
	for p := range touched {
		put = append(put, e.ceiling.entry(p, &e.runtime.rules))
	}
	return e.data.PutSources(put...)
}

func (e *Engine) boundTo(names []string) (prefixes []netip.Prefix) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	for p, b := range e.ceiling.binds {
		if b.Interface != "" && slices.Contains(names, b.Interface) {
			prefixes = append(prefixes, p)
		}
	}
	return prefixes
}

// portRules are those of the configuration that mean one interface; where several match, the first one counts.
func (c *Config) portRules(l ruleset.Link) (out []bpf.PortRule) {
	for _, r := range c.Rules {
		at := slices.ContainsFunc(r.Interfaces, func(pattern string) bool {
			ok, err := path.Match(pattern, l.Name)
			return err == nil && ok // patterns were checked when the configuration was read
		})
		known := slices.ContainsFunc(out, func(o bpf.PortRule) bool { return o.Port == r.Port })
		if at && !known {
			out = append(out, bpf.PortRule{Ifindex: uint32(l.Index), Port: r.Port, Mode: r.Mode})
		}
	}
	return out
}

// byInterface tells whether some port is one of single interfaces.
func (c *Config) byInterface() bool {
	return slices.ContainsFunc(c.Rules, func(r Port) bool { return len(r.Interfaces) > 0 })
}

// openPorts gives customer interfaces the ports of their own, before programs stand there.
func (e *Engine) openPorts(seats []ruleset.Seat) error {
	e.mu.RLock()
	defer e.mu.RUnlock()
	t, ok := e.data.(portTable)
	if !ok || !e.cfg.byInterface() {
		return nil
	}
	for _, s := range seats {
		if s.Role != ruleset.Customer || s.Refused != "" {
			continue
		}
		if was, ok := e.ifaces[s.Link.Index]; ok && was.Link.Name != s.Link.Name { // renamed: other patterns match
			if err := t.DeletePorts(uint32(s.Link.Index)); err != nil {
				return err
			}
		}
		if err := t.PutPorts(e.cfg.portRules(s.Link)...); err != nil {
			return err
		}
	}
	return nil
}

// closePorts forgets the ports of interfaces that are no customers' any more. mu is held.
func (e *Engine) closePorts(was, now map[int]attach.Interface) error {
	t, ok := e.data.(portTable)
	if !ok || !e.cfg.byInterface() {
		return nil
	}
	for index, i := range was {
		if i.Role == ruleset.Customer && now[index].Role != ruleset.Customer {
			if err := t.DeletePorts(uint32(index)); err != nil {
				return err
			}
		}
	}
	return nil
}

// withPorts returns what datapath says with the rules of the interfaces that are there.
func (e *Engine) withPorts(cfg *Config) (bpf.Config, error) {
	d := cfg.datapath()
	if !cfg.byInterface() && len(cfg.Binds) == 0 {
		return d, nil
	}
	if _, ok := e.data.(portTable); !ok {
		return d, fmt.Errorf("could not tell interfaces apart (intercept.port with interfaces, user.bind): this data path cannot; leave them out, or use a kernel with BPF")
	}
	links, err := e.kernel.Links()
	if err != nil {
		return d, err
	}
	e.names.renewAll(links) // what is bound to them is written next
	for _, s := range ruleset.Seats(links, cfg.Customers, cfg.Uplinks) {
		if s.Role == ruleset.Customer && s.Refused == "" {
			d.Ports = append(d.Ports, cfg.portRules(s.Link)...)
		}
	}
	return d, nil
}

// unbound names what is bound to an interface where nothing of it can come from. mu is held.
func (e *Engine) unbound() (problems []string) {
	for p, b := range e.ceiling.binds {
		if b.Interface == "" {
			continue
		}
		index := e.names.index(b.Interface)
		i, seated := e.ifaces[int(index)]
		switch {
		case index == bpf.Nowhere:
			problems = append(problems, fmt.Sprintf("%v is bound to interface %s, which is not there: its mail is dropped", p, b.Interface))
		case !seated || i.Role != ruleset.Customer || i.Path == "":
			problems = append(problems, fmt.Sprintf("%v is bound to interface %s, which is no attached customer interface: its mail is dropped", p, b.Interface))
		case b.MAC != nil && i.Link.Raw:
			problems = append(problems, fmt.Sprintf("%v is bound to an Ethernet address at interface %s, which has none: its mail is dropped; remove mac", p, b.Interface))
		}
	}
	slices.Sort(problems)
	return problems
}
