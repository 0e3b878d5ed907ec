package tlspolicy

import (
	"crypto/tls"
	"strings"
	"testing"
	"time"
)

func TestTLSARecordsAndChains(t *testing.T) {
	t.Parallel()
	const host = "mx.a.example"
	root := newCA()
	mid := root.issue(issued{common: "middle", ca: true})
	leaf := mid.issue(issued{names: []string{host}})
	other := mid.issue(issued{names: []string{"mx.b.example"}})
	old := mid.issue(issued{names: []string{host}, until: at.Add(-time.Hour)})
	common := mid.issue(issued{common: host})
	self := (*authority)(nil).issue(issued{names: []string{"whoever.example"}, until: at.Add(-time.Hour)})
	stranger := newCA()

	for _, c := range []struct {
		name    string
		records []TLSA
		chain   []*authority
		want    string // part of the error; "" for none
	}{
		{"EE certificate as it is", []TLSA{record(3, 0, 0, leaf)}, []*authority{leaf}, ""},
		{"EE certificate's SHA-256", []TLSA{record(3, 0, 1, leaf)}, []*authority{leaf}, ""},
		{"EE certificate's SHA-512", []TLSA{record(3, 0, 2, leaf)}, []*authority{leaf}, ""},
		{"EE key as it is", []TLSA{record(3, 1, 0, leaf)}, []*authority{leaf}, ""},
		{"EE key's SHA-256", []TLSA{record(3, 1, 1, leaf)}, []*authority{leaf}, ""},
		{"EE key's SHA-512", []TLSA{record(3, 1, 2, leaf)}, []*authority{leaf}, ""},
		{"EE looks at neither name nor time (RFC 7672 3.1.1)", []TLSA{record(3, 1, 1, self)}, []*authority{self}, ""},
		{"EE of another certificate", []TLSA{record(3, 1, 1, other)}, []*authority{leaf, mid}, "no TLSA record matches"},
		{"EE record of an authority is not the server's own", []TLSA{record(3, 0, 1, mid)}, []*authority{leaf, mid}, "no TLSA record matches"},
		{"one of two EE records, while keys change", []TLSA{record(3, 1, 1, other), record(3, 1, 1, leaf)}, []*authority{leaf}, ""},

		{"TA root in the chain", []TLSA{record(2, 0, 1, root)}, []*authority{leaf, mid, root}, ""},
		{"TA in the middle", []TLSA{record(2, 0, 1, mid)}, []*authority{leaf, mid}, ""},
		{"TA by key's SHA-512", []TLSA{record(2, 1, 2, mid)}, []*authority{leaf, mid}, ""},
		{"TA whole certificate, not in the chain", []TLSA{record(2, 0, 0, root)}, []*authority{leaf, mid}, ""},
		{"TA bare key, not in the chain", []TLSA{record(2, 1, 0, root)}, []*authority{leaf, mid}, ""},
		{"TA bare key that signed the server's own", []TLSA{record(2, 1, 0, mid)}, []*authority{leaf}, ""},
		{"TA digest of what is not in the chain", []TLSA{record(2, 0, 1, root)}, []*authority{leaf, mid}, "no TLSA record matches"},
		{"TA of a stranger", []TLSA{record(2, 0, 0, stranger)}, []*authority{leaf, mid}, "unknown authority"},
		{"TA, wrong name", []TLSA{record(2, 0, 1, mid)}, []*authority{other, mid}, "is for mx.b.example, not for mx.a.example"},
		{"TA, expired", []TLSA{record(2, 0, 1, mid)}, []*authority{old, mid}, "not valid now"},
		{"TA, name in the subject only (RFC 7672 3.2.3)", []TLSA{record(2, 0, 1, mid)}, []*authority{common, mid}, ""},
		{"a wrong EE record and a right TA", []TLSA{record(3, 1, 1, other), record(2, 0, 1, mid)}, []*authority{leaf, mid}, ""},
	} {
		for i := range c.records {
			if err := c.records[i].Unusable(); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		}
		p := &Policy{Level: DANE, TLSA: c.records, Names: []string{host}}
		told(t, c.name, p.Check(state(c.chain...), nil, at), c.want)
	}
}

func told(t *testing.T, name string, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("%s: %v", name, err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("%s: got %v, want %q", name, err, want)
	}
}

func TestRecordsThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	c := newCA()
	for _, r := range []TLSA{
		record(0, 0, 1, c), record(1, 1, 1, c), record(4, 0, 1, c), record(255, 0, 1, c), // PKIX-TA and PKIX-EE, RFC 7672 3.1.3
		{3, 2, 1, make([]byte, 32)}, {3, 1, 3, make([]byte, 32)}, {3, 1, 1, make([]byte, 31)}, {3, 1, 1, nil}, {3, 1, 2, make([]byte, 32)},
		{3, 0, 0, []byte("nonsense")}, {3, 1, 0, []byte("nonsense")}, {2, 0, 0, nil},
	} {
		if r.Unusable() == nil {
			t.Errorf("%v passes for usable", r)
		}
	}
}

func TestLevels(t *testing.T) {
	t.Parallel()
	const host = "mx.a.example"
	root := newCA()
	leaf := root.issue(issued{names: []string{host}})
	wild := root.issue(issued{names: []string{"*.a.example"}})
	old := root.issue(issued{names: []string{host}, until: at.Add(-time.Hour)})
	self := (*authority)(nil).issue(issued{names: []string{host}})
	weak := state(leaf)
	weak.Version = tls.VersionTLS11
	verify := &Policy{Level: Verify, Names: []string{host}}
	below := &Policy{Level: Verify, Names: []string{"a.example", ".a.example"}}
	for _, c := range []struct {
		name string
		p    *Policy
		st   *tls.ConnectionState
		want string
	}{
		{"nobody asks for anything", nil, nil, ""},
		{"opportunistic, plain", &Policy{Level: May}, nil, ""},
		{"none", &Policy{Level: None}, nil, ""},
		{"required, plain", &Policy{Level: Encrypt}, nil, "not encrypted"},
		{"required, self-signed", &Policy{Level: Encrypt}, state(self), ""},
		{"required, TLS 1.1", &Policy{Level: Encrypt}, weak, "less than TLS 1.2"},
		{"verified, plain", verify, nil, "not encrypted"},
		{"verified", verify, state(leaf), ""},
		{"verified, wildcard", verify, state(wild), ""},
		{"verified, self-signed", verify, state(self), "self-signed"},
		{"verified, expired", verify, state(old), "not valid now"},
		{"verified, unknown authority", verify, state(newCA().issue(issued{names: []string{host}})), "unknown authority"},
		{"verified, other name", &Policy{Level: Verify, Names: []string{"mx.b.example"}}, state(leaf), "not for mx.b.example"},
		{"verified, any name below", below, state(leaf), ""},
		{"verified, any name below, wildcard", below, state(wild), ""},
		{"verified, a name that only ends alike", &Policy{Level: Verify, Names: []string{".x.a.example"}}, state(leaf), "is for"},
		{"verified, no certificate", verify, &tls.ConnectionState{Version: tls.VersionTLS13}, "no certificate"},
		{"barred whatever it shows", &Policy{Level: Verify, Names: []string{host}, Bar: "not in the list"}, state(leaf), "not in the list"},
	} {
		told(t, c.name, c.p.Check(c.st, root.pool(), at), c.want)
	}
}
