//go:build labtest

package lab

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// autoDelivery is the usual configuration with delivery = "auto" and delivery addresses of IPv4 alone.
var autoDelivery = strings.NewReplacer(`mode = "managed"`, `mode = "auto"`,
	"{{range .Addresses}}", "{{range .Addresses}}{{if .Address.Is4}}", `helo = "{{.Helo}}"
{{end}}`, `helo = "{{.Helo}}"
{{end}}{{end}}`).Replace(GatewayConfig)

// autoCase is a mail and from where it should leave.
type autoCase struct {
	name, from, to, target, sink string
	own                          netip.Addr // invalid: a delivery address
	why                          string
}

// TestDeliveryAuto: a delivery address is used only where the DNS shows that it does no harm.
func TestDeliveryAuto(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, autoDelivery)
	// A service that filters customers' outgoing mail and knows them by address. It is nobody's MX.
	relay := l.Sink("peer01")
	relay.Knows("192.0.2.0/24", "2001:db8:1::/48")
	alice4, alice6 := netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("2001:db8:1::10")
	cases := []autoCase{
		{"a domain that includes us", "a@alice.example", "included@sink.example", "198.51.100.20:25", "sink", netip.Addr{}, "SPF allows"},
		{"a domain without SPF", "a@nospf.example", "nospf@sink.example", "198.51.100.20:25", "sink", netip.Addr{}, "SPF allows"},
		{"a notice", "", "notice@sink.example", "198.51.100.20:25", "sink", netip.Addr{}, "SPF allows"},
		{"no MX, but an address", "a@alice.example", "implicit@nomx.example", "198.51.100.20:25", "sink", netip.Addr{}, "SPF allows"},
		{"a domain with -all", "a@only.alice.example", "only@sink.example", "198.51.100.20:25", "sink", alice4, "forbids"},
		{"a relay by address", "a@alice.example", "relayed@sink.example", "198.51.100.101:25", "peer01", alice4, "may know the customer by address"},
		{"the same by IPv6", "a@alice.example", "relayed6@sink.example", "[2001:db8:100::101]:25", "peer01", alice6, "no delivery address of this family"},
		{"IPv6 only", "a@alice.example", "six@v6only.example", "[2001:db8:100::26]:25", "v6only", alice6, "no delivery address of this family"},
	}
	for round := range 2 { // what is learnt must not change what is decided
		for _, c := range cases {
			c.to = fmt.Sprintf("r%d%s", round, c.to)
			autoMail(ctx, t, l, g, &c)
		}
	}
	for _, s := range relay.Sessions() {
		if !slices.Contains([]netip.Addr{alice4, alice6}, s.Peer.Addr().Unmap()) {
			t.Errorf("the relay was visited from %v, whom it does not know", s.Peer)
		}
	}
}

func autoMail(ctx context.Context, t *testing.T, l *Lab, g *Gateway, c *autoCase) {
	t.Helper()
	s, err := l.Hello(ctx, "alice", "", c.target)
	if err != nil {
		t.Fatalf("%s: %v", c.name, err)
	}
	if _, last, err := s.Send(c.from, []string{c.to}, []byte("Subject: auto\r\n\r\n"+c.name+"\r\n")); err != nil || last.Code != 250 {
		t.Fatalf("%s: %v %v", c.name, last, err)
	}
	if err := s.Quit(); err != nil {
		t.Error(err)
	}
	from := messageOf(ctx, t, l.Sink(c.sink), c.to).Peer.Addr().Unmap()
	if good := from == c.own || !c.own.IsValid() && DeliveryV4.Contains(from); !good {
		t.Errorf("%s: left from %v, want %v (invalid: a delivery address)", c.name, from, c.own)
	}
	var found struct {
		Messages []struct{ ID, Source, Way string }
	}
	if err := sluiceJSON(ctx, g, &found.Messages, "log", "--to", c.to); err != nil {
		t.Fatal(err)
	}
	if len(found.Messages) != 1 || found.Messages[0].Source != from.String() || !strings.Contains(found.Messages[0].Way, c.why) {
		t.Fatalf("%s: the log has %+v, want %v because it %q", c.name, found.Messages, from, c.why)
	}
	out, err := g.Sluice(ctx, "why", found.Messages[0].ID)
	if err != nil || !strings.Contains(out.Stdout, c.why) || !strings.Contains(out.Stdout, from.String()) {
		t.Errorf("%s: sluice why says %v\n%s", c.name, err, out.Stdout)
	}
}
