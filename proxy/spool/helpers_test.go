package spool

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/filter/sign"
	"sluice/proxy/smtp"
)

// bodyOf makes a body of a message.
func bodyOf(t testing.TB, text string) *smtp.Body {
	t.Helper()
	b, err := smtp.BodyFromBytes([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func to(addresses ...string) *Envelope {
	e := &Envelope{Message: "m1", User: 7, UserName: "alice", From: "a@example.com", Received: time.Now(), As: sign.As{Domain: "example.com", Selector: "s1"}}
	for _, a := range addresses {
		e.Rcpts = append(e.Rcpts, Rcpt{Address: a})
	}
	return e
}

func commit(t testing.TB, s *Spool, env *Envelope, text string) []ID {
	t.Helper()
	ids, err := tryCommit(s, env, text)
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

func tryCommit(s *Spool, env *Envelope, text string) ([]ID, error) {
	d, err := s.Create()
	if err != nil {
		return nil, err
	}
	defer d.Abort()
	b, err := smtp.BodyFromBytes([]byte(text))
	if err != nil {
		return nil, err
	}
	defer b.Release()
	return d.Commit(env, nil, b)
}

func open(t testing.TB, dir string, o Options) *Spool {
	t.Helper()
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func lease(t testing.TB, s *Spool, id ID) *Lease {
	t.Helper()
	l, err := s.Lease(id)
	if err != nil {
		t.Fatalf("lease of %v: %v", id, err)
	}
	return l
}

func textOf(t testing.TB, l *Lease) string {
	t.Helper()
	s, err := readText(l)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func readText(l *Lease) (string, error) {
	b, err := l.Body()
	if err != nil {
		return "", err
	}
	defer b.Release()
	p := make([]byte, b.Size())
	if _, err := b.ReadAt(p, 0); err != nil {
		return "", err
	}
	return string(p), nil
}

func all(s *Spool) (ids []ID) {
	s.Each(0, func(d *Delivery) bool {
		ids = append(ids, d.ID)
		return true
	})
	slices.Sort(ids)
	return ids
}

// alarms collects what an operator would hear.
type alarms struct {
	mu  sync.Mutex
	all []string
}

func (a *alarms) hear(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all = append(a.all, err.Error())
}

func (a *alarms) String() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return strings.Join(a.all, "\n")
}

func message(n int) string {
	return fmt.Sprintf("Subject: message %d\r\n\r\n%s\r\n.dot\r\n", n, strings.Repeat("x", n%977))
}

func mustBe(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}
