package proxy

import (
	"context"
	"sync"
	"time"
)

// life is the context of a session: it ends when the session is cut. What the library's contexts keep of all that ever
// waited with them would be a tenth of an idle session; this one is as it was once nobody waits any more.
type life struct {
	mu    sync.Mutex
	ended bool
	done  chan struct{} // made when somebody asks for it
	first *watcher
}

// watcher is a function that is called at the end of a life.
type watcher struct {
	f          func()
	next, prev *watcher
}

// Deadline implements context.Context; there is none.
func (l *life) Deadline() (time.Time, bool) { return time.Time{}, false }

// Value implements context.Context; there is none.
func (l *life) Value(any) any { return nil }

// Err implements context.Context.
func (l *life) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return context.Canceled
	}
	return nil
}

// Done implements context.Context.
func (l *life) Done() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done == nil {
		l.done = make(chan struct{})
		if l.ended {
			close(l.done)
		}
	}
	return l.done
}

// AfterFunc calls f in a goroutine of its own at the end, unless stop is called before; stop tells whether it was. The
// library's contexts ask their parents for it.
func (l *life) AfterFunc(f func()) (stop func() bool) {
	w := &watcher{f: f}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		go f()
		return func() bool { return false }
	}
	if w.next = l.first; w.next != nil {
		w.next.prev = w
	}
	l.first = w
	return func() bool { return l.forget(w) }
}

// forget takes a watcher out; false when it was called or is out already.
func (l *life) forget(w *watcher) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w.f == nil || l.ended {
		return false
	}
	w.f = nil
	if w.next != nil {
		w.next.prev = w.prev
	}
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		l.first = w.next
	}
	return true
}

// end ends it.
func (l *life) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return
	}
	l.ended = true
	if l.done != nil {
		close(l.done)
	}
	for w := l.first; w != nil; w = w.next {
		go w.f()
	}
	l.first = nil
}

// brief gives a context that ends with the life, for what takes a moment: nothing of it is left once it is cancelled.
func (l *life) brief() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	stop := l.AfterFunc(cancel)
	return ctx, func() {
		stop()
		cancel()
	}
}
