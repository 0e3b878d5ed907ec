package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// text is the configuration.
func (s *setup) text() string {
	var b strings.Builder
	fmt.Fprintln(&b, "# Sluice: first configuration of this gateway, made by `sluice setup`. Every key that is left out has the default\n"+
		"# that sluice.toml(5) tells. Try a change with `sluiced -check`, then `systemctl reload sluice-intercept sluiced`.")
	fmt.Fprintln(&b, "#\n# The interfaces as they were found:")
	rows, more := s.reasons()
	for _, r := range rows {
		fmt.Fprintf(&b, "#   %-15s %-9s %s\n", r[0], r[1], r[2])
	}
	if more != "" {
		fmt.Fprint(&b, "#   "+strings.ReplaceAll(strings.TrimSpace(more), "\n", "\n#   ")+"\n")
	}
	extra := s.extra()
	section := func(name string, lines ...string) {
		fmt.Fprintf(&b, "\n[%s]\n", name)
		for _, l := range lines {
			if l != "" && !slices.ContainsFunc(extra[name], func(x string) bool { return keyOf(x) == keyOf(l) }) {
				fmt.Fprintln(&b, l)
			}
		}
		for _, l := range extra[name] {
			fmt.Fprintln(&b, l)
		}
		delete(extra, name)
	}
	section("gateway", pair("name", s.name), optional("contact", s.contact), optional("help_url", s.helpURL), optional("admin_address", s.admin))
	section("intercept",
		"customer_interfaces = "+list(s.customers)+"   # attached as they appear",
		"uplinks = "+list(s.uplinks),
		`default_mode = "observe"   # forwarded untouched and watched; `+"`sluice gate` tells whom the next step would hurt",
		"# default_fail: `sluice rollout forward` asks before the first step to enforcement; until then \"open\"")
	s.deliverySection(&b, section)
	for _, name := range s.sections() {
		if len(extra[name]) > 0 {
			section(name)
		}
	}
	return b.String()
}

func (s *setup) deliverySection(b *strings.Builder, section func(string, ...string)) {
	if len(s.delivery) == 0 {
		section("delivery", `mode = "own"   # mail leaves from the customers' own addresses`)
		if len(s.addresses) > 0 {
			fmt.Fprint(b, "\n# Or from addresses of the gateway too, where the DNS shows that it does no harm: mode = \"auto\", and addresses whose PTR, HELO name and A or AAAA agree. This host has:\n")
		}
		for _, a := range s.addresses {
			name := a.Helo
			if name == "" {
				name = "…   its PTR, which the DNS does not have"
			}
			fmt.Fprintf(b, "#\n# [[delivery.address]]\n# address = %q\n# helo = %q\n", a.Address, name)
		}
		return
	}
	lines := []string{`mode = "auto"   # from the addresses below where SPF and MX records show that it does no harm, else from the customers' own; each one's PTR, HELO name and A or AAAA agree`}
	if len(s.prefixes) > 0 {
		lines = append(lines, "prefixes = "+list(s.prefixes)+"   # routed to this host, and made local")
	}
	section("delivery", lines...)
	for _, a := range s.addresses {
		fmt.Fprintf(b, "\n[[delivery.address]]\naddress = %q\nhelo = %q\n", a.Address, a.Helo)
	}
}

// setting reads one value of --set.
func setting(text string) (section, key, value string, err error) {
	name, value, ok := strings.Cut(text, "=")
	dot := strings.LastIndexByte(name, '.')
	if !ok || dot < 1 || strings.ContainsAny(text, "\r\n") {
		return "", "", "", usageError{fmt.Errorf("--set: %q is not section.key=value; write it like --set intercept.table=77 or --set 'log.dir=\"/srv/log\"'", text)}
	}
	return strings.TrimSpace(name[:dot]), strings.TrimSpace(name[dot+1:]), strings.TrimSpace(value), nil
}

// extra are the lines of --set by their section.
func (s *setup) extra() map[string][]string {
	out := map[string][]string{}
	for _, text := range s.set {
		if section, key, value, err := setting(text); err == nil { // else refused before
			out[section] = append(out[section], key+" = "+value)
		}
	}
	return out
}

// sections are those of --set in their order.
func (s *setup) sections() (names []string) {
	for _, text := range s.set {
		if section, _, _, err := setting(text); err == nil {
			names = append(names, section)
		}
	}
	return names
}

func keyOf(line string) string {
	key, _, _ := strings.Cut(line, "=")
	return strings.TrimSpace(key)
}

func pair(key, value string) string { return key + " = " + strconv.Quote(value) }

func optional(key, value string) string {
	if value == "" {
		return ""
	}
	return pair(key, value)
}

func list(values []string) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = strconv.Quote(v)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// write puts the file in its place in one step; an older one stays beside it.
func (s *setup) write(text string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("could not write %s: %w; run setup as root, or name another file with --config", s.file, err)
		}
	}()
	if err := os.MkdirAll(filepath.Dir(s.file), 0o755); err != nil {
		return err
	}
	tmp := s.file + ".new"
	if err := os.WriteFile(tmp, []byte(text), 0o644); err != nil {
		return err
	}
	if err := os.Link(s.file, s.file+".old"); errors.Is(err, os.ErrExist) {
		err = errors.Join(os.Remove(s.file+".old"), os.Link(s.file, s.file+".old"))
		if err != nil {
			return err
		}
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Rename(tmp, s.file)
}
