package smtp

import (
	"errors"
	"os"
)

// ProtocolError is a peer's mistake with the reply that an SMTP server gives for it. The
// package's values are shared: compare with errors.Is or ==.
type ProtocolError struct {
	Code int      // reply code, 4xx or 5xx
	Enh  Enhanced // enhanced status code, RFC 3463
	Text string   // reply text, one line
	// InStep tells that the offending line or message has been read to its end, so that the
	// connection can go on after the reply.
	InStep bool
}

// Error gives the reply text.
func (e *ProtocolError) Error() string { return e.Text }

// Is makes a time-out known to errors.Is as os.ErrDeadlineExceeded.
func (e *ProtocolError) Is(target error) bool {
	return e.Code == 421 && e.Enh == Enhanced{4, 4, 2} && target == os.ErrDeadlineExceeded
}

// Errors of the server role. Each carries its reply.
var (
	ErrLineTooLong  = &ProtocolError{500, Enhanced{5, 5, 6}, "Line too long", true}
	ErrBareCR       = &ProtocolError{550, Enhanced{5, 6, 0}, "Carriage return without line feed is not allowed (RFC 5321 2.3.8)", true}
	ErrBareLF       = &ProtocolError{550, Enhanced{5, 6, 0}, "Line feed without carriage return is not allowed (RFC 5321 2.3.8)", true}
	ErrNUL          = &ProtocolError{550, Enhanced{5, 6, 0}, "NUL is not allowed (RFC 5321 4.5.2)", true}
	ErrCommandBytes = &ProtocolError{500, Enhanced{5, 5, 2}, "Command contains NUL or a bare carriage return", true}
	ErrBodyLine     = &ProtocolError{550, Enhanced{5, 6, 0}, "Message contains a line that is too long", true}
	ErrTooLarge     = &ProtocolError{552, Enhanced{5, 3, 4}, "Message is larger than allowed", true}
	ErrSpill        = &ProtocolError{452, Enhanced{4, 3, 1}, "Message could not be stored for inspection, try again later", true}
	// ErrFlood: a line or a discarded message went on past every bound. Close after the reply.
	ErrFlood = &ProtocolError{421, Enhanced{4, 7, 0}, "Too much data, closing connection", false}
	// ErrTotal: the connection has read Options.MaxTotal bytes. Close after the reply.
	ErrTotal = &ProtocolError{421, Enhanced{4, 7, 0}, "Data limit of this connection reached, closing it", false}
	// ErrTimeout: the peer made no progress for the time-out, or the moment of SetUntil passed.
	// It is also what a write gives. errors.Is(err, os.ErrDeadlineExceeded) holds too.
	ErrTimeout = &ProtocolError{421, Enhanced{4, 4, 2}, "Timeout, closing connection", false}
)

// ErrIdle: nothing came for a while, nothing is buffered and nothing is lost; see Conn.SetIdle.
var ErrIdle = errors.New("no command has come yet")

// Errors of the client role: the remote server broke the protocol. Close the connection.
var (
	ErrReplyTooLong = errors.New("reply of the remote server is too long")
	ErrBadReply     = errors.New("reply of the remote server is malformed")
	ErrUnsolicited  = errors.New("remote server sent data nobody asked for")
	// ErrUnsafeCommand: an argument given to WriteCommand holds CR, LF or NUL; nothing was written.
	ErrUnsafeCommand = errors.New("command to send contains a line end or NUL")
	// ErrNotCanonical: WriteData was given a body with bare CR, bare LF or NUL (only BDAT with
	// DataOptions.Binary makes such); nothing was written.
	ErrNotCanonical = errors.New("message is binary and cannot be sent with DATA")
)

// Recoverable tells whether the connection is still in step after err, so that the session may
// answer (ReplyFor) and go on.
func Recoverable(err error) bool {
	var pe *ProtocolError
	return errors.As(err, &pe) && pe.InStep
}

// ReplyFor gives the reply a server answers err with: ok is false if none can reach the client
// (it is gone, the network failed) or err is not of this package. After a reply for an error
// that is not Recoverable the connection is to be closed.
func ReplyFor(err error) (code int, enh Enhanced, text string, ok bool) {
	var pe *ProtocolError
	if errors.As(err, &pe) {
		return pe.Code, pe.Enh, pe.Text, true
	}
	return 0, Enhanced{}, "", false
}
