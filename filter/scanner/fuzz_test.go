package scanner

import (
	"context"
	"net"
	"testing"
	"time"

	"sluice/filter"
)

// FuzzAnswers: whatever a program answers, there is an opinion that says what to do, or an error; never both, and never a
// reply that could break the dialogue with the client apart.
func FuzzAnswers(f *testing.F) {
	for _, s := range []string{"stream: OK\x00", "stream: X FOUND\x00", "SPAMD/1.1 0 EX_OK\r\nSpam: True ; 9 / 5\r\n\r\nA,B", "HTTP/1.1 200 OK\r\nContent-Length: 49\r\n\r\n{\"score\":17,\"action\":\"reject\",\"required_score\":15}",
		"\x00\x00\x00\x0dO\x00\x00\x00\x06\x00\x00\x00\x11\x00\x00\x00\x7f\x00\x00\x00\x01c\x00\x00\x00\x0ey550 5.7.1 no\x00", "\x00\x00\x00\x0dO\x00\x00\x00\x06\x00\x00\x00\x11\x00\x00\x0f\xff\x00\x00\x00\x08hA\x00b\x00\x00\x00\x00\x01c"} {
		for kind := range byte(4) {
			f.Add(kind, []byte(s))
		}
	}
	f.Fuzz(func(t *testing.T, kind byte, answer []byte) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			_, _ = c.Write(answer)
			_ = c.(*net.TCPConn).CloseWrite()
			_, _ = c.Read(make([]byte, 64<<10))
		}()
		o := options([]Kind{Clamd, Rspamd, Spamd, Milter}[kind%4], l.Addr().String())
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		m := letter()
		hits, err := newClient(&o, l.Addr().String()).ask(ctx, &question{m, m.DataSize})
		if err != nil && hits != nil {
			t.Errorf("both %v and %v", hits, err)
		}
		for _, h := range hits {
			if h.Code == "" || h.Text == "" || short(h.Text, 1000) != h.Text && h.Action != filter.None || h.Action == filter.Reject && h.SMTP/100 != 5 || h.Action == filter.Defer && h.SMTP/100 != 4 {
				t.Errorf("%q makes %+v", answer, h)
			}
		}
	})
}
