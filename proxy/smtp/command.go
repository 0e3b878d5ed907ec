package smtp

import "bytes"

// Verb names a command; Unknown is any other word.
type Verb uint8

// The commands of RFC 5321, RFC 1870, RFC 3030, RFC 3207 and RFC 4954, and those that are only known to be refused.
const (
	Unknown Verb = iota
	HELO
	EHLO
	MAIL
	RCPT
	DATA
	BDAT
	RSET
	NOOP
	QUIT
	VRFY
	EXPN
	HELP
	STARTTLS
	AUTH
	ETRN
	TURN
	XCLIENT
	XFORWARD
	LHLO
)

var verbNames = [...]string{"unknown", "HELO", "EHLO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "QUIT", "VRFY",
	"EXPN", "HELP", "STARTTLS", "AUTH", "ETRN", "TURN", "XCLIENT", "XFORWARD", "LHLO"}

// String gives the command's word in capitals.
func (v Verb) String() string {
	if int(v) < len(verbNames) {
		return verbNames[v]
	}
	return verbNames[Unknown]
}

// Longest command lines, line end included.
const (
	MaxLine     = 512   // RFC 5321 4.5.3.1.4
	MaxMailLine = 2048  // MAIL and RCPT, grown by the parameters of extensions (RFC 5321 4.1.1.11)
	MaxAuthLine = 12288 // RFC 4954 4
	maxEaten    = 1 << 20
)

// Command is one line of the client. Its slices are valid until the next read of the Conn.
type Command struct {
	Verb   Verb
	Name   []byte // the word as the client wrote it
	Arg    []byte // what follows, without the blanks around it
	Line   []byte // the whole line without its end
	BareLF bool   // the line ended in LF alone
}

// ReadCommand reads one command line. If none is buffered, pending output is sent first, so that
// replies to pipelined commands leave together.
//
// Accepted beyond RFC 5321: words in any case, a line end of LF alone, tabs as blanks, blanks at
// the end. Recoverable errors: ErrLineTooLong and ErrCommandBytes (NUL or a bare CR), the line
// having been eaten. Others end the connection: ErrFlood, ErrTimeout, ErrTotal, io.EOF (also in
// the midst of a line), network errors. ErrIdle is none: see SetIdle.
func (c *Conn) ReadCommand() (Command, error) {
	c.leaves = c.patience > 0
	c.piece = piece{kind: aCommand}
	line, bareLF, err := c.readLine(0)
	c.leaves = false
	c.piece = piece{}
	if err != nil {
		return Command{}, err
	}
	return splitCommand(line, bareLF), nil
}

func splitCommand(line []byte, bareLF bool) Command {
	end := 0
	for end < len(line) && line[end] != ' ' && line[end] != '\t' {
		end++
	}
	name := line[:end]
	arg := bytes.Trim(line[end:], " \t")
	return Command{Verb: verbOf(name), Name: name, Arg: arg, Line: line, BareLF: bareLF}
}

// verbOf folds case and compares; it does not allocate.
func verbOf(name []byte) Verb {
	if len(name) < 4 || len(name) > 8 {
		return Unknown
	}
	var up [8]byte
	for i, ch := range name {
		if 'a' <= ch && ch <= 'z' {
			ch -= 'a' - 'A'
		}
		up[i] = ch
	}
	switch string(up[:len(name)]) {
	case "HELO":
		return HELO
	case "EHLO":
		return EHLO
	case "MAIL":
		return MAIL
	case "RCPT":
		return RCPT
	case "DATA":
		return DATA
	case "BDAT":
		return BDAT
	case "RSET":
		return RSET
	case "NOOP":
		return NOOP
	case "QUIT":
		return QUIT
	case "VRFY":
		return VRFY
	case "EXPN":
		return EXPN
	case "HELP":
		return HELP
	case "STARTTLS":
		return STARTTLS
	case "AUTH":
		return AUTH
	case "ETRN":
		return ETRN
	case "TURN":
		return TURN
	case "XCLIENT":
		return XCLIENT
	case "XFORWARD":
		return XFORWARD
	case "LHLO":
		return LHLO
	}
	return Unknown
}

// lineLimit gives the longest line that may begin like this, line end included.
func lineLimit(start []byte) int {
	if len(start) >= 5 && (start[4] == ' ' || start[4] == '\t') {
		switch verbOf(start[:4]) {
		case MAIL, RCPT:
			return MaxMailLine
		case AUTH:
			return MaxAuthLine
		}
	}
	return MaxLine
}

// ReadLine reads one line that is not a command, as in the AUTH dialogue, of at most limit bytes
// with its end. The slice, without the line end, is valid until the next read. Errors are those
// of ReadCommand.
func (c *Conn) ReadLine(limit int) ([]byte, error) {
	line, _, err := c.readLine(limit)
	return line, err
}

// LineBuffered tells whether a whole line is buffered, so that the next ReadCommand will not wait.
func (c *Conn) LineBuffered() bool {
	return bytes.IndexByte(c.buf[c.r:c.w], '\n') >= 0
}

// readLine reads a line; limit 0 takes the limit of the command it begins with.
func (c *Conn) readLine(limit int) (line []byte, bareLF bool, err error) {
	seen := 0 // bytes from r on known to hold no LF
	for {
		in := c.buf[c.r:c.w]
		most := limit
		if most == 0 {
			most = lineLimit(in)
		}
		i := bytes.IndexByte(in[seen:], '\n')
		if i >= 0 {
			i += seen
			c.r += i + 1
			if i+1 > most {
				return nil, false, ErrLineTooLong
			}
			return cutLine(in[:i])
		}
		if len(in) > most {
			return nil, false, c.eatLine()
		}
		seen = len(in)
		if err := c.fill(max(most, MaxAuthLine)); err != nil {
			return nil, false, err
		}
	}
}

// cutLine takes the CR off a line and refuses what no command or reply may hold.
func cutLine(line []byte) (_ []byte, bareLF bool, err error) {
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	} else {
		bareLF = true
	}
	if bytes.IndexByte(line, '\r') >= 0 || bytes.IndexByte(line, 0) >= 0 {
		return nil, bareLF, ErrCommandBytes
	}
	return line, bareLF, nil
}

// eatLine reads to the end of a line that is too long.
func (c *Conn) eatLine() error {
	for eaten := 0; ; {
		in := c.buf[c.r:c.w]
		if i := bytes.IndexByte(in, '\n'); i >= 0 {
			c.r += i + 1
			return ErrLineTooLong
		}
		eaten += len(in)
		c.r = c.w
		if eaten > maxEaten {
			return ErrFlood
		}
		if err := c.fill(size16K); err != nil {
			return err
		}
	}
}
