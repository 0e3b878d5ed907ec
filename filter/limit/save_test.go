package limit

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestCountsSurviveARestart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := NewCounts(0)
		a, b := hourly(7, Messages), hourly(8, Recipients)
		for range 3 {
			c.Settle(a, 0, 5)
			time.Sleep(10 * time.Minute)
		}
		c.Reserve(b, 9, 10)
		c.Settle(b, 4, 4)
		if !c.Changed() {
			t.Error("nothing has changed")
		}
		// Many restarts must not move what was booked.
		for range 20 {
			text := c.Append(nil)
			if c.Changed() {
				t.Error("changed since it was saved")
			}
			time.Sleep(7 * time.Second)
			c = NewCounts(0)
			if err := c.Restore(text); err != nil {
				t.Fatal(err)
			}
		}
		if n, r := c.Count(a); n != 15 || r != 0 {
			t.Errorf("%d booked, %d reserved, want 15 and 0", n, r)
		}
		if n, r := c.Count(b); n != 4 || r != 0 {
			t.Errorf("%d booked, %d reserved, want 4: what was only reserved is given back", n, r)
		}
		if _, ok := c.Reserve(a, 1, 15); ok {
			t.Error("the limit is forgotten")
		}
		time.Sleep(30*time.Minute + width(time.Hour))
		if n, _ := c.Count(a); n != 10 {
			t.Errorf("%d booked an hour and a slot after the first, want 10", n)
		}
		time.Sleep(2 * time.Hour)
		if text := c.Append(nil); len(text) != 4 {
			t.Errorf("%d bytes of what does not count any more", len(text))
		}
	})
}

func TestDamagedCountsAreNoPanic(t *testing.T) {
	t.Parallel()
	c := NewCounts(0)
	c.Settle(hourly(7, Messages), 0, 5)
	text := c.Append(nil)
	for i := range text {
		if err := NewCounts(0).Restore(text[:i]); err == nil && i != 4 {
			t.Errorf("the first %d of %d bytes are taken for whole", i, len(text))
		}
		odd := append([]byte(nil), text...)
		odd[i] ^= 0xff
		_ = NewCounts(0).Restore(odd) // any result but a panic
	}
}
