package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// ObservedVersion is that of the reports; an observer of another one is cut off.
const ObservedVersion = 2

// Observed is what sluice-observe read of one flow that it did not touch: one report for each message when it ends, and one
// at the end of the flow.
type Observed struct {
	ID        uint64            `json:"id"`     // names the flow in all its reports
	Client    netip.AddrPort    `json:"client"` // the customer
	Target    netip.AddrPort    `json:"target"` // the server
	Start     time.Time         `json:"start"`
	End       time.Time         `json:"end"`
	Helo      string            `json:"helo,omitempty"`
	Before    int               `json:"before,omitempty"` // messages of this flow that were told before
	More      bool              `json:"more,omitempty"`   // the flow goes on
	Messages  []ObservedMessage `json:"messages,omitempty"`
	Last      string            `json:"last,omitempty"`      // last reply, code and text of its first line
	Opaque    bool              `json:"opaque,omitempty"`    // it went on under STARTTLS: what followed is not known
	Truncated bool              `json:"truncated,omitempty"` // longer than what is copied: more may have followed
	Lossy     bool              `json:"lossy,omitempty"`     // bytes are missing or were no SMTP: more may have followed
}

// ObservedMessage is one transaction: MAIL to its end.
type ObservedMessage struct {
	Start time.Time           `json:"start"`
	End   time.Time           `json:"end"`
	From  string              `json:"from"`
	Wrong bool                `json:"wrong,omitempty"` // the server took what is no MAIL; From is its argument
	Said  int64               `json:"said,omitempty"`  // SIZE= of MAIL in bytes (RFC 1870); 0 where it was not given
	UTF8  bool                `json:"utf8,omitempty"`  // SMTPUTF8 (RFC 6531)
	Eight bool                `json:"eight,omitempty"` // BODY=8BITMIME (RFC 6152)
	To    []ObservedRecipient `json:"to,omitempty"`
	Code  int                 `json:"code,omitempty"`  // of the last reply; 0 where none was heard
	Reply string              `json:"reply,omitempty"` // its first line
	Whole bool                `json:"whole,omitempty"` // that reply answered the end of data
	Sent  bool                `json:"sent,omitempty"`  // data came to its end, and no reply was heard
	Torn  bool                `json:"torn,omitempty"`  // bytes are missing before its end: what became of it is not known
	Body  []byte              `json:"body,omitempty"`  // the beginning of the message, dots taken out, as far as it was copied
	Size  int64               `json:"size,omitempty"`  // bytes of the message; 0 where its end was not copied
}

// ObservedRecipient is one RCPT and its reply; Code is 0 where none was heard.
type ObservedRecipient struct {
	Address string `json:"address"`
	Code    int    `json:"code,omitempty"`
	Reply   string `json:"reply,omitempty"`
}

// ObservedLoss counts, since the observer's start, what it could not see or tell.
type ObservedLoss struct {
	Kernel  uint64 `json:"kernel"`  // pieces that found the ring full or could not be read
	Flows   uint64 `json:"flows"`   // flows beyond the observer's memory
	Records uint64 `json:"records"` // records that sluiced did not take
}

// ObservedReport is one packet from sluice-observe to sluiced; nothing is answered.
type ObservedReport struct {
	V        int          `json:"v"`
	Observed *Observed    `json:"observed,omitempty"`
	Seen     uint64       `json:"seen"` // flows begun
	Loss     ObservedLoss `json:"loss"`
}

// ObservedSocket is where sluiced takes reports: beside its API's socket.
func ObservedSocket(api string) string { return filepath.Join(filepath.Dir(api), "observe.sock") }

// DialObserved connects an observer to sluiced.
func DialObserved(ctx context.Context, path string) (*net.UnixConn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unixpacket", path)
	if err != nil {
		return nil, fmt.Errorf("could not reach sluiced at %s: %w; is it running, and may this user open the socket?", path, err)
	}
	return c.(*net.UnixConn), nil
}

// Report sends one report, waiting at most until the deadline. What is larger than a packet goes without the bodies and the
// replies to recipients, and if need be without its messages, truncated.
func Report(c *net.UnixConn, r ObservedReport, until time.Time) error {
	r.V = ObservedVersion
	if err := c.SetWriteDeadline(until); err != nil {
		return err
	}
	err := send(c, r, nil)
	for _, shorten := range []func(*Observed){withoutTexts, withoutMessages} {
		if !errors.Is(err, errSize) || r.Observed == nil {
			return err
		}
		short := *r.Observed
		shorten(&short)
		r.Observed = &short
		err = send(c, r, nil)
	}
	return err
}

func withoutTexts(o *Observed) {
	o.Messages = slices.Clone(o.Messages)
	for i := range o.Messages {
		m := &o.Messages[i]
		m.Body, m.Size, m.To = nil, 0, slices.Clone(m.To)
		for j := range m.To {
			m.To[j].Reply = ""
		}
	}
}

func withoutMessages(o *Observed) { o.Messages, o.Truncated = nil, true }

// maxObservers bounds the connections of observers: one, another during its restart, and spare.
const maxObservers = 4

// ServeObserved takes reports until the context ends, one at a time. Peers that allow does not know, and those that break
// the protocol, are cut off.
func ServeObserved(ctx context.Context, l *net.UnixListener, allow func(Peer) bool, logf func(format string, args ...any), take func(ObservedReport)) error {
	var mu sync.Mutex
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = l.Close() })() // a second close is harmless
	slots := make(chan struct{}, maxObservers)
	for {
		c, err := l.AcceptUnix()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("could not accept observers: %w", err)
		}
		peer, err := peerOf(c)
		if err != nil || !allow(peer) || len(slots) == cap(slots) {
			logf("observer: process %d of user %d is not let in", peer.PID, peer.UID)
			_ = c.Close()
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			defer context.AfterFunc(ctx, func() { _ = c.Close() })()
			defer c.Close()
			err := takeReports(c, func(r ObservedReport) {
				mu.Lock()
				defer mu.Unlock()
				take(r)
			})
			if err != nil && ctx.Err() == nil {
				logf("observer: process %d of user %d cut off: %v", peer.PID, peer.UID, err)
			}
		})
	}
}

func takeReports(c *net.UnixConn, take func(ObservedReport)) error {
	buf := make([]byte, MaxPacket+1)
	for {
		b, files, err := receive(c, buf, nil)
		closeAll(files)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var r ObservedReport
		if err := decode(b, &r); err != nil {
			return err
		}
		if r.V != ObservedVersion {
			return fmt.Errorf("%w: version %d instead of %d; restart the older of the two programs", errMessage, r.V, ObservedVersion)
		}
		take(r)
	}
}
