package main

import (
	"context"
	"io"
	"net/netip"
	"time"

	"sluice/cmd/internal/api"
)

var dayHeld = api.HeldMail{ID: "q7k2m9xa40bc1", Time: now.Add(-2 * time.Hour), Message: "k3f9a9.1", User: "alice", Client: netip.MustParseAddr("192.0.2.7"), Sender: "shop@alice.example",
	Recipients: []string{"b@sink.example", "c@sink.example"}, Size: 4096, Check: "learned", Code: "SPAM", Class: "spam", Evidence: "probability 0.9912", Campaign: "C04K7QX0", Tries: 3,
	Last: now.Add(-time.Minute), Until: now.Add(334 * time.Hour), State: "held"}

func (fake) HeldMail(_ context.Context, q api.HeldQuery) ([]api.HeldMail, error) {
	if q.User == "nobody" {
		return []api.HeldMail{}, nil
	}
	return []api.HeldMail{dayHeld}, nil
}

func (fake) HeldMessage(_ context.Context, id string) (*api.HeldDetail, error) {
	if id != dayHeld.ID {
		return nil, &api.Problem{Status: 404, Code: "no-such-message", What: "no message \"" + id + "\" is held, or no more", Remedy: "`sluice quarantine list` shows what is"}
	}
	return &api.HeldDetail{HeldMail: dayHeld, From: "Shop <s***@alice.example>", Subject: "Your order ####", Text: "Dear b*@sink.example,\nyour order \x1b[31m#### waits", Hosts: []string{"shop.example"}}, nil
}

func (fake) HeldText(_ context.Context, _, _ string, w io.Writer) error {
	_, err := io.WriteString(w, "Subject: Your order 4711\r\n\r\nwaits\r\n")
	return err
}

func (fake) ChangeHeld(_ context.Context, _ string, c api.HeldChange) (*api.HeldChanged, error) {
	out := &api.HeldChanged{Do: c.Do, IDs: []string{dayHeld.ID}}
	if c.Train {
		out.Learnt = 1
	}
	if c.All {
		out.Refused = []string{"q0: the held message is damaged"}
	}
	return out, nil
}

func (fake) RotateHeldKeys(context.Context, string) (*api.HeldRotation, error) {
	return &api.HeldRotation{Messages: 12}, nil
}
