package proxy

import (
	"crypto/tls"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"sluice/filter/policy"
	"sluice/proxy/relay"
)

// passing treats the user's STARTTLS so, from a loopback that has every customer's address.
func passing(how policy.StartTLS) func(*rig) {
	return func(r *rig) {
		r.policy.StartTLS, r.policy.StartTLSWhy = how, "they asked for it"
		r.cfg.Dialer = relay.NewDialer(relay.Options{Own: &shadowDialer{}, Keep: wait})
	}
}

// ruled is the rule of one destination.
type ruled struct {
	target netip.AddrPort
	how    policy.StartTLS
}

func (x ruled) Towards(target netip.AddrPort) (policy.StartTLS, string, bool) {
	return x.how, "a rule", target == x.target
}

// throughTLS sends one message under TLS and leaves.
func (p *peer) throughTLS(t *testing.T) tls.ConnectionState {
	t.Helper()
	st := p.startTLS()
	p.cmd("EHLO client.example", "250")
	p.envelope()
	p.send(goodMail, "250 2.0.0 queued")
	p.write("QUIT\r\n")
	p.reply()
	must(t, p.nc.Close())
	return st
}

// TestPassedTLS: with pass the client's handshake is with its destination; how much went by is known, and what it was is not.
func TestPassedTLS(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, remoteTLS(t))
	r := newRig(t, mx.addr(), withTLS, passing(policy.Pass))
	p := r.dial()
	if got := p.cmd("EHLO client.example", "250"); !strings.Contains(got, "STARTTLS") || !strings.Contains(got, "gw.example greets") {
		t.Fatalf("EHLO is answered %q", got)
	}
	if st := p.throughTLS(t); !slices.Contains(st.PeerCertificates[0].DNSNames, "mx.sink.example") {
		t.Errorf("the client sees the certificate of %v", st.PeerCertificates[0].DNSNames)
	}
	rec := r.log.wait(t, 1)[0]
	if rec.Status != NoMessage || rec.In.Version != Opaque || rec.Shadow || !rec.Source.IsLoopback() || !strings.HasPrefix(rec.Note, "encrypted: STARTTLS was passed on") {
		t.Errorf("record %+v", rec)
	}
	if rec.Unread.Out < int64(len(goodMail)) || rec.Unread.In < 500 {
		t.Errorf("%d bytes out and %d in went by", rec.Unread.Out, rec.Unread.In)
	}
	if got := mx.messages(); len(got) != 1 || !strings.HasPrefix(got[0], goodMail) {
		t.Errorf("the destination got %q", got)
	}
	if n := r.locks.judged.Load(); n != 0 {
		t.Errorf("%d messages were judged", n)
	}
}

// TestPassedTLSAfterPlainMail: what comes in plain text is a session like any other, before and without STARTTLS.
func TestPassedTLSAfterPlainMail(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, remoteTLS(t))
	r := newRig(t, mx.addr(), withTLS, passing(policy.Pass))
	p := r.hello()
	p.envelope()
	p.send(goodMail, "250")
	p.throughTLS(t)
	all := r.log.wait(t, 2)
	if all[0].Status != Delivered || all[0].Out.Version == "" || all[0].In.Version != "" {
		t.Errorf("the plain message: %+v", all[0])
	}
	if all[1].In.Version != Opaque || all[1].Unread.Out == 0 {
		t.Errorf("the rest: %+v", all[1])
	}
	if r.locks.judged.Load() != 1 {
		t.Errorf("%d messages were judged", r.locks.judged.Load())
	}
}

// TestPassedTLSThatIsRefused: the destination's refusal is the client's, who goes on in plain text as it would directly.
func TestPassedTLSThatIsRefused(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, remoteTLS(t), reply("STARTTLS", "454 4.7.0 not now", "220 go"))
	r := newRig(t, mx.addr(), withTLS, passing(policy.Pass))
	p := r.hello()
	p.cmd("STARTTLS", "454 4.7.0 not now")
	p.envelope()
	p.send(goodMail, "250")
	p.cmd("QUIT", "221")
	if rec := r.log.wait(t, 1)[0]; rec.Status != Delivered || rec.In.Version != "" {
		t.Errorf("record %+v", rec)
	}
}

// TestPassedTLSNotOffered: a destination without STARTTLS promises none through us.
func TestPassedTLSNotOffered(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr(), withTLS, passing(policy.Pass))
	p := r.dial()
	if got := p.cmd("EHLO client.example", "250"); strings.Contains(got, "STARTTLS") {
		t.Errorf("EHLO is answered %q", got)
	}
	p.cmd("STARTTLS", "502")
	p.envelope()
	p.send(goodMail, "250")
}

// TestPassedTLSThrowsPlainTextAway: what either side says in the clear behind STARTTLS reaches nobody.
func TestPassedTLSThrowsPlainTextAway(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, remoteTLS(t), reply("STARTTLS", "220 go\r\n250 injected"))
	r := newRig(t, mx.addr(), withTLS, passing(policy.Pass))
	p := r.hello()
	p.write("STARTTLS\r\nMAIL FROM:<evil@client.example>\r\n")
	p.want("220 go")
	p.handshake()
	p.cmd("EHLO client.example", "250-mx.sink.example")
	p.cmd("QUIT", "250")
	p.closed()
	if said := mx.commands(); slices.ContainsFunc(said, func(s string) bool { return strings.Contains(s, "evil") }) {
		t.Errorf("the destination heard %q", said)
	}
	if rec := r.log.wait(t, 1)[0]; !strings.Contains(rec.Note, "bytes behind STARTTLS") || rec.In.Version != Opaque {
		t.Errorf("record %+v", rec)
	}
}

