package store

import (
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Search is a search of the message log that was saved.
type Search struct {
	Name  string
	Query string
	By    string
	Since time.Time
}

// ErrNoSearch says that no search has the name.
var ErrNoSearch = errors.New("no such search")

// Searches returns those that were saved, by name.
func (s *Store) Searches() ([]Search, error) {
	rows, err := s.read.Query(`SELECT name, query, by, since FROM searches ORDER BY name`)
	if err != nil {
		return nil, fmt.Errorf("could not read the saved searches: %w", err)
	}
	defer rows.Close()
	var all []Search
	for rows.Next() {
		var one Search
		var since int64
		if err := rows.Scan(&one.Name, &one.Query, &one.By, &since); err != nil {
			return nil, fmt.Errorf("could not read the saved searches: %w", err)
		}
		one.Since = unstamp(since)
		all = append(all, one)
	}
	return all, rows.Err()
}

// SaveSearch stores a search, in the place of one of the same name.
func (s *Store) SaveSearch(one Search, act Act) error {
	err := s.change(act, func(tx *sql.Tx) error {
		_, err := tx.Exec(`INSERT OR REPLACE INTO searches (name, query, by, since) VALUES (?, ?, ?, ?)`, one.Name, one.Query, one.By, stamp(one.Since))
		return err
	})
	if err != nil {
		return fmt.Errorf("could not save the search %s: %w", one.Name, err)
	}
	return nil
}

// RemoveSearch removes a search, or says ErrNoSearch.
func (s *Store) RemoveSearch(name string, act Act) (one Search, err error) {
	err = s.change(act, func(tx *sql.Tx) error {
		var since int64
		err := tx.QueryRow(`DELETE FROM searches WHERE name = ? RETURNING name, query, by, since`, name).Scan(&one.Name, &one.Query, &one.By, &since)
		if errors.Is(err, sql.ErrNoRows) {
			err = ErrNoSearch
		}
		one.Since = unstamp(since)
		return err
	})
	if err != nil {
		return one, fmt.Errorf("could not remove the search %s: %w", name, err)
	}
	return one, nil
}
