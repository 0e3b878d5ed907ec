package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/store"
)

// A token's secret is "sluice_ID_" and 26 letters of chance, 130 bits: a plain hash of it tells nobody what it was.
const (
	tokenMark = "sluice_"
	// usedEvery is how exactly it is kept when a token was used last: each time is a synced write.
	usedEvery = time.Minute
)

func shownToken(t *store.Token) api.Token {
	a := api.Token{ID: t.ID, Name: t.Name, Scopes: t.Scopes, By: t.By, Created: t.Created}
	for at, to := range map[*time.Time]**time.Time{&t.Until: &a.Until, &t.Used: &a.Used, &t.Revoked: &a.Revoked} {
		if !at.IsZero() {
			*to = at
		}
	}
	return a
}

// Tokens lists all tokens, the newest first.
func (b backend) Tokens(context.Context) ([]api.Token, error) {
	all, err := b.d.store.Tokens()
	list := make([]api.Token, len(all))
	for i := range all {
		list[i] = shownToken(&all[i])
	}
	return list, err
}

// AddToken makes a token and tells its secret this once.
func (b backend) AddToken(_ context.Context, who string, n api.NewToken) (*api.MadeToken, error) {
	id, chance := strings.ToLower(rand.Text()[:8]), strings.ToLower(rand.Text())
	t := store.Token{ID: id, Name: n.Name, Hash: tokenHash(chance), Scopes: slices.Compact(slices.Sorted(slices.Values(n.Scopes))), By: who, Created: time.Now()}
	if n.Until != nil {
		t.Until = *n.Until
	}
	if err := b.d.store.AddToken(t, store.Act{Who: who, What: "token made", Subject: n.Name, Detail: t.ID + " " + strings.Join(t.Scopes, ",")}); err != nil {
		return nil, err
	}
	b.d.log.Info("API token made", "token", n.Name, "id", t.ID, "scopes", t.Scopes, "by", who)
	return &api.MadeToken{Token: shownToken(&t), Secret: tokenMark + id + "_" + chance}, nil
}

func tokenHash(chance string) string {
	sum := sha256.Sum256([]byte(chance))
	return hex.EncodeToString(sum[:])
}

// RevokeToken ends a token for good.
func (b backend) RevokeToken(_ context.Context, who, id, reason string) (*api.Token, error) {
	t, err := b.d.store.Token(id)
	if err == nil {
		err = b.d.store.RevokeToken(id, store.Act{Who: who, What: "token revoked", Subject: t.Name, Detail: id + " " + reason})
	}
	if errors.Is(err, store.ErrNoToken) {
		return nil, &api.Problem{Status: http.StatusNotFound, Code: "no-such-token", What: "there is no token " + id + " that holds", Remedy: "`sluice token` lists them by their ids"}
	}
	if err != nil {
		return nil, err
	}
	b.d.log.Info("API token revoked", "token", t.Name, "id", id, "by", who)
	if t, err = b.d.store.Token(id); err != nil {
		return nil, err
	}
	a := shownToken(&t)
	return &a, nil
}

// Bearer tells whose secret it is.
func (b backend) Bearer(_ context.Context, secret string) (*api.Token, error) {
	bad := &api.Problem{Status: http.StatusUnauthorized, Code: "bad-token", What: "the token is not known, is over, or was revoked", Remedy: "`sluice token` lists those that hold"}
	rest, ok := strings.CutPrefix(secret, tokenMark)
	id, chance, two := strings.Cut(rest, "_")
	if !ok || !two {
		return nil, bad
	}
	t, err := b.d.store.Token(id)
	if err != nil && !errors.Is(err, store.ErrNoToken) {
		return nil, err
	}
	now := time.Now()
	if err != nil || subtle.ConstantTimeCompare([]byte(tokenHash(chance)), []byte(t.Hash)) == 0 || !t.Good(now) {
		return nil, bad
	}
	if now.Sub(t.Used) > usedEvery {
		if err := b.d.store.TokenUsed(id, now); err != nil {
			return nil, err
		}
	}
	a := shownToken(&t)
	return &a, nil
}
