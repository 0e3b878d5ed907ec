package main

import (
	"crypto/tls"
	"fmt"
	"time"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/config"
)

// certificate checks the pair of files that the configuration names.
func certificate(cfg *config.Config) api.Finding {
	f := api.Finding{Check: "certificate " + cfg.TLS.Certificate, State: api.OK}
	pair, err := tls.LoadX509KeyPair(cfg.TLS.Certificate, cfg.TLS.Key)
	if err != nil {
		f.State, f.Text, f.Remedy = api.Fail, err.Error(), "give a PEM chain and its key, readable by the operator and by sluiced"
		return f
	}
	left := time.Until(pair.Leaf.NotAfter)
	f.Text = fmt.Sprintf("for %v, valid for %d more days", pair.Leaf.DNSNames, int(left.Hours()/24))
	switch {
	case left <= 0:
		f.State, f.Remedy = api.Fail, "renew it, then `systemctl reload sluiced`"
	case pair.Leaf.VerifyHostname(cfg.Gateway.Name) != nil:
		f.State, f.Remedy = api.Warn, "it is not for gateway.name; clients that verify will refuse it"
	case left < 14*24*time.Hour:
		f.State, f.Remedy = api.Warn, "renew it, then `systemctl reload sluiced`"
	}
	return f
}
