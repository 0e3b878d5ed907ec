package api

import (
	"context"
	"errors"
	"testing"
)

func (f *fake) Queued(_ context.Context, q QueueQuery) (*QueuePage, error) {
	if q.Domain == "example.net" && q.Held && q.Limit == 7 {
		return &QueuePage{Deliveries: []QueuedMail{{ID: "d1", Domain: q.Domain}}, Total: 1, Held: 1}, nil
	}
	return &QueuePage{Deliveries: []QueuedMail{}}, nil
}
func (f *fake) QueueLanes(context.Context) ([]QueueLane, error) { return []QueueLane{}, nil }
func (f *fake) ChangeQueue(_ context.Context, who string, c QueueChange) (*QueueChanged, error) {
	f.who = who
	return &QueueChanged{Do: c.Do, Count: 1}, nil
}
func (f *fake) Submit(_ context.Context, _ string, s Submission) (*Submitted, error) {
	return &Submitted{Message: "m1", Deliveries: s.To}, nil
}

func TestQueueRoutes(t *testing.T) {
	t.Parallel()
	f := &fake{}
	c := serve(t, f)
	var page QueuePage
	q := QueueQuery{QueueFilter: QueueFilter{Domain: "example.net"}, Held: true, Limit: 7}
	if err := c.Do(t.Context(), "GET", "/v1/queue?"+q.Values().Encode(), nil, &page); err != nil || len(page.Deliveries) != 1 || page.Held != 1 {
		t.Errorf("%+v, %v", page, err)
	}
	var done QueueChanged
	good := QueueChange{Do: "hold", Filter: QueueFilter{User: "alice"}, Reason: "why"}
	if err := c.Do(t.Context(), "POST", "/v1/queue", good, &done); err != nil || done.Count != 1 || f.who == "" {
		t.Errorf("%+v by %q, %v", done, f.who, err)
	}
	for name, bad := range map[string]QueueChange{
		"no reason": {Do: "delete", Filter: QueueFilter{User: "alice"}}, "nothing meant": {Do: "retry"}, "nonsense": {Do: "burn", All: true},
	} {
		var problem *Problem
		if err := c.Do(t.Context(), "POST", "/v1/queue", bad, &done); !errors.As(err, &problem) || problem.Code != "invalid" {
			t.Errorf("%s: %v", name, err)
		}
	}
	var problem *Problem
	if err := c.Do(t.Context(), "POST", "/v1/queue/messages", Submission{Text: "x"}, nil); !errors.As(err, &problem) || problem.Code != "invalid" {
		t.Errorf("nobody to send to: %v", err)
	}
	if err := c.Do(t.Context(), "GET", "/v1/queue?from=x", nil, &page); !errors.As(err, &problem) || problem.Code != "invalid" {
		t.Errorf("a place that is none: %v", err)
	}
}
