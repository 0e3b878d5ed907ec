package scanner

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strconv"
	"strings"

	"sluice/filter"
)

// spamd is SpamAssassin's daemon.
type spamd struct{ address string }

// spamdAnswer bounds what is read of an answer.
const spamdAnswer = 64 << 10

func (s *spamd) ping(ctx context.Context) error {
	conn, err := dial(ctx, s.address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "PING SPAMC/1.5\r\n\r\n"); err != nil {
		return err
	}
	// The line of the answer is "SPAMD/1.5 0 PONG".
	line, err := bufio.NewReader(io.LimitReader(conn, spamdAnswer)).ReadString('\n')
	if err == nil && !(strings.HasPrefix(line, "SPAMD/") && strings.Contains(line, " 0 ")) {
		err = garbage("PING", []byte(line))
	}
	return err
}

func (s *spamd) ask(ctx context.Context, q *question) ([]filter.Hit, error) {
	conn, err := dial(ctx, s.address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := spamdWrite(conn, q); err != nil {
		return nil, err
	}
	return spamdRead(conn)
}

func spamdWrite(conn net.Conn, q *question) error {
	if _, err := fmt.Fprintf(conn, "SYMBOLS SPAMC/1.5\r\nContent-length: %d\r\n\r\n", q.size); err != nil {
		return err
	}
	_, err := io.Copy(conn, q.reader())
	return err
}

// spamdRead reads "SPAMD/1.1 0 EX_OK", fields of which Spam is "True ; 15.0 / 5.0", and the names of the rules that matched.
func spamdRead(conn net.Conn) ([]filter.Hit, error) {
	r := textproto.NewReader(bufio.NewReader(io.LimitReader(conn, spamdAnswer)))
	line, err := r.ReadLine()
	if err != nil {
		return nil, fmt.Errorf("no answer: %w", err)
	}
	f := strings.Fields(line)
	switch {
	case len(f) < 3 || !strings.HasPrefix(f[0], "SPAMD/"):
		return nil, garbage("SYMBOLS", []byte(line))
	case f[1] != "0":
		return nil, fmt.Errorf("SYMBOLS: %s", short(line, 100))
	}
	head, err := r.ReadMIMEHeader()
	if err != nil {
		return nil, fmt.Errorf("SYMBOLS: no whole answer: %w", err)
	}
	spam, score, required, err := spamdVerdict(head.Get("Spam"))
	if err != nil || !spam && score < leastPoints {
		return nil, err
	}
	rules, err := r.ReadLine() // an answer without a closing line end is whole, too
	if err != nil && rules == "" {
		rules = "no rules named"
	}
	h := filter.Hit{
		Code: "SPAMASSASSIN", Weighs: true, Points: score, Text: "SpamAssassin finds little in the message",
		Evidence: fmt.Sprintf("score %.1f of %.1f: %s", score, required, short(rules, 300)),
	}
	if spam {
		h.Class, h.Action, h.SMTP, h.Enhanced, h.Text = filter.Spam, filter.Reject, 550, "5.7.1", "message looks like spam"
	}
	return []filter.Hit{h}, nil
}

func spamdVerdict(field string) (spam bool, score, required float64, err error) {
	said, figures, ok := strings.Cut(field, ";")
	a, b, ok2 := strings.Cut(figures, "/")
	score, err1 := strconv.ParseFloat(strings.TrimSpace(a), 64)
	required, err2 := strconv.ParseFloat(strings.TrimSpace(b), 64)
	said = strings.ToLower(strings.TrimSpace(said))
	yes, no := said == "true" || said == "yes", said == "false" || said == "no"
	if !ok || !ok2 || err1 != nil || err2 != nil || !yes && !no {
		return false, 0, 0, garbage("Spam", []byte(field))
	}
	return yes, score, required, nil
}
