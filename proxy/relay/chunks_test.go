package relay

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"
)

// TestASessionThatIsCutSaysNothingOfChunks: who is cut off while the first one is answered has not seen it refused.
func TestASessionThatIsCutSaysNothingOfChunks(t *testing.T) {
	t.Parallel()
	var s *Session
	target := script(t, func(nc net.Conn, br *bufio.Reader) {
		_, _ = nc.Write([]byte("220 mx\r\n"))
		say(nc, br, "250-mx\r\n250 CHUNKING", "250 ok", "250 ok")
		_, _ = br.ReadString('\n') // BDAT
		s.Cut()
		_, _ = br.ReadString(0)
	})
	var err error
	s, err = NewDialer(Options{Chunks: true}).Open(context.Background(), Route{Target: target, Helo: "gw.example"})
	must(t, err)
	defer s.Close()
	mail, rcpts := envelope(t)
	must(t, s.Recipients(mail, rcpts, ignore{}))
	body := letter(t)
	var f *Failure
	if _, err := s.Deliver([]byte("Received: x\r\n"), body, time.Now().Add(wait), present{}); !errors.As(err, &f) || s.taker.refuses() {
		t.Errorf("got %v, and no more chunks: %t", err, s.taker.refuses())
	}
}

// TestWhoRefusedAChunkIsTriedAgainAfterADay, and another server at the same address is another one.
func TestWhoRefusedAChunkIsTriedAgainAfterADay(t *testing.T) {
	t.Parallel()
	var k takers
	now := time.Now()
	at := site{target: netip.MustParseAddrPort("192.0.2.1:25"), name: "a.example"}
	other := at
	other.name = "b.example"
	k.of(other, now).state.Store(takes)
	k.of(at, now).refused(now)
	for _, c := range []struct {
		of    site
		after time.Duration
		want  int64
	}{{at, 0, now.Unix()}, {at, chunkPause - time.Second, now.Unix()}, {other, 0, takes}, {at, chunkPause + time.Second, untried}, {other, chunkPause + time.Second, takes}} {
		if got := k.of(c.of, now.Add(c.after)).state.Load(); got != c.want {
			t.Errorf("%s after %v: state %d, want %d", c.of.name, c.after, got, c.want)
		}
	}
}

// TestTakersAreBounded: a stranger can have many names.
func TestTakersAreBounded(t *testing.T) {
	t.Parallel()
	var k takers
	for i := range mostTakers + 100 {
		k.of(site{target: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 25)}, time.Now())
	}
	if len(k.m) != mostTakers {
		t.Errorf("%d are remembered, want %d", len(k.m), mostTakers)
	}
}
