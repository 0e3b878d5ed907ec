package delivery

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"sluice/filter/reputation/replies"
	"sluice/proxy/smtp"
	"sluice/proxy/spool"
)

// Bounds of what is remembered of recipients (FRM2).
const (
	foundTime   = 24 * time.Hour
	missingTime = 30 * time.Minute // a mailbox may be made any time
	silentTime  = 10 * time.Minute // of a server that does not say
	calloutRoom = 1 << 16          // recipients and domains; about 200 bytes each
	calloutTime = 10 * time.Second
	calloutsAt  = 8 // domains asked at once for one message
	calloutWays = 2 // addresses of a domain's servers that are tried
)

// Callouts asks recipients' servers whether they know them. It is safe for concurrent use.
type Callouts struct {
	q    *Queue
	mu   sync.Mutex
	know map[string]known // by recipient, or by "@" and domain
}

// known is what was found out.
type known struct {
	until time.Time
	reply spool.Reply // of code 5xx: nobody there; 0: somebody, or it was not said
}

// NewCallouts makes one that goes the ways of q, by its sessions.
func NewCallouts(q *Queue) *Callouts { return &Callouts{q: q, know: map[string]known{}} }

// Ask tells for each recipient of a message what the client is to hear: a reply of class 5 where his server says that there is
// nobody of that name, or where his domain takes no mail, else none (code 0).
func (c *Callouts) Ask(ctx context.Context, user uint32, from string, rcpts []smtp.Rcpt) []spool.Reply {
	out := make([]spool.Reply, len(rcpts))
	unknown := map[string][]int{}
	now := c.q.o.Now()
	c.mu.Lock()
	for i := range rcpts {
		key, domain := keysOf(&rcpts[i])
		if k, ok := c.know[key]; ok && now.Before(k.until) {
			out[i] = k.reply
		} else if k, ok := c.know["@"+domain]; ok && now.Before(k.until) {
			out[i] = k.reply
		} else if !rcpts[i].NonASCII { // of whom not every server may be asked
			unknown[domain] = append(unknown[domain], i)
		}
	}
	c.mu.Unlock()
	if len(unknown) == 0 {
		return out
	}
	ctx, cancel := context.WithTimeout(ctx, calloutTime)
	defer cancel()
	var work sync.WaitGroup
	turns := make(chan struct{}, calloutsAt)
	for domain, at := range unknown {
		work.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			if ctx.Err() == nil {
				c.domain(ctx, &call{Mail: Mail{User: user, From: from, Domain: domain}}, rcpts, at, out)
			}
		})
	}
	work.Wait()
	return out
}

// keysOf are those under which a recipient and his domain are remembered. Case before the @ is the server's affair.
func keysOf(r *smtp.Rcpt) (key, domain string) {
	domain = spool.Domain(r.Address) // it may be longer than as written: there are capital letters whose small ones have a byte more
	return r.Address[:strings.LastIndexByte(r.Address, '@')+1] + domain, domain
}

// domain asks about the recipients of one domain, those with the numbers at, and fills in out.
func (c *Callouts) domain(ctx context.Context, asked *call, rcpts []smtp.Rcpt, at []int, out []spool.Reply) {
	env := &spool.Envelope{User: asked.User, From: asked.From}
	r, err := c.q.route(ctx, env, asked.Domain)
	var n *nowhere
	switch {
	case errors.As(err, &n) && n.Code/100 == 5:
		c.remember("@"+asked.Domain, known{c.q.o.Now().Add(missingTime), n.Reply})
		for _, i := range at {
			out[i] = n.Reply
		}
		return
	case err != nil:
		return
	case len(r.ways) > 0 && r.ways[0].up != nil: // a relay takes what it is given
		return
	}
	for _, i := range at {
		asked.rcpts = append(asked.rcpts, smtp.Rcpt{Path: smtp.Path{Address: rcpts[i].Address, Domain: rcpts[i].Domain}})
	}
	for i := range r.ways[:min(len(r.ways), calloutWays)] {
		if replies := c.hear(ctx, asked, &r.ways[i]); replies != nil {
			c.learn(asked.rcpts, replies, at, out)
			return
		}
	}
	c.remember("@"+asked.Domain, known{until: c.q.o.Now().Add(silentTime)})
}

// hear leads the beginning of a transaction and takes it back. It gives the replies to the first recipients, to as many as the
// server takes (RFC 9422 4.2); nil: no answer to all of these.
func (c *Callouts) hear(ctx context.Context, asked *call, w *way) []spool.Reply {
	s, err := c.q.open(ctx, asked, w)
	if err != nil {
		return nil
	}
	stop := context.AfterFunc(ctx, s.Cut)
	h := &heard{host: w.host}
	mail := smtp.Mail{Path: smtp.Path{Address: asked.From}}
	rcpts := asked.rcpts
	if most := s.Caps().Limits.RcptMax; most > 0 {
		rcpts = rcpts[:min(len(rcpts), most)]
	}
	err = s.Recipients(&mail, rcpts, h)
	if !stop() || err != nil || s.Refused() || len(h.replies) != len(rcpts) { // a refused sender says nothing of recipients
		s.Close()
		return nil
	}
	s.Abandon()
	if !c.q.o.Dialer.Keep(asked.User, s) {
		s.Quit()
		s.Close()
	}
	return h.replies
}

// heard gathers the replies to recipients.
type heard struct {
	host    string
	replies []spool.Reply
}

func (h *heard) Answer(_ int, r *smtp.Reply) { h.replies = append(h.replies, replyOf(r, h.host)) }

// learn notes what a server said.
func (c *Callouts) learn(rcpts []smtp.Rcpt, replies []spool.Reply, at []int, out []spool.Reply) {
	now := c.q.o.Now()
	for k, i := range at[:len(replies)] {
		key, _ := keysOf(&rcpts[k])
		switch r := replies[k]; {
		case nobody(&r):
			out[i] = r
			c.remember(key, known{now.Add(missingTime), r})
		case r.Code/100 == 2:
			c.remember(key, known{until: now.Add(foundTime)})
		default:
			c.remember(key, known{until: now.Add(silentTime)})
		}
	}
}

// nobody tells whether a reply says that the recipient does not exist.
func nobody(r *spool.Reply) bool {
	return r.Code/100 == 5 && meaning(replies.Recipient, r) == replies.Unknown
}

// meaning is what a destination means by a reply to what stands at.
func meaning(at replies.At, r *spool.Reply) replies.Class {
	return replies.Shipped().Classify(at, r.Code, TextOf(r))
}

// TextOf is the text of an answer, its enhanced status code in front.
func TextOf(r *spool.Reply) string {
	if r.Enh == (smtp.Enhanced{}) {
		return r.Text
	}
	return r.Enh.String() + " " + r.Text
}

func (c *Callouts) remember(key string, k known) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.know[key]; !ok && len(c.know) >= calloutRoom {
		for old := range c.know { // map order is as good as random
			delete(c.know, old)
			break
		}
	}
	c.know[key] = k
}
