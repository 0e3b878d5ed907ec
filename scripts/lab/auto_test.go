//go:build labtest

package lab

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-msgauth/dkim"
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
	data                         []byte // nil: any text
}

// TestDeliveryAuto: a delivery address is used only where the DNS shows that it does no harm.
func TestDeliveryAuto(t *testing.T) {
	t.Parallel()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	record := "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(pub)
	ctx, l := testContext(t), ForTest(t, Options{TXT: map[string]string{"s._domainkey.only.alice.example": record, "s._domainkey.peer02.example": record, "one.alice.example": "v=spf1 ip4:203.0.113.17 -all"}})
	g := startGatewayWith(t, l, autoDelivery)
	// A service that filters customers' outgoing mail and knows them by address. It is nobody's MX.
	relay := l.Sink("peer01")
	relay.Knows("192.0.2.0/24", "2001:db8:1::/48")
	alice4, alice6 := netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("2001:db8:1::10")
	cases := []autoCase{
		{"a domain that includes us", "a@alice.example", "included@sink.example", "198.51.100.20:25", "sink", netip.Addr{}, "SPF allows", nil},
		{"a domain without SPF", "a@nospf.example", "nospf@sink.example", "198.51.100.20:25", "sink", netip.Addr{}, "SPF allows", nil},
		{"a notice", "", "notice@sink.example", "198.51.100.20:25", "sink", netip.Addr{}, "SPF allows", nil},
		{"no MX, but an address", "a@alice.example", "implicit@nomx.example", "198.51.100.20:25", "sink", netip.Addr{}, "SPF allows", nil},
		{"a domain with -all", "a@only.alice.example", "only@sink.example", "198.51.100.20:25", "sink", alice4, "forbids", nil},
		{"a relay by address", "a@alice.example", "relayed@sink.example", "198.51.100.101:25", "peer01", alice4, "may know the customer by address", nil},
		{"the same by IPv6", "a@alice.example", "relayed6@sink.example", "[2001:db8:100::101]:25", "peer01", alice6, "no delivery address of this family", nil},
		{"IPv6 only", "a@alice.example", "six@v6only.example", "[2001:db8:100::26]:25", "v6only", alice6, "no delivery address of this family", nil},
	}
	for round := range 2 { // what is learnt must not change what is decided
		for _, c := range cases {
			c.to = fmt.Sprintf("r%d%s", round, c.to)
			autoMail(ctx, t, l, g, &c)
		}
	}
	for _, c := range signedCases(t, key, alice4) {
		autoMail(ctx, t, l, g, &c)
	}
	spfChooses(ctx, t, l)
	for _, s := range relay.Sessions() {
		if !slices.Contains([]netip.Addr{alice4, alice6}, s.Peer.Addr().Unmap()) {
			t.Errorf("the relay was visited from %v, whom it does not know", s.Peer)
		}
	}
}

// spfChooses (DIP7): mail of a domain that allows all delivery addresses leaves from several, by the domains; mail of one that
// allows a single address leaves from that one, to whomever.
func spfChooses(ctx context.Context, t *testing.T, l *Lab) {
	t.Helper()
	from := func(sender string) map[netip.Addr]int {
		all := map[netip.Addr]int{}
		for i := 1; i <= 8; i++ {
			to := fmt.Sprintf("%s@d%02d.example", sender, i)
			s, err := l.Hello(ctx, "alice", "", "198.51.100.20:25")
			if err != nil {
				t.Fatal(err)
			}
			if _, last, err := s.Send("a@"+sender, []string{to}, []byte("Subject: by SPF\r\n\r\n"+to+"\r\n")); err != nil || last.Code != 250 {
				t.Fatal(last, err)
			}
			if err := s.Quit(); err != nil {
				t.Fatal(err)
			}
			all[messageTo(ctx, t, l, to).Peer.Addr().Unmap()]++
		}
		return all
	}
	if all := from("nospf.example"); len(all) < 2 {
		t.Errorf("mail that may leave from every address leaves from %v", all)
	}
	if all := from("one.alice.example"); all[netip.MustParseAddr("203.0.113.17")] != 8 {
		t.Errorf("mail that SPF allows from 203.0.113.17 alone leaves from %v", all)
	}
}

// signedCases are mails, in this order, of a domain whose SPF forbids every delivery address: whether they are signed by their
// author's domain is seen, and holds for the next ones until one is not.
func signedCases(t *testing.T, key crypto.Signer, own netip.Addr) (all []autoCase) {
	t.Helper()
	const letter = "From: A <a@only.alice.example>\r\nTo: b@sink.example\r\nSubject: signed\r\n\r\nbody\r\n"
	signed := func(domain string) []byte {
		var out bytes.Buffer
		if err := dkim.Sign(&out, strings.NewReader(letter), &dkim.SignOptions{Domain: domain, Selector: "s", Signer: key}); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	good := signed("only.alice.example")
	broken := bytes.Replace(good, []byte("\r\nbody"), []byte("\r\nbodY"), 1)
	for i, c := range []struct {
		name string
		data []byte
		from netip.Addr
		why  string
	}{
		{"signed, and nothing is known yet", good, own, "forbids"},
		{"signed", good, netip.Addr{}, "signed by its author's domain"},
		{"the signature is broken", broken, own, "forbids"},
		{"signed again, behind a broken one", good, own, "forbids"},
		{"signed", good, netip.Addr{}, "signed by its author's domain"},
		{"signed by another domain", signed("peer02.example"), own, "forbids"},
	} {
		all = append(all, autoCase{c.name, "a@only.alice.example", fmt.Sprintf("signed%d@sink.example", i), "198.51.100.20:25", "sink", c.from, c.why, c.data})
	}
	return all
}

func autoMail(ctx context.Context, t *testing.T, l *Lab, g *Gateway, c *autoCase) {
	t.Helper()
	s, err := l.Hello(ctx, "alice", "", c.target)
	if err != nil {
		t.Fatalf("%s: %v", c.name, err)
	}
	data := c.data
	if data == nil {
		data = []byte("Subject: auto\r\n\r\n" + c.name + "\r\n")
	}
	if _, last, err := s.Send(c.from, []string{c.to}, data); err != nil || last.Code != 250 {
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
