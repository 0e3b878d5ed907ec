package proxy

import (
	"strconv"
	"time"

	"sluice/proxy/smtp"
)

// chunk takes one chunk of a message (RFC 3030). Whatever is wrong, the bytes behind the command are read: they are no
// commands. Where their end is not known the session ends.
func (s *session) chunk(cmd *smtp.Command) {
	size, last, err := smtp.ParseBDAT(string(cmd.Arg))
	if err != nil {
		s.sayError(err)
		s.note, s.bye = "a BDAT that cannot be read", true
		return
	}
	if !s.parts && !s.beginParts(size) {
		return
	}
	s.stage(upload)
	s.conn.SetReadTimeout(s.set.Timeouts.Block)
	err = s.conn.ReadChunk(&s.body, size)
	s.conn.SetReadTimeout(s.set.Timeouts.Command)
	if err == nil && last {
		err = s.body.Finish()
	}
	switch {
	case err != nil:
		s.unreceived(err)
	case last:
		s.parts = false
		defer s.body.Release()
		s.judge(&s.body, time.Now())
	default:
		s.streamChunk()
		s.conn.WriteReply(250, smtp.Enhanced{2, 0, 0}, s.set.Name+": "+strconv.FormatInt(size, 10)+" bytes noted")
	}
}

// beginParts makes ready for the first chunk; if it may not come that is answered, and its bytes are thrown away.
func (s *session) beginParts(size int64) bool {
	if s.mayBegin() {
		s.expect()
		s.data.Binary = s.tx.mail.Body == smtp.BodyBinaryMIME
		s.body.BeginChunks(&s.data)
		s.parts = true
		return true
	}
	if s.bye {
		return false
	}
	if size > max(4*s.set.MaxSize, leastDiscard) {
		s.leave(chunkTooLarge)
		return false
	}
	s.conn.SetReadTimeout(s.set.Timeouts.Block)
	err := s.conn.SkipChunk(size)
	s.conn.SetReadTimeout(s.set.Timeouts.Command)
	if err != nil {
		s.unread(err)
	}
	return false
}

// dropParts forgets chunks of a message that will not be whole.
func (s *session) dropParts() {
	if s.parts {
		s.parts = false
		s.body.Release()
	}
}
