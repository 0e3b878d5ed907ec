package store

import (
	"errors"
	"slices"
	"testing"
	"time"
)

func TestTokens(t *testing.T) {
	t.Parallel()
	s := open(t, temp(t))
	defer shut(t, s)
	now := time.Now().UTC().Truncate(time.Microsecond)
	act := Act{Who: "root", What: "token made", Subject: "x"}
	one := Token{ID: "aaaa", Name: "x", Hash: "h", Scopes: []string{"log", "read"}, By: "root", Created: now, Until: now.Add(time.Hour)}
	if err := s.AddToken(one, act); err != nil {
		t.Fatal(err)
	}
	if err := s.AddToken(one, act); err == nil {
		t.Error("one id twice")
	}
	if err := s.TokenUsed("aaaa", now.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	got, err := s.Token("aaaa")
	if err != nil || got.Name != "x" || !slices.Equal(got.Scopes, one.Scopes) || !got.Used.Equal(now.Add(time.Minute)) || !got.Until.Equal(one.Until) || !got.Revoked.IsZero() {
		t.Errorf("%+v, %v", got, err)
	}
	if !got.Good(now) || got.Good(now.Add(time.Hour)) {
		t.Error("it holds until its end")
	}
	if err := s.RevokeToken("aaaa", act); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"aaaa", "bbbb"} {
		if err := s.RevokeToken(id, act); !errors.Is(err, ErrNoToken) {
			t.Errorf("revoking %s: %v", id, err)
		}
	}
	if all, err := s.Tokens(); err != nil || len(all) != 1 || all[0].Good(now) || all[0].Revoked.IsZero() {
		t.Errorf("%+v, %v", all, err)
	}
	if _, err := s.Token("bbbb"); !errors.Is(err, ErrNoToken) {
		t.Errorf("a token that never was: %v", err)
	}
	if acts, err := s.Acts(10); err != nil || len(acts) != 2 {
		t.Errorf("%d lines of the audit log, %v; want one for each change", len(acts), err)
	}
}
