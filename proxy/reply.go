package proxy

import (
	"strings"

	"sluice/filter"
	"sluice/proxy/relay"
	"sluice/proxy/smtp"
)

// replies are those of every session, made once. Each carries the gateway's name, so that nobody blames the
// recipient's postmaster for what we say (DEL15).
type replies struct {
	greeting, senderOK, rcptOK, goAhead, reset, noop, bye, verify, help []byte
}

func makeReplies(name string) replies {
	r := func(code int, enh smtp.Enhanced, text string) []byte {
		return smtp.AppendReply(nil, code, enh, name+text)
	}
	return replies{
		greeting: r(220, smtp.Enhanced{}, " ESMTP Sluice"),
		senderOK: r(250, smtp.Enhanced{2, 1, 0}, ": sender noted"),
		rcptOK:   r(250, smtp.Enhanced{2, 1, 5}, ": recipient noted"),
		goAhead:  r(354, smtp.Enhanced{}, ": go ahead, end with <CR><LF>.<CR><LF>"),
		reset:    r(250, smtp.Enhanced{2, 0, 0}, ": forgotten"),
		noop:     r(250, smtp.Enhanced{2, 0, 0}, ": still here"),
		bye:      r(221, smtp.Enhanced{2, 0, 0}, ": goodbye"),
		verify:   r(252, smtp.Enhanced{2, 5, 0}, ": cannot verify, but will pass the message on"),
		help:     r(214, smtp.Enhanced{2, 0, 0}, ": this gateway passes mail on to the destination you chose (RFC 5321)"),
	}
}

// answer is a reply of ours before it is written.
type answer struct {
	code int
	enh  smtp.Enhanced
	text string // without the gateway's name
}

// The answers of ours that do not depend on anything.
var (
	sayHelloFirst  = answer{503, smtp.Enhanced{5, 5, 1}, "say EHLO first"}
	sayMailFirst   = answer{503, smtp.Enhanced{5, 5, 1}, "say MAIL first"}
	sayRcptFirst   = answer{503, smtp.Enhanced{5, 5, 1}, "say RCPT first"}
	nestedMail     = answer{503, smtp.Enhanced{5, 5, 1}, "a transaction is open, end it with DATA or RSET"}
	inChunks       = answer{503, smtp.Enhanced{5, 5, 1}, "the message is coming in chunks, go on with BDAT"}
	binaryByChunks = answer{503, smtp.Enhanced{5, 5, 1}, "a binary message comes by BDAT"}
	chunkTooLarge  = answer{552, smtp.Enhanced{5, 3, 4}, "the chunk is larger than any message may be, closing the connection"}
	authInMail     = answer{503, smtp.Enhanced{5, 5, 1}, "a transaction is open, authenticate before it"}
	authAlready    = answer{503, smtp.Enhanced{5, 5, 1}, "you are authenticated already"}
	authUnknown    = answer{504, smtp.Enhanced{5, 5, 4}, "this mechanism is not offered"}
	authLost       = answer{421, smtp.Enhanced{4, 4, 2}, "the connection to the destination, where you authenticated, was lost"}
	noValidRcpt    = answer{554, smtp.Enhanced{5, 5, 1}, "no valid recipients"}
	notImplemented = answer{502, smtp.Enhanced{5, 5, 1}, "command not implemented"}
	notKnown       = answer{500, smtp.Enhanced{5, 5, 1}, "command not known"}
	noArgument     = answer{501, smtp.Enhanced{5, 5, 4}, "this command takes no argument"}
	tlsAlready     = answer{503, smtp.Enhanced{5, 5, 1}, "the connection is encrypted already"}
	tooManyErrors  = answer{421, smtp.Enhanced{4, 7, 0}, "too many errors, closing the connection"}
	tooMuchNoise   = answer{421, smtp.Enhanced{4, 7, 0}, "too many commands without mail, closing the connection"}
	stopping       = answer{421, smtp.Enhanced{4, 3, 2}, "the gateway is restarting, try again"}
	connectAgain   = answer{421, smtp.Enhanced{4, 3, 2}, "please connect again"}
	crowdedUser    = answer{421, smtp.Enhanced{4, 7, 0}, "Too many concurrent SMTP connections of this sender; please try again later"}
	crowded        = answer{421, smtp.Enhanced{4, 7, 0}, "Too many concurrent SMTP connections from this IP address; please try again later"}
	ownTarget      = answer{554, smtp.Enhanced{5, 4, 6}, "this destination is the gateway itself, mail for it would loop"}
	ownSource      = answer{554, smtp.Enhanced{5, 4, 6}, "this connection comes from the gateway itself, mail on it would loop"}
	unknownUser    = answer{554, smtp.Enhanced{5, 7, 1}, "mail is not accepted from this address"}
	plainOnward    = answer{451, smtp.Enhanced{4, 7, 5}, "the destination does not encrypt any more, and your connection does"}
	lostSkill      = answer{451, smtp.Enhanced{4, 4, 2}, "the destination does not offer any more what this message needs, start again"}
	lostTLS        = answer{451, smtp.Enhanced{4, 7, 30}, "the destination does not keep REQUIRETLS any more, start again"}
	lostEight      = answer{451, smtp.Enhanced{4, 6, 3}, "the destination does not take 8-bit messages any more, start again"}
	noEight        = answer{554, smtp.Enhanced{5, 6, 3}, "the destination does not take 8-bit messages (RFC 6152)"}
	lostSession    = answer{451, smtp.Enhanced{4, 4, 2}, "the connection to the destination was lost, start again"}
	notReplayed    = answer{451, smtp.Enhanced{4, 4, 2}, "the destination left and now answers otherwise, try again"}
	notApart       = answer{451, smtp.Enhanced{4, 4, 2}, "the destination answers otherwise to where this mail would leave from, try again"}
	tooManyRcpts   = answer{452, smtp.Enhanced{4, 5, 3}, "too many recipients, send the rest in another message"}
	splitTerms     = answer{452, smtp.Enhanced{4, 5, 3}, "this recipient's mail needs a better protected way, send it in another message"}
	noProof        = answer{550, smtp.Enhanced{5, 7, 30}, "REQUIRETLS cannot be kept: nothing vouches for the servers of this recipient's domain"}
	termsUnknown   = answer{451, smtp.Enhanced{4, 7, 5}, "could not find out how this recipient's mail must be protected, try again"}
	endlessRcpts   = answer{421, smtp.Enhanced{4, 5, 3}, "too many recipients in one transaction, closing the connection"}
	splitAdmin     = answer{452, smtp.Enhanced{4, 5, 3}, "send to the administrator and to others apart"}
)

