//go:build bpftest

package bpf

import "testing"

// TestClosedTwice: the memory of a data path that is closed once more may be another one's by then, which goes on.
func TestClosedTwice(t *testing.T) {
	dir := bpffs(t)
	for range 3 {
		gone := open(t, dir, Options{})
		gone.must(gone.Close())
		l := open(t, dir, Options{})
		_ = gone.Close()
		l.slots.put(7, mailUserSlot{Passed: 3})
		if all, err := l.userCounts(); err != nil || all[7].N[mailUserReasonUSER_PASSED] != 3 {
			t.Errorf("user 7 has %+v, %v", all[7], err)
		}
		l.slots.put(7, mailUserSlot{})
		l.must(l.Close())
	}
}
