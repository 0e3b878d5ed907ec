package store

import (
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"sluice/filter/policy"
	"sluice/filter/sender"
)

// ErrNoEntry says that no list has the entry.
var ErrNoEntry = errors.New("no such entry")

// Addresses returns the entries of allow and block lists that have not ended.
func (s *Store) Addresses() ([]sender.Entry, error) {
	rows, err := s.read.Query(`SELECT id, recipient, block, pattern, scope, of, skips, reason, by, since, until FROM addresses
		WHERE until = 0 OR until > ? ORDER BY id`, stamp(time.Now()))
	if err != nil {
		return nil, fmt.Errorf("could not list the addresses that are allowed or blocked: %w", err)
	}
	defer rows.Close()
	var all []sender.Entry
	for rows.Next() {
		var e sender.Entry
		var scope, since, until int64
		var skips string
		if err := rows.Scan(&e.ID, &e.Recipient, &e.Block, &e.Pattern, &scope, &e.Of, &skips, &e.Reason, &e.By, &since, &until); err != nil {
			return nil, err
		}
		e.Scope, e.Skips, e.Since, e.Until = policy.Scope(scope), strings.Fields(skips), unstamp(since), unstamp(until)
		all = append(all, e)
	}
	return all, rows.Err()
}

// PutAddress makes an entry, in the place of one for the same pattern in the same list, and returns it with its id.
func (s *Store) PutAddress(e sender.Entry, act Act) (sender.Entry, error) {
	err := s.change(act, func(tx *sql.Tx) error {
		return tx.QueryRow(`INSERT OR REPLACE INTO addresses (recipient, block, pattern, scope, of, skips, reason, by, since, until) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id`,
			e.Recipient, e.Block, e.Pattern, int64(e.Scope), e.Of, strings.Join(e.Skips, " "), e.Reason, e.By, stamp(e.Since), stamp(e.Until)).Scan(&e.ID)
	})
	if err != nil {
		return e, fmt.Errorf("could not store the entry of %s: %w", e.Pattern, err)
	}
	return e, nil
}

// RemoveAddress removes an entry.
func (s *Store) RemoveAddress(id int64, act Act) error {
	err := s.change(act, func(tx *sql.Tx) error {
		res, err := tx.Exec(`DELETE FROM addresses WHERE id = ?`, id)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, ErrNoEntry)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("could not remove entry %d: %w", id, err)
	}
	return nil
}
