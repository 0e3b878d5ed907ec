package sender

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/emersion/go-msgauth/dkim"

	"sluice/filter/policy"
)

// TestSignature: a DKIM signature counts where it verifies and is of the author's domain.
func TestSignature(t *testing.T) {
	t.Parallel()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	big, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&big.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	record := "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(pub)
	dns := &fakeDNS{txt: map[string]string{
		"s._domainkey.shop.example": record, "s._domainkey.mail.shop.example": record, "s._domainkey.other.example": record,
		"s._domainkey.strict.example": record, "s._domainkey.mail.strict.example": record, "_dmarc.strict.example": "v=DMARC1; p=none; adkim=s",
		"rsa._domainkey.shop.example": "v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(der), "revoked._domainkey.shop.example": "v=DKIM1; k=ed25519; p=",
		"sha1._domainkey.shop.example": record + "; h=sha1",
	}}
	r := NewRules(&fixed{policy.Settings{}}, dns)
	sign := func(domain, selector, text string, fields ...string) string {
		t.Helper()
		o := &dkim.SignOptions{Domain: domain, Selector: selector, Signer: key, HeaderCanonicalization: "relaxed", BodyCanonicalization: "relaxed", HeaderKeys: fields}
		if selector == "rsa" {
			o.Signer = big
		}
		var out bytes.Buffer
		if err := dkim.Sign(&out, strings.NewReader(text), o); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	const letter = "From: A <a@shop.example>\r\nTo: b@sink.example\r\nSubject: x\r\n\r\nbody\r\n"
	good := sign("shop.example", "s", letter)
	for _, c := range []struct {
		name, text string
		want       Signature
	}{
		{"good", good, Signed},
		{"by RSA", sign("shop.example", "rsa", letter), Signed},
		{"a domain below is aligned", sign("mail.shop.example", "s", letter), Signed},
		{"two, the other is foreign", sign("other.example", "s", good), Signed},
		{"none", letter, Unsigned},
		{"another body", strings.Replace(good, "body", "bodY", 1), Unsigned},
		{"another author of the domain", strings.Replace(good, "<a@", "<b@", 1), Unsigned},
		{"another subject, which was signed", strings.Replace(good, "Subject: x", "Subject: y", 1), Unsigned},
		{"white space is no change", strings.Replace(good, "Subject: x", "Subject:   x ", 1), Signed},
		{"unaligned", sign("other.example", "s", letter), Unsigned},
		{"aligned, but not as the domain wants", sign("mail.strict.example", "s", strings.ReplaceAll(letter, "shop", "strict")), Unsigned},
		{"as the domain wants", sign("strict.example", "s", strings.ReplaceAll(letter, "shop", "strict")), Signed},
		{"a second author's field", "From: c@other.example\r\n" + good, Unsigned},
		{"two authors", sign("shop.example", "s", strings.Replace(letter, "To:", "From: b@shop.example\r\nTo:", 1)), Unsigned},
		{"no key", sign("shop.example", "nokey", letter), Unsigned},
		{"a revoked key (RFC 6376 3.6.1)", sign("shop.example", "revoked", letter), Unsigned},
		{"a hash that the key does not allow", sign("shop.example", "sha1", letter), Unsigned},
		{"part of the body only (l=)", strings.Replace(good, "c=relaxed", "l=2; c=relaxed", 1), Unsigned},
		{"the DNS does not answer", sign("shop.example", "broken", letter), Unlooked},
		{"garbage", "From: a@shop.example\r\nDKIM-Signature: v=1; d=shop.example\r\n\r\n", Unsigned},
		{"too long a header", "DKIM-Signature: d=shop.example\r\nFrom: a@shop.example\r\nX: " + strings.Repeat("\r\n ", mostSignedHeader) + "x\r\n\r\n", Unlooked},
		{"too long a body", good + strings.Repeat("\r\n", mostSignedBody), Unlooked},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := r.Signature(context.Background(), []byte(c.text)); got != c.want {
				t.Errorf("%d, want %d:\n%.600s", got, c.want, c.text)
			}
		})
	}
}

// TestSignatureOfTheStandard verifies the example of RFC 8463 A.3, which others signed: twice, by Ed25519 and by RSA.
func TestSignatureOfTheStandard(t *testing.T) {
	t.Parallel()
	const text = "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n d=football.example.com; i=@football.example.com;\r\n" +
		" q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r\n subject : date : message-id : from : subject : date;\r\n" +
		" bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus\r\n Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==\r\n" +
		"From: Joe SixPack <joe@football.example.com>\r\nTo: Suzie Q <suzie@shopping.example.net>\r\nSubject: Is dinner ready?\r\n" +
		"Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\nMessage-ID: <20030712040037.46341.5F8J@football.example.com>\r\n\r\nHi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n"
	dns := &fakeDNS{txt: map[string]string{"brisbane._domainkey.football.example.com": "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="}}
	r := NewRules(&fixed{}, dns)
	if got := r.Signature(context.Background(), []byte(text)); got != Signed {
		t.Errorf("%d", got)
	}
	if got := r.Signature(context.Background(), []byte(strings.Replace(text, "hungry", "angry", 1))); got != Unsigned {
		t.Errorf("altered: %d", got)
	}
}
