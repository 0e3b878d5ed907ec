package api

import (
	"context"
	"errors"
	"testing"
)

func (f *fake) Campaigns(_ context.Context, q CampaignQuery) ([]Campaign, error) {
	if q.State == "held" && q.Copies == 7 && q.Limit == 9 && q.User == "alice" {
		return []Campaign{{ID: "C1"}}, nil
	}
	return []Campaign{}, nil
}
func (f *fake) Campaign(_ context.Context, id string) (*Campaign, error) {
	return &Campaign{ID: id}, nil
}
func (f *fake) DecideCampaign(_ context.Context, who, id string, d CampaignDecision) (*CampaignDecided, error) {
	f.who = who
	return &CampaignDecided{Campaign: Campaign{ID: id, State: d.Do}}, nil
}
func (f *fake) Digests(context.Context) ([]Digest, error) { return []Digest{}, nil }
func (f *fake) ListDigest(_ context.Context, who string, d NewDigest) (*Digest, error) {
	f.who = who
	return &Digest{Hash: d.Hash}, nil
}
func (f *fake) UnlistDigest(_ context.Context, _, hash, reason string) (*Digest, error) {
	return &Digest{Hash: hash, Why: reason}, nil
}

func TestCampaignRoutes(t *testing.T) {
	t.Parallel()
	f := &fake{}
	c := serve(t, f)
	var some []Campaign
	q := CampaignQuery{User: "alice", State: "held", Copies: 7, Limit: 9}
	if err := c.Do(t.Context(), "GET", "/v1/campaigns?"+q.Values().Encode(), nil, &some); err != nil || len(some) != 1 {
		t.Errorf("%+v, %v", some, err)
	}
	var done CampaignDecided
	if err := c.Do(t.Context(), "POST", "/v1/campaigns/C1", CampaignDecision{Do: "lock", Reason: "why", Seconds: 60}, &done); err != nil || done.Campaign.ID != "C1" || f.who == "" {
		t.Errorf("%+v by %q, %v", done, f.who, err)
	}
	var d Digest
	if err := c.Do(t.Context(), "DELETE", "/v1/digests/abc?reason=mistake", nil, &d); err != nil || d.Hash != "abc" || d.Why != "mistake" {
		t.Errorf("%+v, %v", d, err)
	}
	for name, call := range map[string]func() error{
		"no reason": func() error { return c.Do(t.Context(), "POST", "/v1/campaigns/C1", CampaignDecision{Do: "hold"}, nil) },
		"nonsense": func() error {
			return c.Do(t.Context(), "POST", "/v1/campaigns/C1", CampaignDecision{Do: "burn", Reason: "x"}, nil)
		},
		"a month": func() error {
			return c.Do(t.Context(), "POST", "/v1/campaigns/C1", CampaignDecision{Do: "lock", Reason: "x", Seconds: 30 * 86400}, nil)
		},
		"an odd state":    func() error { return c.Do(t.Context(), "GET", "/v1/campaigns?state=odd", nil, nil) },
		"a hash alone":    func() error { return c.Do(t.Context(), "POST", "/v1/digests", NewDigest{Hash: "x"}, nil) },
		"many of nothing": func() error { return c.Do(t.Context(), "GET", "/v1/campaigns?limit=0", nil, nil) },
	} {
		var problem *Problem
		if err := call(); !errors.As(err, &problem) || problem.Code != "invalid" {
			t.Errorf("%s: %v", name, err)
		}
	}
}
