package store

import (
	"database/sql"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"sluice/filter/policy"
)

// Origin says where a user comes from.
type Origin string

// The origins.
const (
	Config   Origin = "config"
	Command  Origin = "command"
	Template Origin = "template"
)

// User is a user with what the store knows of it.
type User struct {
	policy.Listed
	Origin  Origin
	Created time.Time
}

// ErrNoUser says that no user has the name.
var ErrNoUser = errors.New("no such user")

// EnsureConfigured makes the users of the configuration file known and returns them with their ids, in the same order.
// An id belongs to its name for ever. Users who are gone from the file are removed; their id stays theirs.
func (s *Store) EnsureConfigured(users []policy.Listed) ([]policy.Listed, error) {
	out := make([]policy.Listed, len(users))
	err := s.update(func(tx *sql.Tx) error {
		// Prefixes may move between users of the file, so all of them go first.
		_, err := tx.Exec(`DELETE FROM prefixes WHERE user IN (SELECT id FROM users WHERE origin = 'config')`)
		if err != nil {
			return err
		}
		now := stamp(time.Now())
		if _, err := tx.Exec(`UPDATE users SET removed = ? WHERE origin = 'config' AND removed = 0`, now); err != nil {
			return err
		}
		for i, u := range users {
			if out[i], err = putUser(tx, u, Config); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("could not store the users of the configuration: %w", err)
	}
	s.forgetMade(out)
	return out, nil
}

// AddUser adds a user by command and returns it with its id. A user made from the template keeps its id when it is
// given the same name.
func (s *Store) AddUser(u policy.Listed) (policy.Listed, error) {
	if u.Name == "" || len(u.Prefixes) == 0 {
		return policy.Listed{}, errors.New("could not add the user: it needs a name and at least one prefix")
	}
	var out policy.Listed
	err := s.update(func(tx *sql.Tx) error {
		old, removed, err := findUser(tx, u.Name)
		if err == nil && !removed && old.Origin != Template {
			return fmt.Errorf("the name is taken by a user from %s", old.Origin)
		}
		if err != nil && !errors.Is(err, ErrNoUser) {
			return err
		}
		out, err = putUser(tx, u, Command)
		return err
	})
	if err != nil {
		return policy.Listed{}, fmt.Errorf("could not add user %s: %w", u.Name, err)
	}
	s.forgetMade([]policy.Listed{out})
	return out, nil
}

// RemoveUser removes a user that was added by command. Its id stays its name's.
func (s *Store) RemoveUser(name string) (policy.Listed, error) {
	var out policy.Listed
	err := s.update(func(tx *sql.Tx) error {
		u, removed, err := findUser(tx, name)
		switch {
		case err != nil:
			return err
		case removed:
			return ErrNoUser
		case u.Origin == Config:
			return errors.New("the user is in the configuration file; remove it there and reload")
		case u.Origin == Template:
			return errors.New("the user was made from the template and would be made again; lock it, or exempt its prefix")
		}
		out = u.Listed
		if _, err := tx.Exec(`DELETE FROM prefixes WHERE user = ?`, u.ID); err != nil {
			return err
		}
		_, err = tx.Exec(`UPDATE users SET removed = ? WHERE id = ?`, stamp(time.Now()), u.ID)
		return err
	})
	if err != nil {
		return policy.Listed{}, fmt.Errorf("could not remove user %s: %w", name, err)
	}
	return out, nil
}

// Users returns all users that are not removed, by id.
func (s *Store) Users() ([]User, error) {
	if err := s.flushMade(); err != nil {
		return nil, err
	}
	prefixes, err := s.allPrefixes()
	if err != nil {
		return nil, err
	}
	rows, err := s.read.Query(`SELECT id, name, origin, contact, created FROM users WHERE removed = 0 ORDER BY id`)
	if err != nil {
		return nil, fmt.Errorf("could not list the users: %w", err)
	}
	defer rows.Close()
	var all []User
	for rows.Next() {
		var u User
		var created int64
		if err := rows.Scan(&u.ID, &u.Name, &u.Origin, &u.Contact, &created); err != nil {
			return nil, err
		}
		u.Created, u.Prefixes = unstamp(created), prefixes[u.ID]
		if p, err := netip.ParsePrefix(u.Name); err == nil && u.Origin == Template {
			u.Prefixes = []netip.Prefix{p}
		}
		all = append(all, u)
	}
	return all, rows.Err()
}

// User returns the user of that name, or ErrNoUser.
func (s *Store) User(name string) (User, error) {
	if err := s.flushMade(); err != nil {
		return User{}, err
	}
	u, removed, err := findUser(s.read, name)
	if err == nil && removed {
		err = ErrNoUser
	}
	if err != nil {
		return User{}, fmt.Errorf("could not find user %s: %w", name, err)
	}
	return u, nil
}

// querier is what *sql.DB and *sql.Tx have in common here.
type querier interface {
	Query(query string, args ...any) (*sql.Rows, error)
	QueryRow(query string, args ...any) *sql.Row
}

func findUser(q querier, name string) (u User, removed bool, err error) {
	var created, gone int64
	err = q.QueryRow(`SELECT id, name, origin, contact, created, removed FROM users WHERE name = ?`, name).
		Scan(&u.ID, &u.Name, &u.Origin, &u.Contact, &created, &gone)
	if errors.Is(err, sql.ErrNoRows) {
		return User{}, false, ErrNoUser
	}
	if err != nil {
		return User{}, false, err
	}
	u.Created = unstamp(created)
	if u.Origin == Template {
		if p, err := netip.ParsePrefix(u.Name); err == nil {
			u.Prefixes = []netip.Prefix{p}
		}
		return u, gone != 0, nil
	}
	rows, err := q.Query(`SELECT prefix FROM prefixes WHERE user = ? ORDER BY prefix`, u.ID)
	if err != nil {
		return User{}, false, err
	}
	defer rows.Close()
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return User{}, false, err
		}
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return User{}, false, err
		}
		u.Prefixes = append(u.Prefixes, p)
	}
	return u, gone != 0, rows.Err()
}

