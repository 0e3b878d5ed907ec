package sender

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/emersion/go-msgauth/dkim"

	"sluice/filter/message"
	"sluice/filter/policy"
	"sluice/intercept/flow"
)

// asked counts the questions to the DNS.
type asked struct {
	*fakeDNS
	n atomic.Int32
}

func (a *asked) LookupTXT(ctx context.Context, name string) ([]string, error) {
	a.n.Add(1)
	return a.fakeDNS.LookupTXT(ctx, name)
}

// TestForeign: a signature that verifies tells of a forwarder where it is of a domain that is not his; nobody is asked where
// no other domain's stands there, or where nobody knows which are his.
func TestForeign(t *testing.T) {
	t.Parallel()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	record := "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(pub)
	dns := &fakeDNS{txt: map[string]string{"s._domainkey.shop.example": record, "s._domainkey.mail.shop.example": record, "s._domainkey.other.example": record}}
	sign := func(domain, selector, text string) string {
		t.Helper()
		var out bytes.Buffer
		if err := dkim.Sign(&out, strings.NewReader(text), &dkim.SignOptions{Domain: domain, Selector: selector, Signer: key}); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	const letter = "From: A <a@other.example>\r\nSubject: x\r\n\r\nbody\r\n"
	his, none := &policy.Domains{"shop.example"}, (*policy.Domains)(nil)
	foreign := sign("other.example", "s", letter)
	for _, c := range []struct {
		name, text, login string
		domains           *policy.Domains
		want, asks        bool
	}{
		{"of another domain", foreign, "", his, true, true},
		{"and of his own", sign("shop.example", "s", foreign), "", his, true, true},
		{"altered", strings.Replace(foreign, "body", "bodY", 1), "", his, false, true},
		{"no key", sign("other.example", "nokey", letter), "", his, false, true},
		{"the DNS does not answer", sign("other.example", "broken", letter), "", his, false, true},
		{"none", letter, "", his, false, false},
		{"of his own", sign("shop.example", "s", letter), "", his, false, false},
		{"of one below his own", sign("mail.shop.example", "s", letter), "", his, false, false},
		{"below his own", sign("mail.shop.example", "s", letter), "", &policy.Domains{".shop.example"}, false, false},
		{"nobody knows which are his", foreign, "", none, false, false},
		{"named as those below", sign("shop.example", "s", letter), "", &policy.Domains{".shop.example"}, false, false},
		{"he logged in", foreign, "a@shop.example", his, false, false},
		{"too long", foreign + strings.Repeat("\r\n", mostSignedBody), "", his, false, false},
		{"garbage", "DKIM-Signature: v=1; d=other.example\r\n\r\n", "", his, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := &asked{fakeDNS: dns}
			r := NewRules(&fixed{policy.Settings{Sender: policy.Sender{Domains: c.domains}}}, d)
			got := r.Foreign(context.Background(), &message.Message{Flow: &flow.Flow{}, Login: c.login, Data: []byte(c.text)})
			if got != c.want || c.asks && d.n.Load() == 0 || !c.asks && d.n.Load() > 0 {
				t.Errorf("%v, want %v; %d questions", got, c.want, d.n.Load())
			}
		})
	}
}
