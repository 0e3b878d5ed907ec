//go:build labtest

package lab

import (
	"strings"
	"testing"
)

// TestDNSSECByUnbound: the word of a validator that we did not write. TLSA records of a signed zone count, those of a zone
// that nobody vouches for do not, and forged ones stop no mail of a client that decides for himself.
func TestDNSSECByUnbound(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	const address = "198.51.100.101"
	l.Sink("peer01").Encrypt(nil)
	st, err := l.Certificate(ctx, HostInternet, address+":25")
	if err != nil {
		t.Fatal(err)
	}
	zone := func(name string) *SignedZone {
		return &SignedZone{Name: name, Records: []string{name + ". 60 IN MX 10 mx." + name + ".", "mx." + name + ". 60 IN A " + address, tlsaOf("mx."+name, st.PeerCertificates[0])}}
	}
	good, wrong, plain, forged := zone("good.example"), zone("wrong.example"), zone("plain.example"), zone("forged.example")
	wrong.Records[2] = tlsaOf("mx.wrong.example", newIssuer(t).cert)
	plain.Plain, forged.Broken = true, "_25._tcp.mx.forged.example. TLSA"
	if _, err := l.Unbound(ctx, good, wrong, plain, forged); err != nil {
		t.Fatal(err)
	}
	p := &protectLab{l: l, g: startGateway(t, l, "[dns]\nservers = [\""+ValidatingResolver+"\"]\n")}
	p.want(ctx, t, address, "u@good.example", "dane", "ok", "self-signed")
	p.want(ctx, t, address, "u@wrong.example", "dane", "no TLSA record matches", "")
	p.want(ctx, t, address, "u@plain.example", "none", "", "")
	p.want(ctx, t, address, "u@forged.example", "unknown", "TLSA records of mx.forged.example: resolver 127.0.0.53:53 answered SERVFAIL", "")
	for domain, want := range map[string]string{"good.example": "vouched for by DNSSEC", "plain.example": "not vouched for by DNSSEC"} {
		if out := sluice(t, p.g, "tls", "policy", domain); !strings.Contains(out, "  "+want) {
			t.Errorf("sluice tls policy %s: %s", domain, out)
		}
	}
}
