// Package relay leads the onward SMTP session of a cut-through: it connects to the destination the customer meant,
// encrypts when it can, and goes on in lock-step with the client.
package relay

import (
	"errors"
	"net/netip"
	"time"

	"sluice/proxy/smtp"
)

// Route is from where to where a session leads.
type Route struct {
	Target netip.AddrPort
	Source netip.Addr // the address to leave from; invalid leaves it to the host
	Own    bool       // Source is the customer's own address, not one of ours
	Helo   string     // the name to give in EHLO
}

// Caps are what a destination can do, as seen from one source address.
type Caps struct {
	smtp.Extensions
	ESMTP     bool     // it answered EHLO; false: HELO only
	Encrypted bool     // the leg is encrypted: STARTTLS was offered and the handshake succeeded
	Verified  bool     // and the certificate proves who it is, by a policy of the destination's own (RFC 8689 4.2.1)
	AsksCert  bool     // it asked for a certificate of ours in the handshake
	WantsCert bool     // and goes on under TLS with nobody who has none: the leg is in plain text
	PlainAuth []string // mechanisms offered before STARTTLS, where Encrypted
	Greeting  string   // first line of its greeting, without the code
	Name      string   // what it calls itself in the reply to EHLO
}

// Timeouts bound the waits for a destination; zero fields mean the defaults. A wait for a reply ends between its
// time-out and a quarter more, hence four minutes where the client is to be answered within five.
type Timeouts struct {
	Connect   time.Duration // TCP connect; 25 s
	Greeting  time.Duration // greeting and EHLO; 2 min, or Command where that is less
	Handshake time.Duration // STARTTLS; 20 s, after which the client, who waits, gets on in plain text where that may be
	Command   time.Duration // every other reply before the body, and each write (RFC 5321 4.5.3.2: 5 min); 4 min
	Final     time.Duration // reply to the final dot (RFC 5321 4.5.3.2.6: 10 min); 9 min
}

func (t Timeouts) orDefaults() Timeouts {
	or := func(d *time.Duration, def time.Duration) {
		if *d <= 0 {
			*d = def
		}
	}
	or(&t.Connect, 25*time.Second)
	or(&t.Command, 4*time.Minute)
	or(&t.Greeting, min(2*time.Minute, t.Command))
	or(&t.Handshake, 20*time.Second)
	or(&t.Final, 9*time.Minute)
	return t
}

// Failure is why a destination could not be used, and what the client is to hear of it.
type Failure struct {
	Code  int           // reply code
	Enh   smtp.Enhanced // enhanced status code (RFC 3463)
	Text  string        // for the client: what happened, without the gateway's name
	Raw   []byte        // the destination's own reply where that is to be passed on verbatim, else nil
	Close bool          // the client's session ends with the reply
	Cert  bool          // under TLS the destination asked for a certificate of ours, and goes on with nobody who has none
	Sent  bool          // the final dot had left: nobody knows whether the mail was taken
	Err   error         // the cause, for logs
}

// Error gives the text and the cause.
func (f *Failure) Error() string {
	if f.Err != nil {
		return f.Text + ": " + f.Err.Error()
	}
	return f.Text
}

// Unwrap gives the cause.
func (f *Failure) Unwrap() error { return f.Err }

var (
	errLost  = smtp.Enhanced{4, 4, 2} // bad connection
	errProto = smtp.Enhanced{4, 5, 0} // protocol status
)

// unreachable: the client is told at the first moment it is known, so that it tries its next MX.
func unreachable(why string, err error) *Failure {
	return &Failure{Code: 421, Enh: smtp.Enhanced{4, 4, 1}, Text: why, Close: true, Err: err}
}

// refusal is a reply that goes back as it is and ends the session: a greeting that refuses, or 421.
func refusal(r *smtp.Reply) *Failure {
	c := r.Clone()
	return &Failure{Code: c.Code, Enh: c.Enh, Text: c.Text(), Raw: c.Raw, Close: true}
}

// broken: the destination does not speak SMTP.
func broken(what string, err error) *Failure {
	return &Failure{Code: 451, Enh: errProto, Text: "the destination answered " + what, Err: err}
}

// failed sorts an error of the connection.
func failed(err error) *Failure {
	switch {
	case errors.Is(err, smtp.ErrReplyTooLong):
		return broken("with an endless reply", err)
	case errors.Is(err, smtp.ErrBadReply):
		return broken("with something that is no reply", err)
	case errors.Is(err, smtp.ErrUnsolicited):
		return broken("what nobody asked", err)
	case errors.Is(err, smtp.ErrTimeout):
		return &Failure{Code: 451, Enh: errLost, Text: "the destination did not answer in time", Err: err}
	}
	return &Failure{Code: 451, Enh: errLost, Text: "the connection to the destination was lost", Err: err}
}
