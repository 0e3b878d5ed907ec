package store

import (
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Token is what a program shows to use the API. What it has to show is kept as a hash alone.
type Token struct {
	ID      string // public part
	Name    string
	Hash    string // SHA-256 of the secret part, in hex
	Scopes  []string
	By      string
	Created time.Time
	Until   time.Time // zero: for good
	Used    time.Time // to the minute; zero: never
	Revoked time.Time // zero: it holds
}

// Good tells whether the token may be used at a moment.
func (t *Token) Good(now time.Time) bool {
	return t.Revoked.IsZero() && (t.Until.IsZero() || now.Before(t.Until))
}

// ErrNoToken says that there is no such token, or that it was revoked.
var ErrNoToken = errors.New("no such token")

// Tokens returns all tokens, the newest first, also those that were revoked.
func (s *Store) Tokens() ([]Token, error) {
	rows, err := s.read.Query(`SELECT id, name, hash, scopes, by, created, until, used, revoked FROM tokens ORDER BY created DESC, id`)
	if err != nil {
		return nil, fmt.Errorf("could not read the tokens: %w", err)
	}
	defer rows.Close()
	var all []Token
	for rows.Next() {
		t, err := scanToken(rows.Scan)
		if err != nil {
			return nil, fmt.Errorf("could not read the tokens: %w", err)
		}
		all = append(all, t)
	}
	return all, rows.Err()
}

// Token returns the token of an id, or says ErrNoToken.
func (s *Store) Token(id string) (Token, error) {
	t, err := scanToken(s.read.QueryRow(`SELECT id, name, hash, scopes, by, created, until, used, revoked FROM tokens WHERE id = ?`, id).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNoToken
	}
	if err != nil {
		return Token{}, fmt.Errorf("could not read the token %s: %w", id, err)
	}
	return t, nil
}

func scanToken(scan func(...any) error) (t Token, err error) {
	var scopes string
	var created, until, used, revoked int64
	err = scan(&t.ID, &t.Name, &t.Hash, &scopes, &t.By, &created, &until, &used, &revoked)
	t.Scopes = strings.Fields(scopes)
	t.Created, t.Until, t.Used, t.Revoked = unstamp(created), unstamp(until), unstamp(used), unstamp(revoked)
	return t, err
}

// AddToken stores a new token.
func (s *Store) AddToken(t Token, act Act) error {
	err := s.change(act, func(tx *sql.Tx) error {
		_, err := tx.Exec(`INSERT INTO tokens (id, name, hash, scopes, by, created, until, used, revoked) VALUES (?, ?, ?, ?, ?, ?, ?, 0, 0)`,
			t.ID, t.Name, t.Hash, strings.Join(t.Scopes, " "), t.By, stamp(t.Created), stamp(t.Until))
		return err
	})
	if err != nil {
		return fmt.Errorf("could not store the token %s: %w", t.Name, err)
	}
	return nil
}

// RevokeToken ends a token for good, or says ErrNoToken.
func (s *Store) RevokeToken(id string, act Act) error {
	err := s.change(act, func(tx *sql.Tx) error {
		res, err := tx.Exec(`UPDATE tokens SET revoked = ? WHERE id = ? AND revoked = 0`, stamp(time.Now()), id)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, ErrNoToken)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("could not revoke the token %s: %w", id, err)
	}
	return nil
}

// TokenUsed notes when a token was used last.
func (s *Store) TokenUsed(id string, at time.Time) error {
	if _, err := s.write.Exec(`UPDATE tokens SET used = max(used, ?) WHERE id = ?`, stamp(at), id); err != nil {
		return fmt.Errorf("could not note the use of the token %s: %w", id, err)
	}
	return nil
}
