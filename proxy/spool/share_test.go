package spool

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// slowDisk is a disk whose syncs wait for each other's turn, and are counted.
type slowDisk struct {
	disk
	syncs atomic.Int64
	turn  chan struct{} // one value lets one sync of a segment through; closed: all
}

func (d *slowDisk) create(name string) (file, error) {
	f, err := d.disk.create(name)
	return &slowFile{f, d}, err
}

type slowFile struct {
	file
	d *slowDisk
}

func (f *slowFile) sync() error {
	f.d.syncs.Add(1)
	<-f.d.turn
	return f.file.sync()
}

// TestCommitsShareASync: what many sessions commit while one sync is under way is on disk with the next one.
func TestCommitsShareASync(t *testing.T) {
	t.Parallel()
	d := &slowDisk{disk: newSimDisk(1), turn: make(chan struct{}, 1)}
	d.turn <- struct{}{} // of the first segment's head
	s, err := Open("simulated", Options{disk: d})
	if err != nil {
		t.Fatal(err)
	}
	before := d.syncs.Load()
	var wg sync.WaitGroup
	commit1 := func() {
		wg.Go(func() {
			if _, err := tryCommit(s, to("a@example.net"), message(1)); err != nil {
				t.Error(err)
			}
		})
	}
	commit1()
	until := func(ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("it did not come about in 20 seconds")
			}
		}
	}
	until(func() bool { return d.syncs.Load() == before+1 })
	const many = 100
	for range many {
		commit1()
	}
	until(func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.pending) == many })
	if n := s.Figures().Deliveries; n != 0 {
		t.Errorf("%d messages are there before a sync has ended", n)
	}
	close(d.turn)
	wg.Wait()
	if n := d.syncs.Load() - before; n != 2 {
		t.Errorf("%d messages took %d syncs, want 2", many+1, n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
