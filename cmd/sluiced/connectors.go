package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"sluice/cmd/internal/config"
	"sluice/intercept/flow"
	"sluice/proxy"
	"sluice/proxy/auth"
)

// leastProof is how long the word must be by which a service tells its customers apart here.
const leastProof = 16

// connector is one of the configuration.
type connector struct {
	auth.Connector
	user string
}

// connectors are those of the configuration, with the secrets from their files.
func connectors(set *config.Smarthost) ([]connector, error) {
	all := make([]connector, 0, len(set.Connector))
	for i := range set.Connector {
		n := &set.Connector[i]
		c := connector{user: n.User, Connector: auth.Connector{Name: n.Name, Certificate: n.Certificate, Values: n.Tenants, Domains: n.Domains}}
		ranges, err := rangesOf(n)
		if err != nil {
			return nil, err
		}
		for _, r := range ranges {
			c.Ranges = append(c.Ranges, r.Prefix)
		}
		if c.Field, c.Secret = n.Field(); c.Secret {
			text, err := os.ReadFile(n.ProofFile)
			if err != nil {
				return nil, fmt.Errorf("could not read the proof of the connector %s: %w; name a file that this user can read in proof_file", n.Name, err)
			}
			line, _, _ := strings.Cut(string(text), "\n")
			if c.Values = []string{strings.TrimSpace(line)}; len(c.Values[0]) < leastProof {
				return nil, fmt.Errorf("could not use the proof of the connector %s: %s holds %d characters; make it %d or more, at random", n.Name, n.ProofFile, len(c.Values[0]), leastProof)
			}
		}
		all = append(all, c)
	}
	return all, nil
}

// rangesOf are the addresses from which the service sends.
func rangesOf(n *config.Connector) ([]config.Prefix, error) {
	if n.RangesFile == "" {
		return n.Ranges, nil
	}
	text, err := os.ReadFile(n.RangesFile)
	if err != nil {
		return nil, fmt.Errorf("could not read the addresses of the connector %s: %w; name a file that this user can read in ranges_file", n.Name, err)
	}
	all, err := config.ParseRanges(string(text))
	if err == nil && len(all) == 0 {
		err = errors.New("it names none; write one prefix a line")
	}
	if err != nil {
		return nil, fmt.Errorf("could not use the addresses of the connector %s: %s: %w", n.Name, n.RangesFile, err)
	}
	return all, nil
}

// tenants are the customers whose mail a service at an address may hand in. One whose user is gone is nobody's.
func (d *daemon) tenants(src netip.Addr) (all []proxy.Tenant) {
	list := *d.connectors.Load()
	for i := range list {
		c := &list[i]
		if !c.Has(src) {
			continue
		}
		if m := d.roster.Load().named(c.user); m != nil {
			all = append(all, proxy.Tenant{Connector: &c.Connector, User: flow.User{ID: m.ID, Name: m.Name}})
		}
	}
	return all
}
