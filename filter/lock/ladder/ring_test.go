package ladder

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestRing compares a ring with the counts of all slots, over restarts too.
func TestRing(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		start, length := time.Duration(rnd.Int64N(int64(100*time.Hour)))*time.Duration(seed%2), time.Hour
		var s Sender
		all := map[int64]int{}
		for now, i := start, 0; i < 2_000; i++ {
			slot := slotOf(now, length)
			if n := rnd.IntN(4); rnd.IntN(3) > 0 {
				s.hour.add(now, length, n)
				all[slot] += n
			}
			want := 0
			for at, n := range all {
				if at < slot-slots {
					delete(all, at)
					continue
				}
				want += n
			}
			if got := s.hour.sum(now, length); got != want {
				t.Fatalf("seed %d, step %d: %d, want %d", seed, i, got, want)
			}
			switch rnd.IntN(200) {
			case 0:
				now += time.Duration(rnd.Int64N(int64(3 * length)))
			case 1:
				saved := s.Append(nil)
				var again Sender
				if err := again.Restore(saved, now); err != nil {
					t.Fatal(err)
				}
				s = again
			}
			now += time.Duration(rnd.Int64N(int64(length) / 10))
		}
	}
}
