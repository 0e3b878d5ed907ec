package limit

import (
	"context"
	"errors"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var (
	mx1 = netip.MustParseAddrPort("198.51.100.1:25")
	mx2 = netip.MustParseAddrPort("198.51.100.2:25")
)

func enter(t *testing.T, s *Sessions, src netip.Addr, dst netip.AddrPort) func() {
	t.Helper()
	release, err := s.Enter(context.Background(), src, dst, 4, 2)
	if err != nil {
		t.Fatalf("Enter: %v", err)
	}
	return release
}

func TestExcessWaitsInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var alarms []Capped
		s := NewSessions(SessionOptions{OnCap: func(c Capped) { alarms = append(alarms, c) }})
		a, b := enter(t, s, addr(1), mx1), enter(t, s, addr(1), mx1)
		var order []int
		var mu sync.Mutex
		var releases []func()
		for i := range 4 {
			go func() {
				release, err := s.Enter(context.Background(), addr(1), mx1, 4, 2)
				if err != nil {
					t.Errorf("waiter %d: %v", i, err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				order = append(order, i)
				releases = append(releases, release)
			}()
			synctest.Wait()
		}
		if st := s.Stats(); st.Active != 2 || st.Waiting != 4 || st.Capped != 4 {
			t.Errorf("stats are %+v", st)
		}
		if len(alarms) != 1 || !alarms[0].PerPair || alarms[0].Source != addr(1) || alarms[0].Target != mx1 {
			t.Errorf("alarms are %+v, want one for the pair", alarms)
		}
		// Those who wait for mx1 hold up neither another destination nor another source.
		c := enter(t, s, addr(1), mx2)
		d := enter(t, s, addr(2), mx1)
		time.Sleep(59 * time.Second)
		for i, release := range []func(){a, b, a} { // the third gives nothing back
			release()
			synctest.Wait()
			if want := min(i+1, 2); len(order) != want {
				t.Fatalf("after %d releases %v were admitted", i+1, order)
			}
		}
		for _, release := range releases[:2] {
			release()
			synctest.Wait() // each admits one
		}
		if !slices.Equal(order, []int{0, 1, 2, 3}) {
			t.Errorf("admitted in the order %v", order)
		}
		for _, release := range append(releases, c, d) {
			release()
		}
		if st := s.Stats(); st.Active != 0 || st.Sources != 0 {
			t.Errorf("stats at the end are %+v", st)
		}
	})
}

func TestWaitingEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := NewSessions(SessionOptions{MaxWaiting: 2})
		held := []func(){enter(t, s, addr(1), mx1), enter(t, s, addr(1), mx1)}
		gone := errors.New("client is gone")
		ctx, leave := context.WithCancelCause(context.Background())
		began := time.Now()
		var late, left error
		go func() { _, late = s.Enter(context.Background(), addr(1), mx1, 4, 2) }()
		go func() { _, left = s.Enter(ctx, addr(1), mx1, 4, 2) }()
		synctest.Wait()
		if _, err := s.Enter(context.Background(), addr(1), mx1, 4, 2); !errors.Is(err, ErrTooMany) {
			t.Errorf("a third waiter got %v, want ErrTooMany", err)
		}
		leave(gone)
		synctest.Wait()
		if !errors.Is(left, gone) {
			t.Errorf("who left got %v", left)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if !errors.Is(late, ErrTooMany) || time.Since(began) != time.Minute {
			t.Errorf("after %v the waiter got %v, want ErrTooMany after 1m", time.Since(began), late)
		}
		if st := s.Stats(); st.Waiting != 0 || st.Refused != 2 {
			t.Errorf("stats are %+v", st)
		}
		for _, release := range held {
			release()
		}
		if st := s.Stats(); st.Sources != 0 {
			t.Errorf("stats at the end are %+v", st)
		}
	})
}

func TestSourceCap(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var alarm Capped
		s := NewSessions(SessionOptions{OnCap: func(c Capped) { alarm = c }})
		for range 2 {
			enter(t, s, addr(1), mx1)
			enter(t, s, addr(1), mx2)
		}
		other := netip.MustParseAddrPort("198.51.100.3:25")
		if _, err := s.Enter(context.Background(), addr(1), other, 4, 2); !errors.Is(err, ErrTooMany) {
			t.Errorf("the fifth session got %v", err)
		}
		if alarm.PerPair || alarm.Active != 4 {
			t.Errorf("alarm is %+v, want the source's cap", alarm)
		}
		if _, err := s.Enter(context.Background(), addr(1), other, 0, 0); err != nil {
			t.Errorf("without caps: %v", err)
		}
	})
}

// TestSessionsUnderStress checks that the caps hold at every moment and that nobody is forgotten.
func TestSessionsUnderStress(t *testing.T) {
	t.Parallel()
	s := NewSessions(SessionOptions{})
	var mu sync.Mutex
	active, most := 0, 0
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			dst := mx1
			if i%2 == 0 {
				dst = mx2
			}
			release, err := s.Enter(context.Background(), addr(1), dst, 10, 6)
			if err != nil {
				t.Errorf("session %d: %v", i, err)
				return
			}
			mu.Lock()
			active++
			most = max(most, active)
			mu.Unlock()
			runtime.Gosched()
			mu.Lock()
			active--
			mu.Unlock()
			release()
		})
	}
	wg.Wait()
	if st := s.Stats(); st.Active != 0 || st.Waiting != 0 || st.Sources != 0 {
		t.Errorf("stats at the end are %+v", st)
	}
	if most > 10 {
		t.Errorf("%d sessions at once, want at most 10", most)
	}
}

func BenchmarkEnter(b *testing.B) {
	s := NewSessions(SessionOptions{})
	b.ReportAllocs()
	for i := range b.N {
		release, err := s.Enter(context.Background(), addr(i&127), mx1, 100, 20)
		if err != nil {
			b.Fatal(err)
		}
		release()
	}
}
