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
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
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

func TestProxyThatHearsNothingIsCutOff(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
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
