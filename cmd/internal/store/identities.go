package store

import (
	"database/sql"
	"fmt"
	"time"

	"sluice/filter/identity"
)

// PutIdentities writes the accounts of identities. Where another process wrote larger figures they stay, unless they are
// from before a reset.
func (s *Store) PutIdentities(all []identity.Entry) error {
	err := s.update(func(tx *sql.Tx) error {
		put, err := tx.Prepare(`INSERT INTO identities (user, name, first, last, messages, recipients, refused, bad, code, reset)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (user, name) DO UPDATE SET
			first = min(first, excluded.first), last = max(last, excluded.last), code = excluded.code,
			messages = iif(excluded.reset > reset, excluded.messages, max(messages, excluded.messages)),
			recipients = iif(excluded.reset > reset, excluded.recipients, max(recipients, excluded.recipients)),
			refused = iif(excluded.reset > reset, excluded.refused, max(refused, excluded.refused)),
			bad = iif(excluded.reset > reset, excluded.bad, max(bad, excluded.bad)),
			reset = max(reset, excluded.reset)`)
		if err != nil {
			return err
		}
		defer put.Close()
		for i := range all {
			e := &all[i]
			if _, err := put.Exec(e.User, e.Name, stamp(e.First), stamp(e.Last), int64(e.Messages), int64(e.Recipients), int64(e.Refused), int64(e.Bad), e.Code, stamp(e.Reset)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("could not store %d identities: %w", len(all), err)
	}
	return nil
}

// EachIdentity hands over every identity that is stored. Those without a message since a moment are forgotten first.
func (s *Store) EachIdentity(since time.Time, take func(identity.Entry)) error {
	if _, err := s.write.Exec(`DELETE FROM identities WHERE last < ?`, stamp(since)); err != nil {
		return fmt.Errorf("could not forget old identities: %w", err)
	}
	rows, err := s.read.Query(`SELECT user, name, first, last, messages, recipients, refused, bad, code, reset FROM identities`)
	if err != nil {
		return fmt.Errorf("could not read the identities: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var e identity.Entry
		var first, last, reset int64
		if err := rows.Scan(&e.User, &e.Name, &first, &last, &e.Messages, &e.Recipients, &e.Refused, &e.Bad, &e.Code, &reset); err != nil {
			return fmt.Errorf("could not read the identities: %w", err)
		}
		e.First, e.Last, e.Reset = unstamp(first), unstamp(last), unstamp(reset)
		take(e)
	}
	return rows.Err()
}
