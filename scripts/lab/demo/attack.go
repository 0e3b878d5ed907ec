package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"sluice/scripts/lab"
)

// victim is the MX that the compromised server spams; nobody else in the demo writes to it.
const (
	victim     = "plain"
	victimAddr = "198.51.100.25:25"
)

// gtube is the line that every filter takes for spam (Generic Test for Unsolicited Bulk Email).
const gtube = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"

func spam(n int) []byte {
	return fmt.Appendf(nil, "From: <www@mallory.example>\r\nTo: <u%d@plain.example>\r\nSubject: offer %d\r\n\r\n%s\r\nOffer number %d, only today.\r\n", n, n, gtube, n)
}

func good(text string) []byte {
	return fmt.Appendf(nil, "From: <shop@mallory.example>\r\nTo: <customer@plain.example>\r\nSubject: invoice\r\n\r\n%s\r\n", text)
}

// attack is the story of a compromised server beside a customer who behaves.
func (d *demo) attack(ctx context.Context) error {
	d.chapter(fmt.Sprintf("A customer who behaves: bob sends %d messages a second and is watched for %v", perSecond, d.options.Quiet))
	postfix, err := d.lab.Postfix(ctx, "mallory")
	if err != nil {
		return err
	}
	bob := startSteady(ctx, d.lab)
	defer bob.end()
	quiet, err := d.begin()
	if err != nil {
		return err
	}
	select {
	case <-time.After(d.options.Quiet):
	case <-ctx.Done():
		return ctx.Err()
	}
	before, err := quiet.others()
	if err != nil {
		return err
	}
	bob.attacked()
	attack, err := d.begin()
	if err != nil {
		return err
	}

	d.chapter("A compromised server: mallory begins to spam")
	open, err := d.openSessions(ctx)
	if err != nil {
		return err
	}
	ticket, err := d.fiveSpams(ctx)
	if err != nil {
		return err
	}
	uplink, err := d.lab.Capture(ctx, lab.HostGateway, "up0", "tcp and (host 198.51.100.25 or host 2001:db8:100::25 or host 192.0.2.66)")
	if err != nil {
		return err
	}
	inside, err := d.lab.Capture(ctx, "mallory", "eth0", "tcp port 25")
	if err != nil {
		return err
	}
	if err := open.afterLock(d, ticket); err != nil {
		return err
	}
	if err := d.explainedThenReset(ctx, postfix, ticket); err != nil {
		return err
	}
	d.keepTrying(ctx, 45*time.Second)
	if err := d.packets(uplink, inside); err != nil {
		return err
	}
	if err := d.unlock(ctx, postfix); err != nil {
		return err
	}
	bob.end()
	during, err := attack.others()
	if err != nil {
		return err
	}
	d.unharmed(bob, max(before, during))
	return nil
}

// sessions are mallory's connections that were open before the lock: one between two messages, two within one.
type sessions struct{ idle, good, spam *lab.Client }

func (d *demo) openSessions(ctx context.Context) (s sessions, err error) {
	for _, c := range []**lab.Client{&s.idle, &s.good, &s.spam} {
		if *c, err = d.lab.Hello(ctx, "mallory", "", victimAddr); err != nil {
			return s, err
		}
	}
	for _, c := range []*lab.Client{s.good, s.spam} {
		for _, line := range []string{"MAIL FROM:<shop@mallory.example>", "RCPT TO:<customer@plain.example>", "DATA"} {
			if r, err := c.Cmd(line); err != nil || r.Code/100 > 3 {
				return s, fmt.Errorf("%s: %v %w", line, r, err)
			}
		}
	}
	return s, nil
}

