package scanner

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"path"
	"strings"

	"sluice/filter"
)

// clamd is ClamAV's daemon: a command ends with NUL, and so does its answer.
type clamd struct {
	address string
	trusted []string
}

const (
	clamdChunk  = 64 << 10
	clamdAnswer = 4 << 10 // no answer is longer
)

func (c *clamd) ping(ctx context.Context) error {
	conn, err := dial(ctx, c.address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "zPING\x00"); err != nil {
		return err
	}
	answer, err := clamdRead(conn)
	if err == nil && string(answer) != "PONG" {
		err = garbage("PING", answer)
	}
	return err
}

func (c *clamd) ask(ctx context.Context, q *question) ([]filter.Hit, error) {
	conn, err := dial(ctx, c.address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	// It may answer and close before it has read everything; the answer tells more than the failed write.
	writing := clamdWrite(conn, q.reader())
	answer, err := clamdRead(conn)
	if err != nil {
		return nil, errors.Join(writing, err)
	}
	return c.understand(answer, writing)
}

func (c *clamd) understand(answer []byte, writing error) ([]filter.Hit, error) {
	text := string(answer)
	if strings.HasPrefix(text, "INSTREAM size limit exceeded") {
		return nil, fmt.Errorf("%w: raise StreamMaxLength in clamd.conf, or lower max_size here", errTooLarge)
	}
	result, ok := strings.CutPrefix(text, "stream: ")
	switch {
	case !ok:
		return nil, garbage("INSTREAM", answer)
	case result == "OK" && writing == nil:
		return nil, nil
	}
	name, found := strings.CutSuffix(result, " FOUND")
	if !found || name == "" {
		return nil, errors.Join(writing, garbage("INSTREAM", answer))
	}
	name = short(name, 120)
	h := filter.Hit{
		Code: "VIRUS", Class: filter.Virus, Action: filter.Reject, Points: 1, SMTP: 550, Enhanced: "5.7.1",
		Text: "message contains a virus: " + name, Evidence: name,
	}
	if !c.certain(name) {
		h.NoLock, h.Evidence = true, name+"; not certain, so it counts towards no lock"
	}
	return []filter.Hit{h}, nil
}

// unofficial ends the names of signatures that are not ClamAV's own.
const unofficial = ".UNOFFICIAL"

// certain tells whether a signature of that name finds malware and nothing else. Heuristics and unwanted applications are
// guesses, and others' signatures are as good as whoever wrote them.
func (c *clamd) certain(name string) bool {
	base, foreign := strings.CutSuffix(name, unofficial)
	for _, p := range c.trusted {
		if ok, err := path.Match(p, base); ok && err == nil {
			return true
		}
	}
	return !foreign && !strings.HasPrefix(name, "Heuristics.") && !strings.HasPrefix(name, "PUA.")
}

// clamdWrite sends the command and the message in chunks, each behind its length; one of length 0 is the end.
func clamdWrite(conn net.Conn, r io.Reader) error {
	if _, err := io.WriteString(conn, "zINSTREAM\x00"); err != nil {
		return err
	}
	buf := make([]byte, 4+clamdChunk)
	for {
		n, err := io.ReadFull(r, buf[4:])
		if n > 0 {
			binary.BigEndian.PutUint32(buf, uint32(n))
			if _, err := conn.Write(buf[:4+n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			_, err = conn.Write([]byte{0, 0, 0, 0})
			return err
		}
		if err != nil {
			return err
		}
	}
}

// clamdRead reads up to the NUL that ends an answer.
func clamdRead(r io.Reader) ([]byte, error) {
	buf := make([]byte, 0, 256)
	for len(buf) < clamdAnswer {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if i := bytes.IndexByte(buf, 0); i >= 0 {
			return buf[:i], nil
		}
		if err != nil {
			return nil, fmt.Errorf("no whole answer: %w", err)
		}
	}
	return nil, garbage("clamd", buf)
}
