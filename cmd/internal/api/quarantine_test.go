package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
)

func (f *fake) HeldMail(_ context.Context, q HeldQuery) ([]HeldMail, error) {
	if q.User == "alice" && q.State == "held" && q.Campaign == "C1" && q.Limit == 7 {
		return []HeldMail{{ID: "q1"}}, nil
	}
	return []HeldMail{}, nil
}
func (f *fake) HeldMessage(_ context.Context, id string) (*HeldDetail, error) {
	return &HeldDetail{HeldMail: HeldMail{ID: id}}, nil
}
func (f *fake) HeldText(_ context.Context, who, _ string, w io.Writer) error {
	f.who = who
	_, err := io.WriteString(w, "a message")
	return err
}
func (f *fake) ChangeHeld(_ context.Context, who string, c HeldChange) (*HeldChanged, error) {
	f.who = who
	return &HeldChanged{Do: c.Do, IDs: []string{c.Filter.ID}}, nil
}
func (f *fake) RotateHeldKeys(_ context.Context, who string) (*HeldRotation, error) {
	f.who = who
	return &HeldRotation{Messages: 3}, nil
}

func TestQuarantineRoutes(t *testing.T) {
	t.Parallel()
	f := &fake{}
	c := serve(t, f)
	var some []HeldMail
	q := HeldQuery{HeldFilter: HeldFilter{User: "alice", Campaign: "C1"}, State: "held", Limit: 7}
	if err := c.Do(t.Context(), "GET", "/v1/quarantine?"+q.Values().Encode(), nil, &some); err != nil || len(some) != 1 {
		t.Errorf("%+v, %v", some, err)
	}
	var text bytes.Buffer
	if err := c.Fetch(t.Context(), "/v1/quarantine/q1/message", &text); err != nil || text.String() != "a message" || f.who == "" {
		t.Errorf("%q by %q, %v", text.String(), f.who, err)
	}
	var done HeldChanged
	if err := c.Do(t.Context(), "POST", "/v1/quarantine", HeldChange{Do: "release", Filter: HeldFilter{ID: "q1"}, Reason: "why"}, &done); err != nil || len(done.IDs) != 1 {
		t.Errorf("%+v, %v", done, err)
	}
	var key HeldRotation
	if err := c.Do(t.Context(), "POST", "/v1/quarantine/key", nil, &key); err != nil || key.Messages != 3 {
		t.Errorf("%+v, %v", key, err)
	}
	for name, bad := range map[string]HeldChange{"no reason": {Do: "delete", All: true}, "nothing meant": {Do: "release", Reason: "x"}, "nonsense": {Do: "burn", All: true, Reason: "x"}} {
		var problem *Problem
		if err := c.Do(t.Context(), "POST", "/v1/quarantine", bad, &done); !errors.As(err, &problem) || problem.Code != "invalid" {
			t.Errorf("%s: %v", name, err)
		}
	}
	var problem *Problem
	if err := c.Do(t.Context(), "GET", "/v1/quarantine?state=odd", nil, &some); !errors.As(err, &problem) || problem.Code != "invalid" {
		t.Errorf("an odd state: %v", err)
	}
}
