package store

import (
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Login is a name by which somebody logs in on the smarthost ports.
type Login struct {
	Name        string // a domain, or a mailbox; in lower case, domains as A-labels
	User        uint32
	Hash        string // of its password; "" where the customer's own server is asked
	Own         string // that server, host:port; ""
	OwnImplicit bool   // it speaks TLS from the first byte on
	Created     time.Time
	Changed     time.Time // of the password, too
}

// ErrNoLogin says that nobody logs in by that name.
var ErrNoLogin = errors.New("no such login")

// Logins returns all logins, by name.
func (s *Store) Logins() ([]Login, error) {
	rows, err := s.read.Query(`SELECT name, user, hash, own, own_implicit, created, changed FROM logins ORDER BY name`)
	if err != nil {
		return nil, fmt.Errorf("could not read the logins: %w", err)
	}
	defer rows.Close()
	var all []Login
	for rows.Next() {
		var l Login
		var created, changed int64
		if err := rows.Scan(&l.Name, &l.User, &l.Hash, &l.Own, &l.OwnImplicit, &created, &changed); err != nil {
			return nil, fmt.Errorf("could not read the logins: %w", err)
		}
		l.Created, l.Changed = unstamp(created), unstamp(changed)
		all = append(all, l)
	}
	return all, rows.Err()
}

// PutLogin stores a login, in the place of one of the same name.
func (s *Store) PutLogin(l Login, act Act) error {
	err := s.change(act, func(tx *sql.Tx) error {
		_, err := tx.Exec(`INSERT INTO logins (name, user, hash, own, own_implicit, created, changed) VALUES (?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (name) DO UPDATE SET user = excluded.user, hash = excluded.hash, own = excluded.own,
				own_implicit = excluded.own_implicit, changed = excluded.changed`,
			l.Name, l.User, l.Hash, l.Own, l.OwnImplicit, stamp(l.Created), stamp(l.Changed))
		return err
	})
	if err != nil {
		return fmt.Errorf("could not store the login %s: %w", l.Name, err)
	}
	return nil
}

// RemoveLogin removes a login, or says ErrNoLogin.
func (s *Store) RemoveLogin(name string, act Act) error {
	err := s.change(act, func(tx *sql.Tx) error {
		res, err := tx.Exec(`DELETE FROM logins WHERE name = ?`, name)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, ErrNoLogin)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("could not remove the login %s: %w", name, err)
	}
	return nil
}
