package scanner

import (
	"context"
	"sync"
	"time"
)

// The breaker of an instance: after so many failures in a row no message waits for it any more. It is pinged now and then;
// once it answers it is asked again, and the first failure then is enough.
const (
	openAfter  = 5
	probePause = 10 * time.Second
	quiet      = 30 * time.Second // without an answer for so long it is pinged without cause, so that its death is known before mail needs it
)

// Event tells that an instance died or came back.
type Event struct {
	Plugin  string
	Kind    Kind
	Address string
	Dead    bool
	Err     error // why, where it died
	Then    string
}

// instance is one address of a plug-in.
type instance struct {
	address string
	client  client
	event   func(in *instance, dead bool, err error)
	pause   time.Duration // between two pings

	mu      sync.Mutex
	fails   int // in a row
	dead    bool
	pinged  time.Time
	pinging bool
	good    time.Time // the last answer
	bad     time.Time // the last failure
	err     error     // of it
}

// alive tells whether messages may be shown to it. Where not, it is pinged beside, so that no message waits.
func (in *instance) alive() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.dead && !in.pinging && time.Since(in.pinged) >= in.pause {
		in.pinging, in.pinged = true, time.Now()
		go in.ping(context.Background())
	}
	return !in.dead
}

// look pings the instance where it is dead or has not answered for long, and returns when that is done.
func (in *instance) look(ctx context.Context) {
	in.mu.Lock()
	due := !in.pinging && (in.dead || in.fails > 0 || time.Since(in.good) > quiet)
	if due {
		in.pinging, in.pinged = true, time.Now()
	}
	in.mu.Unlock()
	if due {
		in.ping(ctx)
	}
}

func (in *instance) ping(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, probePause)
	defer cancel()
	err := in.client.ping(ctx)
	in.mu.Lock()
	in.pinging = false
	was := in.dead
	if err != nil {
		in.mu.Unlock()
		in.failed(err)
		return
	}
	in.good = time.Now()
	if was {
		in.dead, in.fails = false, openAfter-1 // half open
	} else {
		in.fails = 0
	}
	in.mu.Unlock()
	if was {
		in.event(in, false, nil)
	}
}

// answered notes that it did what it is for.
func (in *instance) answered() {
	in.mu.Lock()
	was := in.dead
	in.fails, in.dead, in.good = 0, false, time.Now()
	in.mu.Unlock()
	if was {
		in.event(in, false, nil)
	}
}

// failed notes that it did not.
func (in *instance) failed(err error) {
	in.mu.Lock()
	in.fails++
	in.bad, in.err = time.Now(), err
	dies := !in.dead && in.fails >= openAfter
	if dies {
		in.dead, in.pinged = true, time.Now()
	}
	in.mu.Unlock()
	if dies {
		in.event(in, true, err)
	}
}

// State is how an instance is.
type State string

// The states.
const (
	Unknown State = "unknown" // not asked yet
	Alive   State = "alive"
	Failing State = "failing" // the last answer was a failure, and it is asked still
	Dead    State = "dead"    // no message is shown to it until it answers a ping
)

func (in *instance) state() (s State, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case in.dead:
		return Dead, in.err
	case in.bad.After(in.good):
		return Failing, in.err
	case in.good.IsZero():
		return Unknown, nil
	}
	return Alive, nil
}
