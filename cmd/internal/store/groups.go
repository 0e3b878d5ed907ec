package store

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"sluice/filter/policy"
)

// ErrNoGroup says that no account or plan has the name.
var ErrNoGroup = errors.New("no such group")

// Groups returns accounts, plans and the network, and of whom each user is a member.
func (s *Store) Groups() (all []policy.Group, members map[uint32]uint32, err error) {
	rows, err := s.read.Query(`SELECT id, kind, name, parent, plan, settings, budget, most, contact FROM groups ORDER BY kind, name`)
	if err != nil {
		return nil, nil, fmt.Errorf("could not list accounts and plans: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		g, err := scanGroup(rows)
		if err != nil {
			return nil, nil, fmt.Errorf("could not read an account or plan: %w", err)
		}
		all = append(all, g)
	}
	if err := rows.Err(); err != nil {
		return nil, nil, err
	}
	members = map[uint32]uint32{}
	ms, err := s.read.Query(`SELECT user, account FROM members`)
	if err != nil {
		return nil, nil, fmt.Errorf("could not list the members of accounts: %w", err)
	}
	defer ms.Close()
	for ms.Next() {
		var user, account uint32
		if err := ms.Scan(&user, &account); err != nil {
			return nil, nil, err
		}
		members[user] = account
	}
	return all, members, ms.Err()
}

func scanGroup(row interface{ Scan(...any) error }) (g policy.Group, err error) {
	var kind string
	var settings, budget []byte
	if err := row.Scan(&g.ID, &kind, &g.Name, &g.Parent, &g.Plan, &settings, &budget, &g.Most, &g.Contact); err != nil {
		return g, err
	}
	if g.Kind, err = policy.ParseGroupKind(kind); err != nil {
		return g, err
	}
	return g, errors.Join(json.Unmarshal(settings, &g.Settings), json.Unmarshal(budget, &g.Budget))
}

// PutGroup makes an account or plan, or replaces the one of the same kind and name, and returns it with its id.
func (s *Store) PutGroup(g policy.Group, act Act) (policy.Group, error) {
	err := s.change(act, func(tx *sql.Tx) error {
		err := tx.QueryRow(`SELECT id FROM groups WHERE kind = ? AND name = ?`, g.Kind.String(), g.Name).Scan(&g.ID)
		if errors.Is(err, sql.ErrNoRows) {
			g.ID, err = takeIDs(tx, 1)
		}
		if err != nil {
			return err
		}
		settings, err := json.Marshal(&g.Settings)
		if err != nil {
			return err
		}
		if g.Budget == nil {
			g.Budget = policy.LimitChanges{}
		}
		budget, err := json.Marshal(g.Budget)
		if err != nil {
			return err
		}
		_, err = tx.Exec(`INSERT OR REPLACE INTO groups (id, kind, name, parent, plan, settings, budget, most, contact) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			g.ID, g.Kind.String(), g.Name, g.Parent, g.Plan, string(settings), string(budget), g.Most, g.Contact)
		return err
	})
	if err != nil {
		return g, fmt.Errorf("could not store %s %s: %w", g.Kind, g.Name, err)
	}
	return g, nil
}

// RemoveGroup removes an account or plan on which nothing depends.
func (s *Store) RemoveGroup(id uint32, act Act) error {
	err := s.change(act, func(tx *sql.Tx) error {
		var members, inside int
		err := tx.QueryRow(`SELECT (SELECT count(*) FROM members WHERE account = ?1), (SELECT count(*) FROM groups WHERE parent = ?1 OR plan = ?1)`, id).Scan(&members, &inside)
		if err != nil {
			return err
		}
		if members+inside > 0 {
			return fmt.Errorf("%d users and %d accounts belong to it; move them first", members, inside)
		}
		res, err := tx.Exec(`DELETE FROM groups WHERE id = ?`, id)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, ErrNoGroup)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("could not remove the %s: %w", act.Subject, err)
	}
	return nil
}

// Join makes a user a member of an account, of none for 0.
func (s *Store) Join(user, account uint32, act Act) error {
	err := s.change(act, func(tx *sql.Tx) error {
		if account == 0 {
			_, err := tx.Exec(`DELETE FROM members WHERE user = ?`, user)
			return err
		}
		_, err := tx.Exec(`INSERT INTO members (user, account) VALUES (?, ?) ON CONFLICT (user) DO UPDATE SET account = excluded.account`, user, account)
		return err
	})
	if err != nil {
		return fmt.Errorf("could not store to which account user %d belongs: %w", user, err)
	}
	return nil
}

// Lift is what holds for a user for a time.
type Lift struct {
	User     uint32
	Settings policy.Overrides
	Until    time.Time
	Reason   string
	By       string
}

// Lifts returns those that have not ended.
func (s *Store) Lifts() ([]Lift, error) {
	rows, err := s.read.Query(`SELECT user, settings, until, reason, by FROM lifts WHERE until > ?`, stamp(time.Now()))
	if err != nil {
		return nil, fmt.Errorf("could not list what holds for a time: %w", err)
	}
	defer rows.Close()
	var all []Lift
	for rows.Next() {
		var l Lift
		var text []byte
		var until int64
		if err := rows.Scan(&l.User, &text, &until, &l.Reason, &l.By); err != nil {
			return nil, err
		}
		if err := json.Unmarshal(text, &l.Settings); err != nil {
			return nil, fmt.Errorf("could not read what holds for user %d for a time: %w", l.User, err)
		}
		l.Until = unstamp(until)
		all = append(all, l)
	}
	return all, rows.Err()
}

// PutLift replaces what holds for a user for a time; nothing for the zero settings.
func (s *Store) PutLift(l Lift, act Act) error {
	err := s.change(act, func(tx *sql.Tx) error {
		if l.Settings.Empty() {
			_, err := tx.Exec(`DELETE FROM lifts WHERE user = ?`, l.User)
			return err
		}
		text, err := json.Marshal(&l.Settings)
		if err != nil {
			return err
		}
		_, err = tx.Exec(`INSERT OR REPLACE INTO lifts (user, settings, until, reason, by) VALUES (?, ?, ?, ?, ?)`, l.User, string(text), stamp(l.Until), l.Reason, l.By)
		return err
	})
	if err != nil {
		return fmt.Errorf("could not store what holds for user %d for a time: %w", l.User, err)
	}
	return nil
}

// ChangeOverrides replaces the settings that users do not inherit, all or none, with one line of the audit log.
func (s *Store) ChangeOverrides(all map[uint32]policy.Overrides, act Act) error {
	err := s.change(act, func(tx *sql.Tx) error {
		for user, o := range all {
			if err := putOverrides(tx, user, o); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("could not store the settings of %d users: %w", len(all), err)
	}
	return nil
}

// Backup writes a copy of the whole database, as it is at one moment, to a new file.
func (s *Store) Backup(path string) error {
	if _, err := s.read.Exec(`VACUUM INTO ?`, path); err != nil {
		return fmt.Errorf("could not write the backup %s: %w; it must be a new file in a folder that sluiced may write to", path, err)
	}
	return nil
}
