package store

import (
	"database/sql"
	"fmt"

	"sluice/filter/campaign"
)

// Digests returns the SHA-256 of files and texts that are refused.
func (s *Store) Digests() ([]campaign.Digest, error) {
	rows, err := s.read.Query(`SELECT hash, why, by, since, until FROM digests ORDER BY hash`)
	if err != nil {
		return nil, fmt.Errorf("could not read the listed digests: %w", err)
	}
	defer rows.Close()
	var all []campaign.Digest
	for rows.Next() {
		var d campaign.Digest
		var since, until int64
		if err := rows.Scan(&d.Hash, &d.Why, &d.By, &since, &until); err != nil {
			return nil, fmt.Errorf("could not read the listed digests: %w", err)
		}
		d.Since, d.Until = unstamp(since), unstamp(until)
		all = append(all, d)
	}
	return all, rows.Err()
}

// PutDigest lists a digest, in the place of the same one.
func (s *Store) PutDigest(d campaign.Digest, act Act) error {
	err := s.change(act, func(tx *sql.Tx) error {
		_, err := tx.Exec(`INSERT OR REPLACE INTO digests (hash, why, by, since, until) VALUES (?, ?, ?, ?, ?)`, d.Hash, d.Why, d.By, stamp(d.Since), stamp(d.Until))
		return err
	})
	if err != nil {
		return fmt.Errorf("could not store the digest %s: %w", d.Hash, err)
	}
	return nil
}

// RemoveDigest takes a digest off the list; one that is not listed is no error.
func (s *Store) RemoveDigest(hash string, act Act) error {
	err := s.change(act, func(tx *sql.Tx) error {
		_, err := tx.Exec(`DELETE FROM digests WHERE hash = ?`, hash)
		return err
	})
	if err != nil {
		return fmt.Errorf("could not remove the digest %s: %w", hash, err)
	}
	return nil
}
