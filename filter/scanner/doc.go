// Package scanner asks programs beside the gateway for their opinion of a message: virus scanners, spam filters, milters.
package scanner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/filter/policy"
)

// Phases are the phases at which plug-ins are asked. They see the whole message at once: a milter hears the dialogue again.
var Phases = []filter.Phase{filter.Data}

// Kind is the protocol of a plug-in.
type Kind string

// The kinds.
const (
	Clamd  Kind = "clamd"  // INSTREAM
	Rspamd Kind = "rspamd" // HTTP, /checkv2
	Spamd  Kind = "spamd"  // SpamAssassin's, SYMBOLS
	Milter Kind = "milter" // Sendmail's, version 6
)

// Oversize says what becomes of messages that are larger than a plug-in is shown.
type Oversize string

// The ways.
const (
	Begin  Oversize = "begin"  // their beginning is shown
	Pass   Oversize = "pass"   // they go on unseen
	Refuse Oversize = "refuse" // they are refused
)

// Options are one plug-in.
type Options struct {
	Name      string
	Kind      Kind
	Addresses []string       // "host:port" or "unix:/path", each one instance of the same program
	Timeout   time.Duration  // for one message, all instances together
	Failure   policy.Failure // Later or GoOn
	MaxSize   int64          // bytes of a message that it is shown
	Oversize  Oversize
	AtOnce    int          // messages that it is asked about at the same time
	NoteOnly  bool         // it is heard, and nothing is done
	WeighOnly bool         // its points count in the probability, and nothing is refused because it says so
	Class     filter.Class // what a milter's refusal means
	Marks     []string     // fields by which a milter marks bad mail, such as "X-Spam-Flag: YES"
	Trusted   []string     // of clamd: patterns of signature names that are certain although they are unofficial
}

// client speaks the protocol of one kind with one instance. Safe for concurrent use.
type client interface {
	// ask returns what the program objects to in a message.
	ask(ctx context.Context, q *question) ([]filter.Hit, error)
	// ping finds out whether it is there.
	ping(ctx context.Context) error
}

// question is one message as a plug-in is shown it.
type question struct {
	m    *message.Message
	size int64 // bytes shown
}

func (q *question) reader() io.Reader {
	r, _ := q.m.Reader(q.size)
	return r
}

// errTooLarge says that an instance takes no message of this size, whatever its setting here.
var errTooLarge = errors.New("it takes no message of this size")

// garbage is the error of an answer that is none.
func garbage(what string, answer []byte) error {
	return fmt.Errorf("%s: %.60q is no answer", what, answer)
}

// network splits an address as it stands in the configuration.
func network(address string) (network, at string) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return "unix", path
	}
	return "tcp", address
}

// dial connects, and has the connection end with ctx.
func dial(ctx context.Context, address string) (net.Conn, error) {
	nw, at := network(address)
	c, err := (&net.Dialer{}).DialContext(ctx, nw, at)
	if err != nil {
		return nil, err
	}
	if d, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(d); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return c, nil
}

// short makes what a program says fit into one line of a log or a reply.
func short(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return ' '
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	return s[:min(len(s), most)]
}
