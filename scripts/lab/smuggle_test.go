//go:build labtest

package lab

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
)

// smuggledEnds are the ways to write an end of data that some server somewhere takes for one, but for the real one.
func smuggledEnds() (all []string) {
	ends := []string{"\r\n", "\n", "\r", "\r\r\n", "\n\r", "\r\n\x00"}
	for _, a := range ends {
		for _, dot := range []string{".", "..", ". "} {
			for _, b := range ends {
				if end := a + dot + b; !strings.Contains(end, "\r\n.\r\n") {
					all = append(all, end)
				}
			}
		}
	}
	return all
}

// TestNothingIsSmuggledToRealServers: whatever a client writes for an end of data, by DATA or in chunks, Postfix and Exim
// deliver one message for each one that the client was told 250 for, and none that stood inside another.
func TestNothingIsSmuggledToRealServers(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	l := ForTest(t, Options{})
	startGatewayWith(t, l, farConfig)
	var wg sync.WaitGroup
	for _, name := range []string{"postfix", "exim"} {
		wg.Go(func() {
			if err := l.smuggleTo(ctx, t, name); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	wg.Wait()
}

// smuggleTo tries all ends at one server.
func (l *Lab) smuggleTo(ctx context.Context, t *testing.T, name string) error {
	m, err := l.MX(ctx, name)
	if err != nil {
		return err
	}
	plan, err := HostMX(name)
	if err != nil {
		return err
	}
	to, taken := "198.51.100."+fmt.Sprint(plan.Last)+":25", 0
	evil := "MAIL FROM:<evil@mallory.example>\r\nRCPT TO:<evil@" + m.domain + ">\r\nDATA\r\nSubject: evil\r\n\r\nevil\r\n"
	for i, end := range smuggledEnds() {
		text := fmt.Sprintf("Subject: v%d\r\n\r\nx%s%s", i, end, evil)
		for _, chunks := range []bool{false, true} {
			if chunks && i%4 != 0 {
				continue
			}
			code, err := l.smuggle(ctx, to, "v@"+m.domain, text, len(text)-len(evil), chunks)
			if err != nil {
				return fmt.Errorf("%q, in chunks %v: %w", end, chunks, err)
			}
			bad := strings.ContainsAny(strings.ReplaceAll(end, "\r\n", ""), "\r\x00")
			if want := map[bool]int{true: 550, false: 250}[bad]; code != want {
				t.Errorf("%s: %q, in chunks %v: the message is answered %d, want %d", name, end, chunks, code, want)
			}
			if code == 250 {
				taken++
			}
		}
	}
	if _, err := m.WaitMailbox(ctx, taken); err != nil {
		return err
	}
	if err := m.WaitEmpty(ctx); err != nil {
		return err
	}
	all, err := m.Mailbox()
	if err != nil {
		return err
	}
	if len(all) != taken || taken < 10 {
		t.Errorf("%s: %d messages were delivered, the client was told of %d", name, len(all), taken)
	}
	for _, msg := range all {
		header, _, _ := bytes.Cut(bytes.ReplaceAll(msg, []byte("\r\n"), []byte("\n")), []byte("\n\n"))
		if !bytes.Contains(header, []byte("Subject: v")) || bytes.Contains(header, []byte("evil")) || !bytes.Contains(msg, []byte("MAIL FROM:<evil@")) {
			t.Errorf("%s delivered %q", name, msg)
		}
	}
	return nil
}

// smuggle sends one text as a message, in two chunks cut at an offset or by DATA, and gives the code that answers it.
func (l *Lab) smuggle(ctx context.Context, server, rcpt, text string, at int, chunks bool) (int, error) {
	c, err := l.Hello(ctx, "mallory", "", server)
	if err != nil {
		return 0, err
	}
	defer func() { _ = c.Close() }() // after QUIT it is closed already
	steps := []string{"MAIL FROM:<m@mallory.example>", "RCPT TO:<" + rcpt + ">", "DATA"}
	if chunks {
		steps = steps[:2]
	}
	for _, s := range steps {
		if r, err := c.Cmd(s); err != nil || r.Code >= 400 {
			return 0, fmt.Errorf("%s: %v %w", s, r, err)
		}
	}
	last := text + ".\r\n"
	if chunks {
		if _, err := fmt.Fprintf(c, "BDAT %d\r\n%s", at, text[:at]); err != nil {
			return 0, err
		}
		if r, err := c.Reply(); err != nil || r.Code != 250 && r.Code != 550 {
			return 0, fmt.Errorf("first chunk: %v %w", r, err)
		} else if r.Code == 550 {
			return 550, c.Quit()
		}
		last = fmt.Sprintf("BDAT %d LAST\r\n%s", len(text)-at, text[at:])
	}
	if _, err := c.Write([]byte(last)); err != nil {
		return 0, err
	}
	r, err := c.Reply()
	if err != nil {
		return 0, err
	}
	return r.Code, c.Quit()
}
