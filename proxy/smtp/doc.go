// Package smtp speaks the wire format of SMTP in both roles: commands, replies, dot and BDAT streams, limits.
//
// It knows bytes, lines, codes and bounds, and nothing of sessions, filters or policy. A Conn
// belongs to one goroutine. What a peer sends never panics and never grows memory past the
// limits of Options, DataOptions and the constants here.
//
// Two rules make the number of system calls small. Output is only appended (WriteReply,
// WriteCommand) and leaves in one write, when Flush is called or when a read must wait for the
// peer; so replies to pipelined commands share one packet. And a body is read into its own
// buffer and decoded in place; if it was canonical on the wire it is never copied.
//
// Errors that leave the stream in step (a line too long, a bare CR in a body, a message too
// large: everything up to the line or message end has been eaten) say so: see Recoverable and
// ReplyFor. All other errors mean that the connection must be closed.
package smtp
