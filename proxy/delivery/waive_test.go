package delivery

import (
	"testing"

	"sluice/proxy/tlspolicy"
)

func TestWhatWaivesTLS(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]bool{
		"Subject: x\r\nTLS-Required: No\r\n\r\n":       true,
		"tls-required:  no \r\n\r\n":                   true,
		"TLS-Required: Yes\r\n\r\n":                    false,
		"TLS-Required: No\r\nTLS-Required: No\r\n\r\n": false,
		"Subject: TLS-Required: No\r\n\r\n":            false,
		"X: y\r\n TLS-Required: No\r\n\r\n":            false, // the rest of a field
		"TLS-Required No\r\n\r\n":                      false,
		"":                                             false,
	} {
		if got := waivesTLS([]byte(header)); got != want {
			t.Errorf("%q waives: %v", header, got)
		}
	}
}

// TestTLSRequiredNo: who would rather have his mail arrive than protected has it sent where it does not meet what the
// domain publishes (RFC 8689 5), unless he asked for REQUIRETLS as well, which counts more.
func TestTLSRequiredNo(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		header  string
		require bool
		want    Fate
	}{
		"waived": {"TLS-Required: No\r\n", false, Delivered}, "not waived": {"X-Required: No\r\n", false, Deferred}, "both": {"TLS-Required: No\r\n", true, Deferred},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			w.host("one.example", "127.0.0.2")
			mx := w.serveTLS("127.0.0.2")
			w.domains["one.example"].Hosts[0].Policy = &tlspolicy.Policy{Level: tlspolicy.DANE, Source: tlspolicy.TLSAs, SNI: "mx1.one.example",
				TLSA: []tlspolicy.TLSA{{Usage: 3, Matching: 1, Data: make([]byte, 32)}}}
			env := w.mail("x@one.example")
			env.RequireTLS = c.require
			w.send(env, c.header+text)
			r := w.next()
			if r.Rcpts[0].Fate != c.want || (mx.messages.Load() == 1) != (c.want == Delivered) {
				t.Errorf("%+v, note %q", r.Rcpts[0], r.Note)
			}
		})
	}
}
