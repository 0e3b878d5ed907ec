package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"sluice/intercept/observe"
)

// source is where packets, or pieces of them, come from. It looks into none.
type source interface {
	// run hands over until ctx ends; errChanged says that another source must be opened.
	run(ctx context.Context, to *feed) error
	Close() error
}

// errChanged says that the data path has changed and the source is that of the old one.
var errChanged = errors.New("the data path has changed")

// feed hands frames to the reader, in the order in which they came.
type feed struct {
	mu  sync.Mutex
	w   *bufio.Writer
	buf []byte

	before, now uint64 // lost with earlier sources, and with this one
}

func newFeed(to *os.File) *feed { return &feed{w: bufio.NewWriterSize(to, 256<<10)} }

// put hands over a frame; it waits while the reader is slow.
func (f *feed) put(kind observe.Kind, b []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.buf = observe.AppendFrame(f.buf[:0], kind, b)
	_, err := f.w.Write(f.buf)
	return wrapFeed(err)
}

// lost tells how much was lost so far, and sends what is buffered.
func (f *feed) lost(n uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = n
	f.buf = observe.AppendLost(f.buf[:0], f.before+n)
	_, err := f.w.Write(f.buf)
	return wrapFeed(errors.Join(err, f.w.Flush()))
}

// renew says that another source counts from 0.
func (f *feed) renew() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before, f.now = f.before+f.now, 0
}

func (f *feed) flush() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return wrapFeed(f.w.Flush())
}

func wrapFeed(err error) error {
	if err != nil {
		return fmt.Errorf("could not hand packets to the reader: %w", err)
	}
	return nil
}

// every is how often sources count their losses and look after themselves.
const every = time.Second
