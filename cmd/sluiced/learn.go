package main

import (
	"hash/fnv"
	"strconv"
	"strings"

	"sluice/filter/lock"
	"sluice/filter/lock/ladder"
	mail "sluice/filter/message"
	"sluice/filter/reputation/replies"
	"sluice/intercept/flow"
	"sluice/proxy"
)

// learn tells the locks what destinations said of a message (REP3): recipients that they know or do not know, and what
// they took for spam. It runs behind the answer to the client.
func (d *daemon) learn(r *proxy.Record) {
	if d.locks == nil || r.Flow.User.ID == 0 || r.Shadow || r.Status == proxy.Observed || r.Status == proxy.NoMessage || r.Remote == "" && !r.Source.IsValid() {
		return
	}
	ours := d.cfg.Load().Gateway.Name
	for i := range r.To {
		t := &r.To[i]
		switch {
		case strings.Contains(t.Reply, ours):
		case t.Code/100 == 2:
			d.locks.Tell(r.Flow.User, r.Identity, ladder.Event{Kind: ladder.Known}, lock.Evidence{})
		case unknown(t.Code, t.Reply, t.Behind):
			d.locks.Tell(r.Flow.User, r.Identity, ladder.Event{Kind: ladder.Unknown}, said(r, "RCPT-UNKNOWN", t.Address+": "+t.Reply))
		}
	}
	if r.Status == proxy.Refused && !stopped(r) && meaningOf(r.Remote) == replies.Spam {
		d.locks.Tell(r.Flow.User, r.Identity, ladder.Event{Kind: ladder.Remote, Print: likePrint(r)}, said(r, "REMOTE-SPAM", r.Remote))
	}
}

// unknown tells whether a destination's answer, code and text, means that the recipient, or his domain, is not there for good.
func unknown(code int, text string, behind bool) bool {
	at := replies.Recipient
	if behind {
		at = replies.Message
	}
	return code/100 == 5 && replies.Shipped().Classify(at, code, text) == replies.Unknown
}

// said is a destination's reply as evidence of a lock.
func said(r *proxy.Record, code, text string) lock.Evidence {
	return lock.Evidence{Message: r.ID, At: r.Start, From: r.From, Check: "remote", Code: code, Class: "policy", Detail: text[:min(len(text), 200)]}
}

// meaningOf is what a destination means by its reply, code and all.
func meaningOf(reply string) replies.Class {
	if len(reply) < 4 {
		return replies.Other
	}
	code, err := strconv.Atoi(reply[:3])
	if err != nil {
		return replies.Other
	}
	return replies.Shipped().Classify(replies.Anywhere, code, reply[4:])
}

// likePrint names the text of a message that is gone by now: copies have the same group, else the same sender's domain and
// about the same size.
func likePrint(r *proxy.Record) uint64 {
	if r.Group != 0 {
		return ladder.Spread(r.Group)
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(strings.ToLower(mail.Address(r.From).Domain())))
	return ladder.Spread(h.Sum64() ^ uint64(r.Size)>>9)
}

// guessed hears how attempts to authenticate at destinations ended: whoever guesses passwords from here is locked.
type guessed struct{ d *daemon }

func (g guessed) Authenticated(f *flow.Flow, accepted bool) {
	g.d.figures.authenticated(f, accepted)
	if !accepted {
		g.d.locks.Tell(f.User, "", ladder.Event{Kind: ladder.Guess}, lock.Evidence{Message: f.ID.String(), Check: "auth", Code: "AUTH-GUESS", Class: "policy", Detail: f.Target.String() + " refused a login"})
	}
}
