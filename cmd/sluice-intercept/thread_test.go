package main

import (
	"os"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFirstThreadStaysHome: no goroutine that takes its thread elsewhere can get the one that the process is seen by.
func TestFirstThreadStaysHome(t *testing.T) {
	t.Parallel()
	const threads = 64
	var all, on sync.WaitGroup
	on.Add(threads)
	for range threads {
		all.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			on.Done()
			on.Wait() // so that each has a thread of its own
			if unix.Gettid() == os.Getpid() {
				t.Error("a goroutine has the first thread")
			}
		})
	}
	all.Wait()
}
