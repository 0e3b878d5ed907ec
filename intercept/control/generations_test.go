package control

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

func TestGenerations(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, f := tcpListener(t)
	path := serve(t, &fakeHelper{listeners: []Listener{{"smtp", f}}}, anyone)
	dial := func() *Client {
		c, w, err := Dial(ctx, path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range w.Listeners {
			l.File.Close()
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	older, newer := dial(), dial()
	hear := func(c *Client) Event {
		select {
		case e := <-c.Events():
			return e
		case <-ctx.Done():
			t.Fatal("no event came")
		}
		return Event{}
	}
	if err := newer.Serving(ctx); err != nil {
		t.Fatal(err)
	}
	if e := hear(older); !e.Retire || e.Note != nil {
		t.Errorf("the older heard %+v, want to retire", e)
	}
	for i := range 500 {
		if err := older.Tell(ctx, fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 500 {
		if e := hear(newer); e.Retire || string(e.Note) != fmt.Sprint(i) {
			t.Fatalf("the newer heard %+v, want note %d", e, i)
		}
	}
	select {
	case e := <-older.Events():
		t.Errorf("the older heard itself: %+v", e)
	default:
	}
	if err := newer.Tell(ctx, make([]byte, MaxNote)); err != nil {
		t.Errorf("the longest note: %v", err)
	}
	if e := hear(older); len(e.Note) != MaxNote {
		t.Errorf("the longest note came as %d bytes", len(e.Note))
	}

	operator, err := Reach(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	defer operator.Close()
	var ce *Error
	if err := operator.Serving(ctx); !errors.As(err, &ce) || ce.Code != CodeInvalid {
		t.Errorf("one who has not said hello could speak to proxies: %v", err)
	}
	if err := operator.Tell(ctx, nil); !errors.Is(err, ErrLost) {
		t.Errorf("an empty note: %v, want to be cut off", err)
	}
}

// TestYoungestProxyTakesOver: after a helper's restart an older and a newer proxy find it in any order, and both accept.
func TestYoungestProxyTakesOver(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel) // after the parallel cases
	for name, order := range map[string]func(older, newer *Client) error{
		"the older says so first": func(o, n *Client) error { return errors.Join(o.Serving(ctx), n.Serving(ctx)) },
		"the newer says so first": func(o, n *Client) error { return errors.Join(n.Serving(ctx), o.Serving(ctx)) },
		"the older says so twice": func(o, n *Client) error { return errors.Join(o.Serving(ctx), n.Serving(ctx), o.Serving(ctx)) },
		"the newer says so twice": func(o, n *Client) error { return errors.Join(n.Serving(ctx), o.Serving(ctx), n.Serving(ctx)) },
		"only the newer one":      func(_, n *Client) error { return n.Serving(ctx) },
		"the older before the newer is ready": func(o, n *Client) error {
			if err := o.Serving(ctx); err != nil {
				return err
			}
			if err := o.Tell(ctx, []byte("x")); err != nil { // what comes before it came too late to be missed
				return err
			}
			if e := <-n.Events(); e.Retire {
				return errors.New("the newer one is to retire before it began")
			}
			return n.Serving(ctx)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, f := tcpListener(t)
			path := serve(t, &fakeHelper{listeners: []Listener{{"smtp", f}}}, anyone)
			var both [2]*Client
			for i := range both {
				c, w, err := dial(ctx, path, nil, uint64(1000+i))
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				w.Listeners[0].File.Close()
				both[i] = c
			}
			older, newer := both[0], both[1]
			if err := order(older, newer); err != nil {
				t.Fatal(err)
			}
			if e := <-older.Events(); !e.Retire {
				t.Errorf("the older heard %+v", e)
			}
			if err := older.Tell(ctx, []byte("last")); err != nil {
				t.Fatal(err)
			}
			for e := range newer.Events() {
				if e.Retire {
					t.Error("the newer one is to retire")
				}
				if string(e.Note) == "last" {
					break
				}
			}
		})
	}
}

func TestProxyThatHearsNothingIsCutOff(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, f := tcpListener(t)
	path := serve(t, &fakeHelper{listeners: []Listener{{"smtp", f}}}, anyone)
	deaf, _, err := Dial(ctx, path, nil)
	if err != nil {
		t.Fatal(err)
	}
	c, _, err := Dial(ctx, path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range maxEvents + 1 { // it takes none out of its queue
		if err := c.Tell(ctx, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-deaf.Lost():
	case <-ctx.Done():
		t.Error("it kept its connection and has missed events")
	}
}
