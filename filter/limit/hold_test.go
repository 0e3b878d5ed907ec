package limit

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"
)

// TestHeldPlaces: sessions of another process count for the caps, and are let in whatever these say.
func TestHeldPlaces(t *testing.T) {
	t.Parallel()
	s := NewSessions(SessionOptions{Wait: 20 * time.Millisecond})
	src, dst := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddrPort("198.51.100.25:25")
	var release []func()
	for range 3 {
		release = append(release, s.Hold(src, dst))
	}
	if all := s.Places(); len(all) != 1 || all[0] != (Place{src, dst, 3}) {
		t.Errorf("places are %v", all)
	}
	if _, err := s.Enter(context.Background(), src, dst, 0, 3); !errors.Is(err, ErrTooMany) {
		t.Errorf("a fourth session beside three elsewhere: %v", err)
	}
	entered := make(chan error)
	s.o.Wait = time.Minute
	go func() {
		_, err := s.Enter(context.Background(), src, dst, 0, 3)
		entered <- err
	}()
	for s.Stats().Waiting == 0 {
		time.Sleep(time.Millisecond) // there is no event: it waits
	}
	release[0]()
	release[0]()
	if err := <-entered; err != nil {
		t.Error(err)
	}
	if n := s.Stats().Active; n != 3 {
		t.Errorf("%d places are taken, want 3", n)
	}
}
