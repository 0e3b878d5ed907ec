package main

import (
	"context"
	"net/netip"
	"strings"
	"time"

	"sluice/cmd/internal/api"
)

var dayCampaign = func() api.Campaign {
	decided := now.Add(-10 * time.Minute)
	return api.Campaign{
		ID: "C04K7QX", State: "held", Rule: "users", Why: "3 users send the same, 40 % of 12 copies look bad", Decided: &decided, First: now.Add(-20 * time.Minute), Last: now.Add(-time.Minute),
		Copies: 12, Recipients: 12, Good: 6, Unsure: 3, Bad: 3, Stopped: 4, Subject: "Your parcel\x1b waits", Hosts: []string{"parcel.example"},
		Users:   []api.CampaignUser{{Name: "alice", Copies: 10, Last: now.Add(-time.Minute), Ticket: "K7QX-2M4T"}, {Name: "bob", Copies: 2, Last: now.Add(-5 * time.Minute)}},
		Sources: []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8:1::7")}, Samples: []string{"k3f9a9.1", "k3f9aa.1"},
	}
}()

var noSuchCampaign = &api.Problem{Status: 404, Code: "no-such-campaign", What: "there is no campaign \"C0\", or it is forgotten", Remedy: "`sluice campaign list` shows what there is"}

func (fake) Campaigns(_ context.Context, q api.CampaignQuery) ([]api.Campaign, error) {
	if q.User == "nobody" {
		return []api.Campaign{}, nil
	}
	return []api.Campaign{dayCampaign}, nil
}

func (fake) Campaign(_ context.Context, id string) (*api.Campaign, error) {
	if id != dayCampaign.ID {
		return nil, noSuchCampaign
	}
	return &dayCampaign, nil
}

func (fake) DecideCampaign(_ context.Context, who, id string, d api.CampaignDecision) (*api.CampaignDecided, error) {
	out := &api.CampaignDecided{Campaign: dayCampaign}
	if d.Do == "lock" {
		out.Locked, out.Unlocked = []string{"alice"}, []string{"bob: the user is on the never-lock list"}
	}
	return out, nil
}

func (fake) Digests(context.Context) ([]api.Digest, error) {
	return []api.Digest{{Hash: strings.Repeat("9f", 32), Why: "worm", By: "root", Since: now.Add(-time.Hour)}}, nil
}

func (fake) ListDigest(_ context.Context, who string, d api.NewDigest) (*api.Digest, error) {
	if len(d.Hash) != 64 {
		return nil, &api.Problem{Status: 400, Code: "invalid", What: "\"9f86\" is not a SHA-256", Remedy: "give its 64 hexadecimal digits"}
	}
	return &api.Digest{Hash: d.Hash, Why: d.Reason, By: who, Since: now, Until: d.Until}, nil
}

func (fake) UnlistDigest(_ context.Context, _, hash, _ string) (*api.Digest, error) {
	return nil, &api.Problem{Status: 404, Code: "no-such-digest", What: "the SHA-256 " + hash + " is not listed", Remedy: "`sluice campaign digest` shows what is"}
}