// refusal makes the answer to what the filter refused, with code and link (DEL15, LOG4). A check may name the code, but
// not turn a refusal into anything else. What is withheld stays in the client's queue and comes again. Of a whole message the
// link names its id, so that its sender may say that it was no spam.
func refusal(set *resolved, v *filter.Verdict, message string) answer {
	h := v.Decisive()
	a := answer{code: 550, enh: smtp.Enhanced{5, 7, 1}}
	if v.Action != filter.Reject {
		a = answer{code: 451, enh: smtp.Enhanced{4, 7, 1}}
	}
	if h == nil {
		return a
	}
	syntax := 500 <= h.SMTP && h.SMTP <= 504 // those are for the client's mistakes, which are counted
	if 400 <= h.SMTP && h.SMTP <= 599 && !syntax && !(v.Action.Withheld() && h.SMTP >= 500) {
		a.code = h.SMTP
		a.enh[0] = uint16(a.code / 100)
	}
	if e := smtp.ParseEnhanced([]byte(h.Enhanced)); e[0] == a.enh[0] {
		a.enh = e
	}
	a.text = coded(set, h.Code, h.Text, message)
	return a
}

// coded puts the public code before a text and its page behind it.
func coded(set *resolved, code, text, message string) string {
	page := ""
	switch {
	case code == "":
	case set.HelpURL != "":
		page = set.HelpURL + code
	case set.Page != nil:
		page = set.Page(code, message)
	}
	var b strings.Builder
	b.Grow(len(code) + len(text) + len(page) + 16)
	if code != "" {
		b.WriteString("[" + code + "] ")
	}
	b.WriteString(text)
	if page != "" {
		b.WriteString("; see " + page)
	}
	return b.String()
}

// mostReason bounds how much of a lock's reason a reply tells: the whole stays one line (RFC 5321 4.5.3.1.5).
const mostReason = 120

// lockedCode is the public code of the answer to locked users.
const lockedCode = "LOCKED"

// lockedAnswer makes the answer to a locked user's message (LCK3). A lock that is not enforced has no ticket.
func lockedAnswer(set *resolved, ticket, reason string) answer {
	text := "sending is locked"
	if ticket != "" {
		text += ", ticket " + ticket
	}
	if set.Contact != "" {
		text += ", contact " + set.Contact
	}
	if reason != "" {
		text += "; reason: " + brief(reason)
	}
	return answer{451, smtp.Enhanced{4, 7, 1}, coded(set, lockedCode, text, "")}
}

// brief cuts a text to what every client may be told: one line of ASCII (RFC 5321 4.5.3.1.5, RFC 6531 3.4).
func brief(text string) string {
	n := 0
	return strings.Map(func(r rune) rune {
		if n++; n > mostReason {
			return -1
		}
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, text)
}

// lockedSession is the last answer in a session that was open when its user was locked.
func lockedSession(set *resolved, ticket, reason string) answer {
	a := lockedAnswer(set, ticket, reason)
	a.code = 421
	return a
}

// failure makes the answer to a failure of the destination, unless its own reply is to be passed on.
func failure(f *relay.Failure) answer { return answer{f.Code, f.Enh, f.Text} }
