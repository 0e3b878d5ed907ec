package lock

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"sluice/filter/lock/ladder"
	"sluice/filter/policy"
)

// TestNoSuspectIsMissed: whatever happened to whom, and however long ago, who is marked is said to be, and nobody else.
func TestNoSuspectIsMissed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, rnd := policy.Default().Lock, rand.New(rand.NewPCG(1, 2))
		ts, marked := newTallies(), 0
		kinds := []ladder.Kind{ladder.Good, ladder.Good, ladder.Known, ladder.Doubtful, ladder.Spam, ladder.Unknown, ladder.Complaint}
		for range 20_000 {
			whom := Scope{User: rnd.Uint32N(5_000)}
			if rnd.IntN(4) == 0 {
				whom.Identity = "shop"
			}
			switch rnd.IntN(40) {
			case 0:
				ts.release(ts.now(), whom, &s)
			case 1:
				ts.forget(whom)
			default:
				ts.tell(whom, ladder.Event{Kind: kinds[rnd.IntN(len(kinds))], Print: rnd.Uint64(), Score: 90}, Evidence{Code: "SPAM"}, &s)
			}
			time.Sleep(time.Duration(rnd.IntN(60)) * time.Second)
			for _, user := range [...]uint32{whom.User, rnd.Uint32N(5_000)} {
				u := ts.shard(user).known.find(Scope{User: user})
				want := u != nil && u.Marked(ts.now())
				if want {
					marked++
				}
				if got := ts.marked(user); got != want {
					t.Fatalf("user %d is marked %t, want %t", user, got, want)
				}
			}
		}
		suspects := 0
		for user := range uint32(5_000) {
			if ts.shard(user).suspects.has(user) {
				suspects++
			}
		}
		if marked < 1_000 || suspects > 4_500 {
			t.Errorf("%d times somebody was marked, and %d of 5000 are suspects", marked, suspects)
		}
	})
}
