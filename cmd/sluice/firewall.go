package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/config"
)

// listRules asks nft for every rule of this host, as JSON; rules made by iptables-nft are among them.
func listRules(ctx context.Context) ([]byte, error) {
	return exec.CommandContext(ctx, "nft", "--json", "list", "ruleset").Output()
}

// legacyTables returns the filter rules of iptables-legacy ("ip") or ip6tables-legacy ("ip6"), which nft does not see;
// nothing where the kernel has none, since asking would make them.
func legacyTables(ctx context.Context, family string) ([]byte, error) {
	have, err := os.ReadFile("/proc/thread-self/net/" + family + "_tables_names") // /proc/net is that of the first thread, which may have gone elsewhere
	if errors.Is(err, os.ErrNotExist) || err == nil && !slices.Contains(strings.Fields(string(have)), "filter") {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return exec.CommandContext(ctx, family+"tables-legacy-save", "-t", "filter").Output()
}

// shut is a chain that drops intercepted packets, and the command that lets them in.
type shut struct{ chain, remedy string }

// firewall checks that this host's own rules let intercepted packets in: with a foreign destination they come by its
// input chain, where a policy of drop is usual.
func (h *host) firewall(ctx context.Context, cfg *config.Config) []api.Finding {
	const check = "host firewall"
	var chains []shut
	out, err := h.rules(ctx)
	switch {
	case errors.Is(err, exec.ErrNotFound): // then there are no rules of nftables, or nobody to list them
	case err != nil && os.Geteuid() != 0:
		return []api.Finding{{Check: check, State: api.Warn, Text: "may not be looked at", Remedy: "run doctor as root"}}
	case err == nil:
		chains, err = shutChains(out, cfg.Intercept.Mark)
	}
	if err != nil && !errors.Is(err, exec.ErrNotFound) {
		return []api.Finding{{Check: check, State: api.Warn, Text: "could not be read: " + err.Error(), Remedy: "nft list ruleset"}}
	}
	for _, family := range []string{"ip", "ip6"} {
		if h.tables == nil {
			break
		}
		saved, err := h.tables(ctx, family)
		if err != nil {
			return []api.Finding{{Check: check, State: api.Warn, Text: "rules of " + family + "tables-legacy could not be read: " + err.Error(), Remedy: family + "tables-legacy-save"}}
		}
		if legacyShut(saved, cfg.Intercept.Mark) {
			chains = append(chains, shut{family + "tables-legacy INPUT", fmt.Sprintf("%stables-legacy -I INPUT -m mark --mark %#[2]x/%#[2]x -j ACCEPT", family, cfg.Intercept.Mark)})
		}
	}
	if len(chains) == 0 {
		return []api.Finding{{Check: check, State: api.OK, Text: "no input chain drops intercepted packets by default"}}
	}
	var fs []api.Finding
	for _, c := range chains {
		fs = append(fs, api.Finding{Check: check, State: api.Warn, Text: c.chain + " drops by default and has no rule for the mark of intercepted packets, which are input of this host",
			Remedy: c.remedy + ", and in the firewall's own configuration for good"})
	}
	return fs
}

type nftRule struct {
	Family, Table, Chain string
	Expr                 json.RawMessage
}

// shutChains finds the input chains that drop by default, be it by policy or by a rule without a condition, and whose
// table has no rule about mark.
func shutChains(ruleset []byte, mark uint32) ([]shut, error) {
	var all struct {
		Nftables []struct {
			Chain *struct{ Family, Table, Name, Hook, Policy string }
			Rule  *nftRule
		}
	}
	if err := json.Unmarshal(ruleset, &all); err != nil {
		return nil, fmt.Errorf("what nft printed makes no sense: %w", err)
	}
	knows, drops := map[string]bool{}, map[string]bool{} // tables with a rule about our mark; chains with such a rule
	for _, o := range all.Nftables {
		if r := o.Rule; r != nil {
			table := r.Family + " " + r.Table
			knows[table] = knows[table] || r.aboutMark(mark)
			drops[table+" "+r.Chain] = drops[table+" "+r.Chain] || r.dropsAll()
		}
	}
	var out []shut
	for _, o := range all.Nftables {
		c := o.Chain
		if c == nil || c.Hook != "input" || knows[c.Family+" "+c.Table] {
			continue
		}
		if name := c.Family + " " + c.Table + " " + c.Name; c.Policy == "drop" || drops[name] {
			out = append(out, shut{name, fmt.Sprintf("nft insert rule %s meta mark and %#[2]x == %#[2]x accept", name, mark)})
		}
	}
	return out, nil
}

// aboutMark also takes a match of iptables about marks, whose value nft does not print.
func (r *nftRule) aboutMark(mark uint32) bool {
	text := string(r.Expr)
	return strings.Contains(text, `"mark"`) && (strings.Contains(text, strconv.FormatUint(uint64(mark), 10)) || strings.Contains(text, `"xt"`))
}

// dropsAll reports whether a rule drops whatever comes to it.
func (r *nftRule) dropsAll() bool {
	var parts []map[string]json.RawMessage
	if json.Unmarshal(r.Expr, &parts) != nil {
		return false // nothing that we know
	}
	drops := false
	for _, p := range parts {
		for key := range p {
			switch key {
			case "drop", "reject":
				drops = true
			case "counter", "log", "comment":
			default:
				return false
			}
		}
	}
	return drops
}

// legacyShut reports the same of what iptables-save printed.
func legacyShut(saved []byte, mark uint32) bool {
	drops := false
	for line := range bytes.Lines(saved) {
		text := strings.TrimSpace(string(line))
		switch {
		case strings.Contains(text, fmt.Sprintf("--mark %#x", mark)):
			return false
		case strings.HasPrefix(text, ":INPUT DROP"), strings.HasPrefix(text, "-A INPUT -j DROP"), strings.HasPrefix(text, "-A INPUT -j REJECT"):
			drops = true
		}
	}
	return drops
}