// putUser inserts or revives a user and gives it its prefixes.
func putUser(tx *sql.Tx, u policy.Listed, from Origin) (policy.Listed, error) {
	err := tx.QueryRow(`SELECT id FROM users WHERE name = ?`, u.Name).Scan(&u.ID)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		if u.ID, err = takeIDs(tx, 1); err != nil {
			return u, err
		}
		_, err = tx.Exec(`INSERT INTO users (id, name, origin, contact, created) VALUES (?, ?, ?, ?, ?)`,
			u.ID, u.Name, from, u.Contact, stamp(time.Now()))
	case err == nil:
		_, err = tx.Exec(`UPDATE users SET origin = ?, contact = ?, removed = 0 WHERE id = ?`, from, u.Contact, u.ID)
	}
	if err != nil {
		return u, err
	}
	if _, err := tx.Exec(`DELETE FROM prefixes WHERE user = ?`, u.ID); err != nil {
		return u, err
	}
	masked := make([]netip.Prefix, len(u.Prefixes))
	for i, p := range u.Prefixes {
		masked[i] = p.Masked()
		if err := putPrefix(tx, u.ID, masked[i]); err != nil {
			return u, err
		}
	}
	u.Prefixes = masked
	return u, nil
}

func putPrefix(tx *sql.Tx, user uint32, p netip.Prefix) error {
	if !p.IsValid() {
		return errors.New("a prefix is not valid")
	}
	var owner string
	err := tx.QueryRow(`SELECT u.name FROM prefixes p JOIN users u ON u.id = p.user WHERE p.prefix = ?`, p.String()).Scan(&owner)
	if err == nil {
		return fmt.Errorf("prefix %s belongs to user %s already; remove it there first", p, owner)
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	_, err = tx.Exec(`INSERT INTO prefixes (prefix, user) VALUES (?, ?)`, p.String(), user)
	return err
}

// takeIDs takes n ids that nobody ever had and returns the first.
func takeIDs(tx *sql.Tx, n uint32) (uint32, error) {
	var next int64
	if err := tx.QueryRow(`UPDATE ids SET next = next + ? RETURNING next - ?`, n, n).Scan(&next); err != nil {
		return 0, err
	}
	// The kernel's counters have 32 bits for the user; the upper half is left free.
	if next+int64(n) > 1<<31 {
		return 0, errors.New("the user ids are used up; compact the store")
	}
	return uint32(next), nil
}

func (s *Store) allPrefixes() (map[uint32][]netip.Prefix, error) {
	rows, err := s.read.Query(`SELECT user, prefix FROM prefixes ORDER BY user, prefix`)
	if err != nil {
		return nil, fmt.Errorf("could not list the prefixes: %w", err)
	}
	defer rows.Close()
	all := map[uint32][]netip.Prefix{}
	for rows.Next() {
		var user uint32
		var text string
		if err := rows.Scan(&user, &text); err != nil {
			return nil, err
		}
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("prefix %q of user %d is not one: %w", text, user, err)
		}
		all[user] = append(all[user], p)
	}
	return all, rows.Err()
}
