package relay

import (
	"net/netip"
	"testing"
	"time"
)

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
