package smtp

import "bytes"

// ParseCommand splits one command line, without its line end, for a reader that has no connection: one that listens to
// the dialogue of others. The slices are parts of line.
func ParseCommand(line []byte) Command { return splitCommand(line, false) }

// CutReply takes the first reply off b, which a listener heard from a server: its code, the text of its first line and
// how many bytes it has. n is 0 while it is not complete. The errors are those of ReadReply; nothing behind them can be read.
func CutReply(b []byte) (code int, text string, n int, err error) {
	var r Reply
	for {
		end := bytes.IndexByte(b[n:], '\n')
		if end < 0 {
			if len(b)-n > MaxReplyLine {
				return 0, "", 0, ErrReplyTooLong
			}
			return 0, "", 0, nil
		}
		line, _, err := cutLine(b[n : n+end])
		if err != nil {
			return 0, "", 0, ErrBadReply
		}
		more, err := r.add(line)
		if err != nil {
			return 0, "", 0, err
		}
		n += end + 1
		if !more {
			r.EachLine(func(first []byte) bool { text = string(first); return false })
			return r.Code, text, n, nil
		}
	}
}
