package lock

import (
	"math/rand/v2"
	"sync"
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

// TestASuspectIsSeenAtOnce: who is judged is marked from then on, whoever else of his shard is judged or forgotten meanwhile.
func TestASuspectIsSeenAtOnce(t *testing.T) {
	t.Parallel()
	s, ts := policy.Default().Lock, newTallies()
	stop := make(chan struct{})
	var all, sweeps sync.WaitGroup
	sweeps.Go(func() {
		sh := ts.shard(0)
		for {
			select {
			case <-stop:
				return
			default:
			}
			sh.mu.Lock()
			ts.sweep(sh, ts.now(), &s)
			sh.mu.Unlock()
		}
	})
	for i := range uint32(8) {
		all.Go(func() {
			for n := range uint32(500) {
				user := shards * (n*8 + i) // all of one shard, and many of one bit
				whom := Scope{User: user}
				if n%3 == 0 {
					ts.release(ts.now(), whom, &s)
				} else {
					ts.tell(whom, ladder.Event{Kind: ladder.Spam, Print: uint64(n) + 1}, Evidence{Code: "SPAM"}, &s)
				}
				if !ts.marked(user) {
					t.Errorf("user %d is not marked", user)
				}
				if n%2 == 0 {
					ts.forget(whom)
					if ts.marked(user) {
						t.Errorf("user %d is still marked", user)
					}
				}
			}
		})
	}
	all.Wait()
	close(stop)
	sweeps.Wait()
}
