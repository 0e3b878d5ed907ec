//go:build labtest

package lab

import (
	"context"
	"strings"
	"testing"
)

// serversConfig tells identities by what Debian's Postfix, Exim, Sendmail and PHP write.
var serversConfig = strings.Replace(GatewayConfig, `name = "{{.Name}}"`, `name = "{{.Name}}"
identity = { method = "header", headers = ["X-PHP-Originating-Script", "Received"] }`, 1)

// TestIdentitiesOfRealServers: whom Debian's mail servers and PHP name as the sender of a message is its identity, and it is what is
// suggested to a user without a rule.
func TestIdentitiesOfRealServers(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, serversConfig)
	byServer := func(start func(context.Context, string) (*MTA, error)) func(host, to string) error {
		return func(host, to string) error {
			m, err := start(ctx, host)
			if err != nil {
				return err
			}
			return m.Send(ctx, Mail{From: "a@" + host + ".example", To: []string{to}, Data: letter(host, "one")})
		}
	}
	for _, c := range []struct {
		host, identity, header string
		send                   func(host, to string) error
	}{
		{"alice", "userid 0", "Received", byServer(func(ctx context.Context, host string) (*MTA, error) { return l.Postfix(ctx, host) })},
		{"dave", "root", "Received", byServer(func(ctx context.Context, host string) (*MTA, error) { return l.Exim(ctx, host) })},
		{"bob", "0:Command line code", "X-PHP-Originating-Script", func(host, to string) error {
			return l.PHP(ctx, host, `exit(mail("`+to+`", "x", "hello", "From: a@bob.example", "-f a@bob.example") ? 0 : 1);`, "mail.add_x_header=On")
		}},
	} {
		to := "from-" + c.host + "@sink.example"
		if err := c.send(c.host, to); err != nil {
			t.Fatal(err)
		}
		var log []struct {
			Identity, Status string
			Hits             []struct{ Code, Evidence string }
		}
		eventually(ctx, func() bool {
			log = nil
			return sluiceJSON(ctx, g, &log, "log", "--to", to) != nil || len(log) > 0
		})
		if len(log) != 1 || log[0].Identity != c.identity || log[0].Status != "delivered" || len(log[0].Hits) > 0 { // what honest servers call themselves, too, is no opinion
			t.Errorf("%s: the log has %+v, want the identity %q\n%.600s", c.host, log, c.identity, messageTo(ctx, t, l, to).Data)
		}
		if out := sluice(t, g, "identities", "suggest", c.host); !strings.Contains(out, "suggested, for 100.0 % of 1 message: sluice users set "+c.host+" 'identity=header' 'identity.headers="+c.header+"'") {
			t.Errorf("suggested for %s is %s", c.host, out)
		}
	}
}
