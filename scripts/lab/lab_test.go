//go:build labtest

package lab

import (
	"bytes"
	"context"
	"testing"
	"time"
)

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestRawDialogueArrivesByteForByte(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	body := []byte(".leading dot\r\n..two\r\nlone \r and \n inside\r\n\x00\x80\xff\r\n" + string(bytes.Repeat([]byte("x"), 5000)) + "\r\n")
	for _, c := range []struct{ laddr, raddr string }{
		{"192.0.2.10", "198.51.100.20:25"},
		{"2001:db8:1::10", "[2001:db8:100::20]:25"},
	} {
		x, err := l.SMTP(ctx, "alice", c.laddr, c.raddr)
		if err != nil {
			t.Fatal(err)
		}
		if r, err := x.Cmd("EHLO mail.alice.example"); err != nil || r.Code != 250 {
			t.Fatal(r, err)
		}
		rcpts, last, err := x.Send("a@alice.example", []string{"u@sink.example", "reject1@sink.example", "defer1@sink.example"}, body)
		if err != nil || last.Code != 250 || rcpts[1].Code != 550 || rcpts[2].Code != 451 {
			t.Fatal(rcpts, last, err)
		}
		if err := x.Quit(); err != nil {
			t.Fatal(err)
		}
	}
	got, err := l.Sink("sink").Wait(ctx, 2)
	if err != nil {
		t.Fatal(err)
	}
	for i, peer := range []string{"192.0.2.10", "2001:db8:1::10"} {
		if !bytes.Equal(got[i].Data, body) {
			t.Errorf("message %d changed on the way:\n%q\n%q", i, got[i].Data, body)
		}
		if got[i].Peer.Addr().String() != peer || len(got[i].Rcpts) != 1 || got[i].Helo != "mail.alice.example" {
			t.Errorf("message %d has the envelope %+v", i, got[i])
		}
	}
}
