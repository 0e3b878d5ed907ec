package demo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"time"

	"sluice/scripts/lab"
)

// sinkAddr is the MX of sink.example and of d01 to d30.example.
const sinkAddr = "198.51.100.20:25"

// ham sends the same good messages twice from the same clients, once past the gateway's proxy and once through it, and
// compares what arrives.
func (d *demo) ham(ctx context.Context) error {
	messages, origin, err := ham(d.options.Messages)
	if err != nil {
		return err
	}
	d.chapter(fmt.Sprintf("Good mail: %d messages, %s", len(messages), origin))
	d.say("alice sends each from her own Postfix and from a script that talks to port 25, first in mode pass, then intercepted;")
	d.say("neither knows about the gateway.")
	postfix, err := d.lab.Postfix(ctx, "alice")
	if err != nil {
		return err
	}
	direct, err := d.sendAll(ctx, postfix, messages)
	if err != nil {
		return fmt.Errorf("in mode pass: %w", err)
	}
	if err := d.setMode(ctx, "intercept", "alice"); err != nil {
		return err
	}
	through, err := d.sendAll(ctx, postfix, messages)
	if err != nil {
		return fmt.Errorf("intercepted: %w", err)
	}
	d.compare(direct, through, 2*len(messages))
	d.say("$ sluice log --user alice --limit 5")
	if err := d.sluice(ctx, "log", "--user", "alice", "--limit", "5"); err != nil {
		return err
	}
	return d.attributed(ctx, through)
}

// sendAll sends every message by both ways and returns what arrived, by recipient.
func (d *demo) sendAll(ctx context.Context, postfix *lab.MTA, messages [][]byte) (map[string]*lab.Message, error) {
	sink := d.lab.Sink("sink")
	sink.Reset()
	var wg sync.WaitGroup
	var queueErr, scriptErr error
	wg.Go(func() { queueErr = sendQueue(ctx, postfix, messages) })
	wg.Go(func() { scriptErr = d.sendScript(ctx, messages) })
	wg.Wait()
	if queueErr != nil {
		return nil, queueErr
	}
	if scriptErr != nil {
		return nil, scriptErr
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	got, err := sink.Wait(ctx, 2*len(messages))
	if err != nil {
		return nil, fmt.Errorf("%d of %d messages arrived: %w", len(sink.Messages()), 2*len(messages), err)
	}
	arrived := map[string]*lab.Message{}
	for _, m := range got {
		arrived[strings.Join(m.Recipients(), ",")] = m
	}
	return arrived, nil
}

// sendQueue hands the messages to the customer's mail server, as a web application does.
func sendQueue(ctx context.Context, postfix *lab.MTA, messages [][]byte) error {
	for i, m := range messages {
		rcpt := fmt.Sprintf("queue%03d@d%02d.example", i, i%lab.Domains+1)
		mail := lab.Mail{From: "alice@alice.example", To: []string{rcpt}, Data: unixLines(readdress(m, rcpt))}
		if err := postfix.Send(ctx, mail); err != nil {
			return fmt.Errorf("hand message %d to alice's Postfix: %w", i, err)
		}
	}
	return nil
}

// sendScript talks to the MX's port 25 itself, ten messages per connection.
func (d *demo) sendScript(ctx context.Context, messages [][]byte) error {
	var c *lab.Client
	for i, m := range messages {
		if i%10 == 0 {
			var err error
			if c, err = d.lab.Hello(ctx, "alice", "", sinkAddr); err != nil {
				return err
			}
		}
		rcpt := fmt.Sprintf("script%03d@sink.example", i)
		_, last, err := c.Send("alice@alice.example", []string{rcpt}, readdress(m, rcpt))
		if err != nil {
			return err
		}
		if last.Code != 250 {
			return fmt.Errorf("message %d by script was answered %s", i, last)
		}
		if i%10 == 9 || i == len(messages)-1 {
			if err := c.Quit(); err != nil {
				return err
			}
		}
	}
	return nil
}

// compare states that what arrived through the proxy is what arrived past it.
func (d *demo) compare(direct, through map[string]*lab.Message, want int) {
	same, differ, traced, managed := 0, "", 0, 0
	for rcpt, a := range direct {
		b := through[rcpt]
		if b == nil {
			differ = rcpt + " did not arrive"
			continue
		}
		body, ok := withoutTrace(b.Data)
		if ok {
			traced++
		}
		if deliveryAddress(b.Peer.Addr()) {
			managed++
		}
		if bytes.Equal(maskQueue(a.Data), maskQueue(body)) {
			same++
		} else {
			differ = rcpt + ": " + firstDifference(maskQueue(a.Data), maskQueue(body))
		}
	}
	d.check(same == want, fmt.Sprintf("%d of %d arrived byte for byte as in mode pass, one trace header aside", same, want), "%s", differ)
	d.check(traced == want, fmt.Sprintf("%d of %d carry exactly one added header", traced, want), "")
	d.check(managed == want, fmt.Sprintf("%d of %d came from a delivery address, none from the customer's", managed, want), "")
	for _, m := range through {
		rest, _ := withoutTrace(m.Data)
		d.say("the header that was added to the message for %s:", strings.Join(m.Recipients(), ","))
		d.quote(string(m.Data[:len(m.Data)-len(rest)]))
		break
	}
}

// attributed states that the message log names the user of every message.
func (d *demo) attributed(ctx context.Context, through map[string]*lab.Message) error {
	out, err := d.gateway.Sluice(ctx, "log", "--user", "alice", "--status", "delivered", "--limit", "10000", "--json")
	if err != nil {
		return err
	}
	named := 0
	for rcpt := range through {
		if strings.Contains(out.Stdout, rcpt) {
			named++
		}
	}
	d.check(named == len(through), fmt.Sprintf("%d of %d stand in the message log under user alice", named, len(through)), "")
	return nil
}

func deliveryAddress(a netip.Addr) bool {
	a = a.Unmap()
	return lab.DeliveryV4.Contains(a) || lab.DeliveryV6.Contains(a)
}

// withoutTrace takes the gateway's own Received field off the top of a message.
func withoutTrace(data []byte) ([]byte, bool) {
	if !bytes.HasPrefix(data, []byte("Received: ")) {
		return data, false
	}
	for i := 0; ; {
		nl := bytes.IndexByte(data[i:], '\n')
		if nl < 0 {
			return data, false
		}
		i += nl + 1
		if i < len(data) && data[i] != ' ' && data[i] != '\t' {
			return data[i:], bytes.Contains(data[:i], []byte("by gw1.provider.example"))
		}
	}
}

// queueMark is what a Postfix writes anew at each submission: its queue id and the date behind it.
var queueMark = regexp.MustCompile(`(\(Postfix, from userid \d+\)\r\n\tid )[0-9A-F]+; [^\r]*`)

func maskQueue(data []byte) []byte { return queueMark.ReplaceAll(data, []byte("${1}X; then")) }

func firstDifference(a, b []byte) string {
	i := 0
	for i < len(a) && i < len(b) && a[i] == b[i] {
		i++
	}
	cut := func(s []byte) string { return fmt.Sprintf("%.40q", s[min(i, len(s)):]) }
	return fmt.Sprintf("at byte %d %s became %s (sums %x, %x)", i, cut(a), cut(b), sha256.Sum256(a), sha256.Sum256(b))
}

func unixLines(data []byte) []byte { return bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n")) }
