package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/config"
)

// listRules asks nft for every rule of this host, as JSON.
func listRules(ctx context.Context) ([]byte, error) {
	return exec.CommandContext(ctx, "nft", "--json", "list", "ruleset").Output()
}

// firewall checks that this host's own rules let intercepted packets in: with a foreign destination they come by its
// input chain, where a policy of drop is usual.
func (h *host) firewall(ctx context.Context, cfg *config.Config) api.Finding {
	f := api.Finding{Check: "host firewall", State: api.OK}
	out, err := h.rules(ctx)
	switch {
	case errors.Is(err, exec.ErrNotFound):
		f.Text = "nft is not installed: no rules were looked at"
		return f
	case os.Geteuid() != 0 && err != nil:
		f.State, f.Text, f.Remedy = api.Warn, "may not be looked at", "run doctor as root"
		return f
	}
	var shut []string
	if err == nil {
		shut, err = shutChains(out, cfg.Intercept.Mark)
	}
	switch {
	case err != nil:
		f.State, f.Text = api.Warn, "could not be read: "+err.Error()
	case len(shut) > 0:
		f.State = api.Warn
		f.Text = "drops by default and has no rule for the mark of intercepted packets, which are input of this host: " + strings.Join(shut, ", ")
		f.Remedy = fmt.Sprintf("nft insert rule %s meta mark and %#x == %#x accept, and in the firewall's own configuration for good", shut[0], cfg.Intercept.Mark, cfg.Intercept.Mark)
	default:
		f.Text = "no input chain drops intercepted packets by its policy"
	}
	return f
}

// shutChains names the input chains that drop by default and whose table has no rule about mark, in the words of nft:
// family, table, chain.
func shutChains(ruleset []byte, mark uint32) ([]string, error) {
	var all struct {
		Nftables []struct {
			Chain *struct{ Family, Table, Name, Hook, Policy string }
			Rule  *struct {
				Family, Table string
				Expr          json.RawMessage
			}
		}
	}
	if err := json.Unmarshal(ruleset, &all); err != nil {
		return nil, fmt.Errorf("what nft printed makes no sense: %w", err)
	}
	knows := map[string]bool{} // tables with a rule about our mark
	for _, o := range all.Nftables {
		if r := o.Rule; r != nil && strings.Contains(string(r.Expr), `"mark"`) && strings.Contains(string(r.Expr), strconv.FormatUint(uint64(mark), 10)) {
			knows[r.Family+" "+r.Table] = true
		}
	}
	var shut []string
	for _, o := range all.Nftables {
		if c := o.Chain; c != nil && c.Hook == "input" && c.Policy == "drop" && !knows[c.Family+" "+c.Table] {
			shut = append(shut, c.Family+" "+c.Table+" "+c.Name)
		}
	}
	return shut, nil
}