// fiveSpams sends what locks a user and returns the lock's ticket.
func (d *demo) fiveSpams(ctx context.Context) (ticket string, err error) {
	before := len(d.lab.Sink(victim).Messages())
	c, err := d.lab.Hello(ctx, "mallory", "", victimAddr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	refused := 0
	for n := 1; n <= 5; n++ {
		_, last, err := c.Send("www@mallory.example", []string{fmt.Sprintf("u%d@plain.example", n)}, spam(n))
		if err != nil {
			return "", err
		}
		text := last.String()
		if strings.HasPrefix(text, "550 5.7.1") && strings.Contains(text, "gw1.provider.example") &&
			strings.Contains(text, "[GTUBE]") && strings.Contains(text, "https://mail-help.provider.example/") {
			refused++
		}
		if n == 1 {
			d.quote(last.Raw)
		}
	}
	answered := time.Now()
	d.check(refused == 5, fmt.Sprintf("%d of 5 spams in five bodies were answered 550 5.7.1 with gateway, code, reason and link", refused), "")
	d.check(len(d.lab.Sink(victim).Messages()) == before, "none of them reached the MX", "")

	out, err := d.gateway.Sluice(ctx, "locks", "--json")
	if err != nil {
		return "", err
	}
	var locks []struct {
		Ticket string    `json:"ticket"`
		User   string    `json:"user"`
		Since  time.Time `json:"since"`
	}
	if err := json.Unmarshal([]byte(out.Stdout), &locks); err != nil {
		return "", fmt.Errorf("sluice locks --json: %w: %s", err, out.Stdout+out.Stderr)
	}
	if len(locks) == 1 && locks[0].User == "mallory" {
		ticket = locks[0].Ticket
	}
	early := ticket != "" && locks[0].Since.Before(answered)
	detail := "no lock"
	if early {
		detail = fmt.Sprintf("%v before the reply was read", answered.Sub(locks[0].Since).Round(10*time.Microsecond))
	}
	d.check(early, "the lock existed before the reply to the fifth", "%s", detail)
	if ticket == "" {
		return "", errors.New("there is no lock on mallory; the rest of the story has no ground")
	}
	d.say("$ sluice locks")
	return ticket, d.sluice(ctx, "locks")
}

// afterLock tells how the sessions end that were open when the lock came.
func (s sessions) afterLock(d *demo, ticket string) error {
	for _, open := range []struct {
		c    *lab.Client
		body []byte
		code int // of the message's answer
		what string
	}{
		{s.idle, nil, 0, "an open session between two messages hears 421 with reason and ticket at once"},
		{s.good, good("a good mail in a session that was open"), 451, "within a good mail: 451 with the ticket at the end of data, then 421"},
		{s.spam, spam(6), 550, "within a spam: 550 at the end of data, then 421"},
	} {
		ok := true
		if open.body != nil {
			if _, err := open.c.Write(lab.Stuff(open.body)); err != nil {
				return err
			}
			r, err := open.c.Reply()
			if err != nil {
				return err
			}
			ok = r.Code == open.code && (open.code == 550 || strings.Contains(r.String(), ticket))
		}
		r, err := open.c.Reply()
		if err != nil {
			return err
		}
		if open.body == nil {
			d.quote(r.Raw)
		}
		d.check(ok && r.Code == 421 && strings.Contains(r.String(), ticket), open.what, "")
		_ = open.c.Close() // the gateway has left
	}
	return nil
}

// explainedThenReset makes the ten connections of a minute that get an explanation, the first by mallory's own mail
// server, and the eleventh.
func (d *demo) explainedThenReset(ctx context.Context, postfix *lab.MTA, ticket string) error {
	mail := lab.Mail{From: "shop@mallory.example", To: []string{"customer@plain.example"}, Data: unixLines(good("a good mail that waits in the queue"))}
	if err := postfix.Send(ctx, mail); err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	attempts, err := postfix.WaitDeliveries(waiting, func(all []lab.Delivery) bool { return len(all) > 0 })
	if err != nil {
		return fmt.Errorf("mallory's Postfix said nothing of its good mail: %w", err)
	}
	first := attempts[0]
	d.check(first.Status == lab.Deferred && strings.Contains(first.Reply, ticket), "mallory's own mail server keeps its good mail, with the ticket", "%s", first.Reply)
	// A mail server tries both addresses of the MX, so how many of the ten are left is counted in the packets.
	explained, tried := 0, 0
	for ; tried < 10; tried++ {
		c, err := d.lab.Hello(ctx, "mallory", "", victimAddr)
		if err != nil {
			d.check(errors.Is(err, syscall.ECONNREFUSED), "the 11th was reset by the gateway", "%v", err)
			break
		}
		if _, last, err := c.Send("shop@mallory.example", []string{"customer@plain.example"}, good("again")); err == nil && last.Code == 451 && strings.Contains(last.String(), ticket) {
			explained++
		}
		c.Close()
	}
	d.check(tried > 0 && tried < 10 && explained == tried, fmt.Sprintf("%d more connections, by a script, got the explanation by SMTP", explained), "")
	return nil
}

// keepTrying is what a spamming script does then.
func (d *demo) keepTrying(ctx context.Context, long time.Duration) {
	tries, refused := 0, 0
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(long); time.Now().Before(end) && ctx.Err() == nil; <-tick.C {
		c, err := d.lab.Dial(ctx, "mallory", "", victimAddr)
		tries++
		if err != nil {
			refused++
			continue
		}
		c.Close()
	}
	d.check(refused == tries, fmt.Sprintf("%d more tries in %v: all reset in the kernel", tries, long), "%d", refused)
}

// packets looks at both sides of the gateway for the time of the lock.
func (d *demo) packets(uplink, inside *lab.Capture) error {
	out, err := uplink.Stop()
	if err != nil {
		return err
	}
	in, err := inside.Stop()
	if err != nil {
		return err
	}
	served, resets := explainedBefore(in)
	d.check(served == 10, fmt.Sprintf("in the packets on the customer's side, %d new connections were served before the first reset", served), "%d resets", resets)
	syns := out.SYNs()
	d.check(len(syns) == 0, "on the uplink there was nothing: no connection for mallory while locked", "%d SYNs", len(syns))
	return nil
}

// explainedBefore counts the connections that were accepted before the first one that was reset, and the resets.
func explainedBefore(ps lab.Packets) (served, resets int) {
	for _, p := range ps {
		switch {
		case p.Src.Port() == 25 && p.RST:
			resets++
		case p.Src.Port() == 25 && p.SYN && p.ACK && resets == 0:
			served++
		}
	}
	return served, resets
}

// unlock lifts the lock and follows the good mail out of the customer's own queue.
func (d *demo) unlock(ctx context.Context, postfix *lab.MTA) error {
	d.say("$ sluice unlock mallory --reason 'script removed'")
	if err := d.sluice(ctx, "unlock", "mallory", "--reason", "script removed"); err != nil {
		return err
	}
	start := time.Now()
	c, err := d.lab.Hello(ctx, "mallory", "", victimAddr)
	took := time.Since(start)
	if err == nil {
		c.Quit()
	}
	d.check(err == nil && took < 100*time.Millisecond, "after unlock the first connection is served within 100 ms", "%v", took.Round(10*time.Microsecond))
	if err := postfix.Flush(ctx); err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := postfix.WaitEmpty(waiting); err != nil {
		return fmt.Errorf("mallory's queue does not empty after unlock: %w", err)
	}
	arrived := 0
	for _, m := range d.lab.Sink(victim).Messages() {
		if strings.Contains(string(m.Data), "waits in the queue") {
			arrived++
		}
	}
	d.check(arrived == 1, "the good mail then arrives from the customer's own queue, exactly once", "%d times", arrived)
	return nil
}

// othersWork is the share of the processors, in use by others than the gateway while the demo itself does little, from which
// on other programs decide how long mail takes.
const othersWork = 0.4

// unharmed states that the customer who behaves noticed nothing.
func (d *demo) unharmed(bob *steady, busy float64) {
	before, during := percentile(bob.took[0], 0.99), percentile(bob.took[1], 0.99)
	d.check(len(bob.others) == 0, fmt.Sprintf("meanwhile bob sent %d messages and heard no reply but the MX's", len(bob.took[0])+len(bob.took[1])), "%s", strings.Join(bob.others, "; "))
	const fact = "his p99 stayed within 1.2 times that of the minute before"
	seen := fmt.Sprintf("%v, before %v; median %v, before %v", during.Round(10*time.Microsecond), before.Round(10*time.Microsecond),
		percentile(bob.took[1], 0.5).Round(10*time.Microsecond), percentile(bob.took[0], 0.5).Round(10*time.Microsecond))
	if busy > othersWork && during > before*12/10 {
		d.say("not judged: whether %s (%s); other programs had the processors busy then, %.0f %%", fact, seen, busy*100)
		return
	}
	d.check(during <= before*12/10, fact, "%s", seen)
}
