package proxy

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"sluice/proxy/pool"
)

// TestRecipientsOfManyDomainsShareOneSession: the delivery address depends on the first recipient's domain, and a second
// recipient elsewhere must not take the transaction to another one, where nobody has heard of the first.
func TestRecipientsOfManyDomainsShareOneSession(t *testing.T) {
	t.Parallel()
	remote := newRemote(t)
	r := newRig(t, remote.addr(), func(r *rig) {
		var as []pool.Address
		for i := range 8 {
			as = append(as, pool.Address{IP: netip.AddrFrom4([4]byte{127, 0, 0, byte(20 + i)}), Helo: fmt.Sprintf("out%d.gw.example", i)})
		}
		p, err := pool.New(as...)
		must(t, err)
		r.cfg.Settings.Pool = p
	})
	p := r.hello()
	p.cmd("MAIL FROM:<a@client.example>", "250")
	for i := range 8 {
		p.cmd(fmt.Sprintf("RCPT TO:<b@d%d.example>", i), "250")
	}
	p.send(goodMail, "250")
	last, heard := "", 0
	for _, c := range remote.commands() {
		n, line, _ := strings.Cut(c, " ")
		switch {
		case strings.HasPrefix(line, "MAIL"):
			last, heard = n, 0
		case strings.HasPrefix(line, "RCPT") && n == last:
			heard++
		}
	}
	if heard != 8 {
		t.Errorf("the session that got the message heard of %d recipients, want 8: %q", heard, remote.commands())
	}
}

func TestDestinationThatLeavesBetweenRecipientsTakesTheMessageWithIt(t *testing.T) {
	t.Parallel()
	remote := newRemote(t, reply("RCPT", "250 ok", closeNow, "250 ok"))
	r := newRig(t, remote.addr())
	p := r.hello()
	p.cmd("MAIL FROM:<a@client.example>", "250")
	p.cmd("RCPT TO:<b@d0.example>", "250")
	p.cmd("RCPT TO:<b@d1.example>", "451 4.4.2")
	p.cmd("RCPT TO:<b@d2.example>", "451 4.4.2")
	p.cmd("DATA", "451 4.4.2")
	if got := remote.messages(); len(got) != 0 {
		t.Errorf("delivered to some: %q", got)
	}
	p.envelope()
	p.send(goodMail, "250")
}

func TestDestinationThatLeftUnseenBetweenRecipients(t *testing.T) {
	t.Parallel()
	left := make(chan struct{})
	remote := newRemote(t, reply("RCPT", "250 ok", "250 ok"))
	remote.before = func(verb string) {
		if verb == "RCPT" {
			select {
			case <-left:
			default:
				close(left)
			}
		}
	}
	r := newRig(t, remote.addr())
	p := r.hello()
	p.cmd("MAIL FROM:<a@client.example>", "250")
	p.cmd("RCPT TO:<b@d0.example>", "250")
	<-left
	for _, ss := range r.srv.list() {
		ss.cut.Load().Cut() // the destination is gone
	}
	p.cmd("RCPT TO:<b@d1.example>", "451 4.4.2")
	p.cmd("DATA", "451 4.4.2")
	if got := remote.messages(); len(got) != 0 {
		t.Errorf("delivered to some: %q", got)
	}
}
