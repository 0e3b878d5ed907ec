package relay

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"
)

// TestLeave: a connection from one of our addresses is asked about first; what stands idle gives way to it, and its end is told.
func TestLeave(t *testing.T) {
	t.Parallel()
	base, r := keeping(t, usual)
	base.Close()
	to := r.Target
	var open atomic.Int32
	refuse := false
	d := NewDialer(Options{Keep: time.Minute, Leave: func(ctx context.Context, from netip.Addr, _ netip.AddrPort) (func(), error) {
		if refuse || open.Load() > 0 {
			return nil, errors.New("as many as may be")
		}
		open.Add(1)
		return func() { open.Add(-1) }, nil
	}})
	defer d.Close()
	s := spoken(t, d, r)
	var f *Failure
	if _, err := d.Open(context.Background(), r); !errors.As(err, &f) || f.Code != 421 || !f.Close {
		t.Errorf("a second one: %v", err)
	}
	if !d.Keep(7, s) {
		t.Fatal("it was not kept")
	}
	again, err := d.Open(context.Background(), r)
	if err != nil {
		t.Fatalf("an idle one stands in the way: %v", err)
	}
	again.Close()
	again.Close()
	if n := open.Load(); n != 0 {
		t.Errorf("%d are still counted", n)
	}
	polite, err := d.Open(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	polite.Quit()
	polite.Bye(10 * time.Second)
	if n := open.Load(); n != 0 {
		t.Errorf("%d are still counted after QUIT", n)
	}
	refuse = true
	if _, err := d.Open(context.Background(), Route{Target: to, Helo: "gw.example"}); err != nil {
		t.Errorf("the host's own choice of an address is nobody's business: %v", err)
	}
}
