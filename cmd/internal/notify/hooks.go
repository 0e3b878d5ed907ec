package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Endpoint is a server that hears of events.
type Endpoint struct {
	Name   string
	URL    string
	Secret []byte   // signs what it is told
	Kinds  []string // of events; none: all of them
}

func (e *Endpoint) wants(kind string) bool {
	return len(e.Kinds) == 0 || slices.Contains(e.Kinds, kind)
}

// Call is one event on its way to one endpoint.
type Call struct {
	ID    string // the same at each try: whoever hears twice knows it
	Hook  string // name of the endpoint
	Kind  string
	Body  []byte
	Made  time.Time
	Next  time.Time // not before that
	Tries int
	Error string // of the last try
}

// Journal keeps calls over a restart. Its methods return once the disk has them.
type Journal interface {
	AddCalls(cs ...Call) error
	// DueCalls returns the oldest calls of an endpoint whose time has come, at most so many.
	DueCalls(hook string, now time.Time, most int) ([]Call, error)
	// CountCalls tells how many wait, by endpoint.
	CountCalls() (map[string]int, error)
	CallTried(c Call) error
	DropCall(hook, id string) error
}

// HookOptions set up Hooks. Times that are zero have the usual values.
type HookOptions struct {
	Journal Journal
	Alarm   func(error) // hears of an endpoint that is dead, once; and of calls that were given up
	Agent   string      // how the program calls itself
	First   time.Duration
	Longest time.Duration
	GiveUp  time.Duration
	Poll    time.Duration
	Client  *http.Client
}

// The usual times: a call is tried again after 5 s, then after four times as long each time up to an hour, for three days.
const (
	usualFirst   = 5 * time.Second
	usualLongest = time.Hour
	usualGiveUp  = 72 * time.Hour
	usualPoll    = 2 * time.Second
	callPatience = 10 * time.Second
	deadAfter    = 5      // failures in a row from which on an endpoint is dead
	mostWaiting  = 10_000 // calls of one endpoint; further events are not told to it
)

// Hooks tell endpoints of events until they answer. Safe for concurrent use.
type Hooks struct {
	o    HookOptions
	wake chan struct{}

	mu     sync.Mutex
	ends   map[string]*endpoint
	agains sync.WaitGroup
}

type endpoint struct {
	Endpoint
	busy     bool
	failures int       // in a row
	pause    time.Time // nothing is tried before: one that is down is not asked for each event
	since    time.Time
	last     string
	heard    uint64
	alarmed  bool
}

// State tells how an endpoint does.
type State struct {
	Name, URL string
	Waiting   int
	Heard     uint64    // calls since the start
	Failures  int       // in a row
	Since     time.Time // of the first of them
	Error     string
	Dead      bool
}

// NewHooks returns hooks without endpoints; see Configure and Run.
func NewHooks(o HookOptions) *Hooks {
	usual := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	usual(&o.First, usualFirst)
	usual(&o.Longest, usualLongest)
	usual(&o.GiveUp, usualGiveUp)
	usual(&o.Poll, usualPoll)
	if o.Client == nil {
		o.Client = &http.Client{}
	}
	c := *o.Client
	c.Timeout = callPatience
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse } // elsewhere the secret means nothing
	o.Client = &c
	return &Hooks{o: o, wake: make(chan struct{}, 1), ends: map[string]*endpoint{}}
}

// Configure replaces the endpoints. What waits for one that is gone waits until it is back, or its time is over.
func (h *Hooks) Configure(all []Endpoint) {
	h.mu.Lock()
	defer h.mu.Unlock()
	next := map[string]*endpoint{}
	for _, e := range all {
		if old := h.ends[e.Name]; old != nil && old.URL == e.URL {
			old.Endpoint = e
			next[e.Name] = old
		} else {
			next[e.Name] = &endpoint{Endpoint: e}
		}
	}
	h.ends = next
	h.rouse()
}

func (h *Hooks) rouse() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// calls makes the calls that tell an event to all who want it.
func (h *Hooks) calls(kind, id string, body []byte, now time.Time) []Call {
	h.mu.Lock()
	defer h.mu.Unlock()
	var cs []Call
	for _, e := range h.ends {
		if e.wants(kind) {
			cs = append(cs, Call{ID: id, Hook: e.Name, Kind: kind, Body: body, Made: now, Next: now})
		}
	}
	return cs
}

// Tell keeps an event for all who want it. It returns once that is on disk, and waits for nobody. An event that is told
// again, behind a crash, has the same id.
func (h *Hooks) Tell(kind, id string, body []byte) error {
	cs := h.calls(kind, id, body, time.Now())
	if len(cs) == 0 {
		return nil
	}
	waiting, err := h.o.Journal.CountCalls()
	if err != nil {
		return err
	}
	full := slices.DeleteFunc(slices.Clone(cs), func(c Call) bool { return waiting[c.Hook] < mostWaiting })
	cs = slices.DeleteFunc(cs, func(c Call) bool { return waiting[c.Hook] >= mostWaiting })
	for _, c := range full {
		h.o.Alarm(fmt.Errorf("the webhook %s has %d events waiting and is told no more; mend it, or remove it", c.Hook, waiting[c.Hook]))
	}
	if len(cs) == 0 {
		return nil
	}
	defer h.rouse()
	return h.o.Journal.AddCalls(cs...)
}