// TestPassedTLSIsNoWayForPlainText: behind STARTTLS goes TLS and nothing else, whatever the destination would take.
func TestPassedTLSIsNoWayForPlainText(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, func(r *remote) { r.ehlo = append(r.ehlo, "STARTTLS") }, func(r *remote) { r.noTLS = true }) // agrees, and goes on in plain text
	r := newRig(t, mx.addr(), withTLS, passing(policy.Pass))
	p := r.hello()
	p.cmd("STARTTLS", "220 go")
	p.write("MAIL FROM:<evil@client.example>\r\nRCPT TO:<b@sink.example>\r\nDATA\r\n")
	if b, err := p.br.ReadByte(); err == nil {
		t.Errorf("got %q", b)
	}
	if rec := r.log.wait(t, 1)[0]; rec.Note != noTLSNote || rec.Unread.Out != 0 {
		t.Errorf("record %+v", rec)
	}
	if said := mx.commands(); slices.ContainsFunc(said, func(s string) bool { return strings.Contains(s, "evil") }) {
		t.Errorf("the destination heard %q", said)
	}
}

// TestLockEndsPassedTLS: what nobody reads ends with its user's lock, and a locked user is led by us.
func TestLockEndsPassedTLS(t *testing.T) {
	t.Parallel()
	for name, lock := range map[string]func(*rig){
		"at his next bytes": func(r *rig) { r.srv.Locked(7) },
		"at once":           func(r *rig) { r.srv.Locked(7); r.srv.Cut(7) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mx := newRemote(t, remoteTLS(t))
			r := newRig(t, mx.addr(), withTLS, passing(policy.Pass))
			p := r.hello()
			p.startTLS()
			p.cmd("EHLO client.example", "250")
			if live := r.srv.Flows(); len(live) != 1 || live[0].State != "unread" || !live[0].TLS {
				t.Errorf("the session shows as %+v", live)
			}
			r.locks.lock("T7")
			lock(r)
			_, _ = p.nc.Write([]byte("MAIL FROM:<late@client.example>\r\n")) // it may be closed already
			if b, err := p.br.ReadByte(); err == nil {
				t.Errorf("got %q", b)
			}
			rec := r.log.wait(t, 1)[0]
			if rec.In.Version != Opaque || name == "at his next bytes" && (rec.Note != "the user was locked" || rec.Ticket != "T7") {
				t.Errorf("record %+v", rec)
			}
			if said := mx.commands(); slices.ContainsFunc(said, func(s string) bool { return strings.Contains(s, "late") }) {
				t.Errorf("the destination heard %q", said)
			}
			p = r.hello()
			if st := p.startTLS(); !slices.Contains(st.PeerCertificates[0].DNSNames, "gw.example") {
				t.Errorf("a locked user's handshake is with %v", st.PeerCertificates[0].DNSNames)
			}
			p.cmd("EHLO client.example", "250")
			p.envelope()
			p.send(goodMail, "451 4.7.1")
		})
	}
}

// TestStripOnlyWhereSaid: STARTTLS is kept from the client where somebody said so, and the log tells; a destination's rule
// is stronger than the user's setting.
func TestStripOnlyWhereSaid(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		user, rule policy.StartTLS
		ruled      bool
		strips     bool
		passes     bool
		why        string
	}{
		"user":                  {user: policy.Strip, strips: true, why: "they asked for it"},
		"destination":           {rule: policy.Strip, ruled: true, strips: true, why: "a rule"},
		"destination over user": {user: policy.Strip, rule: policy.Terminate, ruled: true},
		"pass over strip":       {user: policy.Strip, rule: policy.Pass, ruled: true, passes: true},
		"nobody":                {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mx := newRemote(t, remoteTLS(t))
			r := newRig(t, mx.addr(), withTLS, passing(tc.user), func(r *rig) {
				if tc.ruled {
					r.cfg.StartTLS = ruled{mx.addr(), tc.rule}
				}
			})
			p := r.dial()
			offered := strings.Contains(p.cmd("EHLO client.example", "250"), "STARTTLS")
			if offered == tc.strips {
				t.Fatalf("offered: %v", offered)
			}
			if !offered {
				p.cmd("STARTTLS", "502")
			} else if st := p.startTLS(); slices.Contains(st.PeerCertificates[0].DNSNames, "mx.sink.example") != tc.passes {
				t.Errorf("the handshake is with %v", st.PeerCertificates[0].DNSNames)
			} else {
				p.cmd("EHLO client.example", "250")
			}
			p.envelope()
			p.send(goodMail, "250")
			p.write("QUIT\r\n")
			p.reply()
			must(t, p.nc.Close())
			rec := r.log.wait(t, 1)[0]
			if said := strings.Contains(rec.Note, "STARTTLS was not offered"); said != tc.strips || said && !strings.Contains(rec.Note, tc.why) {
				t.Errorf("the log says %q", rec.Note)
			}
		})
	}
}

// TestNothingStrippedOfADestinationWithoutTLS: the log does not claim what was not there.
func TestNothingStrippedOfADestinationWithoutTLS(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr(), withTLS, passing(policy.Strip))
	p := r.hello()
	p.envelope()
	p.send(goodMail, "250")
	if rec := r.log.wait(t, 1)[0]; rec.Note != "" {
		t.Errorf("the log says %q", rec.Note)
	}
}
