package scenarios

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"sluice/scripts/lab"
)

// Play carries out a dialogue, one step a line:
//
//	S: 220 *          the next reply matches; * is any text; lines of one reply are joined by " / "
//	C: EHLO x         a command line is sent
//	C| NOOP\r\nNOOP   bytes are sent, with escapes as in Go
//	C< FILE           a file is sent as a message: CRLF line ends, dots doubled, final dot
//	tls               the TLS handshake, after the reply to STARTTLS
//	wait 200ms        nothing is said for that long
//	closed            the server closes without another word
//	close, reset      we do, with FIN or RST
//	# a remark
//
// It returns what was said, up to the step that failed.
func Play(c *lab.Client, text string, file func(string) []byte) (said string, err error) {
	var b strings.Builder
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := step(c, line, file, &b); err != nil {
			return b.String(), fmt.Errorf("line %d, %q: %w", n, line, err)
		}
	}
	return b.String(), nil
}

func step(c *lab.Client, line string, file func(string) []byte, said *strings.Builder) error {
	verb, rest, _ := strings.Cut(line, " ")
	switch verb {
	case "S:":
		r, err := c.Reply()
		if err != nil {
			return fmt.Errorf("no reply: %w", err)
		}
		fmt.Fprintf(said, "S: %.300s\n", r.String())
		if !glob(rest, r.String()) {
			return fmt.Errorf("the reply is %.300q", r.String())
		}
		return nil
	case "C:":
		fmt.Fprintf(said, "%s\n", line)
		_, err := io.WriteString(c, rest+"\r\n")
		return err
	case "C|":
		raw, err := strconv.Unquote(`"` + strings.ReplaceAll(rest, `"`, `\"`) + `"`)
		if err != nil {
			return err
		}
		_, err = io.WriteString(c, raw)
		return err
	case "C<":
		_, err := c.Write(lab.Stuff(crlf(file(rest))))
		return err
	case "tls":
		return c.Handshake()
	case "wait":
		d, err := time.ParseDuration(rest)
		if err != nil {
			return err
		}
		time.Sleep(d) // the scenario asks for silence, not for an event
		return nil
	case "closed":
		r, err := c.Reply()
		if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
			return nil
		}
		return fmt.Errorf("the connection is open: %q %v", r.Raw, err)
	case "close":
		return c.Close()
	case "reset":
		return c.Reset()
	}
	return errors.New("no such step")
}

// glob tells whether text matches a pattern in which * is any text.
func glob(pattern, text string) bool {
	parts := strings.Split(pattern, "*")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	ok, err := regexp.MatchString(`(?s)^`+strings.Join(parts, ".*")+`$`, text)
	return err == nil && ok
}