// Run makes calls until ctx ends. A dead endpoint delays nobody but itself.
func (h *Hooks) Run(ctx context.Context) {
	t := time.NewTicker(h.o.Poll)
	defer t.Stop()
	defer h.agains.Wait()
	for {
		h.begin(ctx)
		select {
		case <-t.C:
		case <-h.wake:
		case <-ctx.Done():
			return
		}
	}
}

// begin starts a worker for each endpoint that has none.
func (h *Hooks) begin(ctx context.Context) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.ends {
		if e.busy || time.Now().Before(e.pause) {
			continue
		}
		e.busy = true
		h.agains.Go(func() {
			if err := h.work(ctx, e); err != nil && ctx.Err() == nil {
				h.o.Alarm(fmt.Errorf("could not look for what the webhook %s is to be told: %w", e.Name, err))
			}
			h.mu.Lock()
			e.busy = false
			h.mu.Unlock()
		})
	}
}

// batch is how many calls are read at once.
const batch = 50

// work makes the calls that are due, in their order, until one fails. What an endpoint does not take, and takes others
// meanwhile, comes behind these.
func (h *Hooks) work(ctx context.Context, e *endpoint) error {
	for ctx.Err() == nil {
		cs, err := h.o.Journal.DueCalls(e.Name, time.Now(), batch)
		if err != nil || len(cs) == 0 {
			return err
		}
		for i := range cs {
			if done, err := h.one(ctx, e, &cs[i]); err != nil || !done {
				return err
			}
		}
	}
	return nil
}

// one makes a call; false where it has to be tried again.
func (h *Hooks) one(ctx context.Context, e *endpoint, c *Call) (done bool, err error) {
	h.mu.Lock()
	at := e.Endpoint
	h.mu.Unlock()
	status, cerr := h.call(ctx, &at, c)
	if ctx.Err() != nil {
		return false, nil
	}
	if cerr == nil {
		h.heard(e)
		return true, h.o.Journal.DropCall(c.Hook, c.ID)
	}
	c.Tries++
	c.Error = cerr.Error()
	h.failed(e, cerr)
	if status == http.StatusGone || time.Since(c.Made) > h.o.GiveUp {
		h.o.Alarm(fmt.Errorf("the webhook %s was not told of an event (%s, %s) after %d tries: %w", e.Name, c.Kind, c.ID, c.Tries, cerr))
		return true, h.o.Journal.DropCall(c.Hook, c.ID)
	}
	c.Next = time.Now().Add(h.wait(c.Tries))
	return false, h.o.Journal.CallTried(*c)
}

func (h *Hooks) wait(tries int) time.Duration {
	d := h.o.First
	for range tries - 1 {
		if d *= 4; d >= h.o.Longest {
			return h.o.Longest
		}
	}
	return d
}

func (h *Hooks) heard(e *endpoint) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e.heard++
	e.failures, e.last, e.since, e.pause, e.alarmed = 0, "", time.Time{}, time.Time{}, false
}

func (h *Hooks) failed(e *endpoint, err error) {
	h.mu.Lock()
	if e.failures++; e.failures == 1 {
		e.since = time.Now()
	}
	e.last, e.pause = err.Error(), time.Now().Add(h.wait(e.failures))
	alarm := e.failures >= deadAfter && !e.alarmed
	e.alarmed = e.alarmed || alarm
	n := e.failures
	h.mu.Unlock()
	if alarm {
		h.o.Alarm(fmt.Errorf("the webhook %s is dead: it failed %d times in a row: %w; it is tried further", e.Name, n, err))
	}
}

// call makes one request, signed as standardwebhooks.com says: webhook-signature is "v1," and the base64 of the HMAC-SHA256
// of id, timestamp and body with dots between them, under the secret.
func (h *Hooks) call(ctx context.Context, e *Endpoint, c *Call) (status int, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, e.URL, bytes.NewReader(c.Body))
	if err != nil {
		return 0, err
	}
	at := strconv.FormatInt(time.Now().Unix(), 10)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", h.o.Agent)
	r.Header.Set("Webhook-Id", c.ID)
	r.Header.Set("Webhook-Timestamp", at)
	r.Header.Set("Webhook-Signature", Signature(e.Secret, c.ID, at, c.Body))
	res, err := h.o.Client.Do(r)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10))
	err = errors.Join(err, res.Body.Close())
	if res.StatusCode/100 != 2 {
		return res.StatusCode, fmt.Errorf("it answered %s", res.Status)
	}
	return res.StatusCode, err
}

// Signature is what a call is signed with; the timestamp is in seconds since 1970.
func Signature(secret []byte, id, timestamp string, body []byte) string {
	m := hmac.New(sha256.New, secret)
	m.Write([]byte(id + "." + timestamp + "."))
	m.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(m.Sum(nil))
}

// States tells how the endpoints do, by name.
func (h *Hooks) States() ([]State, error) {
	waiting, err := h.o.Journal.CountCalls()
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []State
	for _, e := range h.ends {
		all = append(all, State{Name: e.Name, URL: e.URL, Waiting: waiting[e.Name], Heard: e.heard, Failures: e.failures, Since: e.since, Error: e.last, Dead: e.failures >= deadAfter})
	}
	slices.SortFunc(all, func(a, b State) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return all, nil
}
