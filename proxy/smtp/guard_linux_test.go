package smtp

import (
	"errors"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"
)

// asker is a Guard that notes what it is asked.
type asker struct {
	beside *Conn
	heard  []string
	quiet  error
	gone   error
}

func (a *asker) Beside() *Conn { return a.beside }
func (a *asker) Quiet() error  { a.heard = append(a.heard, "quiet"); return a.quiet }
func (a *asker) Go() error     { a.heard = append(a.heard, "go"); return a.gone }

// TestBothPeersAreLookedAtBeforeTheLastWrite: by one call where nothing stands against the message, and else by the guard, whose word counts.
func TestBothPeersAreLookedAtBeforeTheLastWrite(t *testing.T) {
	t.Parallel()
	no := errors.New("no")
	spoken := func(t *testing.T, remote, _ *net.TCPConn, c, _ *Conn) {
		_, err := remote.Write([]byte("250 nobody asked\r\n"))
		seen(t, c, err)
	}
	left := func(t *testing.T, _, client *net.TCPConn, _, beside *Conn) { seen(t, beside, client.Close()) }
	for name, c := range map[string]struct {
		before func(t *testing.T, remote, client *net.TCPConn, c, beside *Conn)
		guard  asker
		heard  []string
		want   error
	}{
		"nothing":                     {nil, asker{quiet: no}, []string{"go"}, nil},
		"it must not go":              {nil, asker{gone: no}, []string{"go"}, no},
		"the remote has spoken":       {spoken, asker{quiet: no}, []string{"go", "quiet"}, no},
		"the client has left":         {left, asker{quiet: no}, []string{"go", "quiet"}, no},
		"it has left and still hears": {left, asker{}, []string{"go", "quiet"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			here, remote := tcpPair(t)
			inner, client := tcpPair(t)
			conn, beside := NewConn(here, Options{}), NewConn(inner, Options{})
			if c.before != nil {
				c.before(t, remote, client, conn, beside)
			}
			g := c.guard
			g.beside = beside
			got := make(chan string, 1)
			go func() {
				b := make([]byte, 64)
				n, _ := remote.Read(b)
				_, _ = remote.Write([]byte("250 taken\r\n"))
				got <- string(b[:n])
			}()
			b := bodyOf(t, "Subject: x\r\n\r\ntext\r\n")
			if err := conn.WriteDataAsking(nil, b, &g); err != c.want {
				t.Errorf("%v, want %v", err, c.want)
			}
			if !reflect.DeepEqual(g.heard, c.heard) {
				t.Errorf("asked %v, want %v", g.heard, c.heard)
			}
			if c.want != nil {
				conn.Close()
				if s := <-got; s != "" {
					t.Errorf("%q left", s)
				}
				return
			}
			if s := <-got; s != "Subject: x\r\n\r\ntext\r\n.\r\n" {
				t.Errorf("%q left", s)
			}
			var r Reply
			if err := conn.ReadReply(&r); err != nil || r.Text() != "taken" {
				t.Errorf("answer %q, %v", r.Text(), err)
			}
		})
	}
}

// seen fails the test where err is not nil, and else waits until c sees that something has come.
func seen(t *testing.T, c *Conn, err error) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); err == nil; time.Sleep(time.Millisecond) {
		if pending, gone := c.Probe(); pending || gone != nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal("nothing has come")
		}
	}
	t.Fatal(err)
}

func bodyOf(t *testing.T, s string) *Body {
	t.Helper()
	b, err := BodyFromBytes([]byte(s))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Release)
	return b
}

// TestAnswerToTheLastWrite: what becomes of it is heard by the next read, however it ends, and whatever the socket takes at once.
func TestAnswerToTheLastWrite(t *testing.T) {
	t.Parallel()
	large := strings.Repeat("a line of a message that fills the socket\r\n", 1400)
	for name, c := range map[string]struct {
		text string
		then func(remote *net.TCPConn)
		want func(err error) bool
	}{
		"an answer":         {"x\r\n", func(r *net.TCPConn) { _, _ = r.Write([]byte("250 taken\r\n")) }, func(err error) bool { return err == nil }},
		"a full socket":     {large, func(r *net.TCPConn) { _, _ = r.Write([]byte("250 taken\r\n")) }, func(err error) bool { return err == nil }},
		"the end":           {"x\r\n", func(r *net.TCPConn) { r.Close() }, func(err error) bool { return err == io.EOF }},
		"a reset":           {"x\r\n", func(r *net.TCPConn) { _ = r.SetLinger(0); r.Close() }, gone},
		"nothing, for long": {"x\r\n", func(*net.TCPConn) {}, func(err error) bool { return err == ErrTimeout }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			here, remote := tcpPair(t)
			if c.text == large {
				if err := errors.Join(here.SetWriteBuffer(4096), remote.SetReadBuffer(4096)); err != nil {
					t.Fatal(err)
				}
			}
			conn := NewConn(here, Options{ReadTimeout: 10 * time.Second})
			if name == "nothing, for long" {
				conn.SetReadTimeout(100 * time.Millisecond)
			}
			end := make(chan struct{})
			go func() {
				defer close(end)
				b := make([]byte, 1<<16)
				for n, want := 0, len(c.text)+3; n < want; {
					m, err := remote.Read(b)
					if err != nil {
						return
					}
					n += m
				}
				c.then(remote)
			}()
			if err := conn.WriteDataAsking(nil, bodyOf(t, c.text), &asker{}); err != nil {
				t.Fatal(err)
			}
			var r Reply
			if err := conn.ReadReply(&r); !c.want(err) || err == nil && r.Code != 250 {
				t.Errorf("%d, %v", r.Code, err)
			}
			<-end
		})
	}
}
