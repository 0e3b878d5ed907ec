package store

import (
	"database/sql"
	"errors"
	"fmt"
	"time"

	"sluice/filter/lock"
)

// NoteNotice notes that somebody is to be told of a lock. It returns true where nobody was before: there is one notice of a
// ticket.
func (s *Store) NoteNotice(ticket string, at time.Time) (first bool, err error) {
	res, err := s.write.Exec(`INSERT OR IGNORE INTO notices (ticket, at, told) VALUES (?, ?, 0)`, ticket, stamp(at))
	if err != nil {
		return false, fmt.Errorf("could not note the notice of lock %s: %w", ticket, err)
	}
	n, err := res.RowsAffected()
	return n > 0, err
}

// NoticeTold notes that the notice of a lock is on its way.
func (s *Store) NoticeTold(ticket string) error {
	if _, err := s.write.Exec(`UPDATE notices SET told = 1 WHERE ticket = ?`, ticket); err != nil {
		return fmt.Errorf("could not note the notice of lock %s: %w", ticket, err)
	}
	return nil
}

// Untold returns the tickets of notices since a moment that a crash kept from being sent, and forgets those before.
func (s *Store) Untold(since time.Time) ([]string, error) {
	if _, err := s.write.Exec(`DELETE FROM notices WHERE at < ?`, stamp(since.AddDate(-1, 0, 0))); err != nil {
		return nil, fmt.Errorf("could not forget old notices: %w", err)
	}
	rows, err := s.read.Query(`SELECT ticket FROM notices WHERE told = 0 AND at >= ? ORDER BY at`, stamp(since))
	if err != nil {
		return nil, fmt.Errorf("could not read the notices: %w", err)
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		var t string
		if err := rows.Scan(&t); err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, rows.Err()
}

// LockOf returns the lock of a ticket, in force or ended.
func (s *Store) LockOf(ticket string) (lock.Lock, bool, error) {
	all, err := s.locks(`SELECT lock FROM locks WHERE ticket = ?`, ticket)
	if err != nil || len(all) == 0 {
		return lock.Lock{}, false, err
	}
	return all[0], true, nil
}

// LinkUnlocks is how often a user or identity was unlocked by link.
type LinkUnlocks struct {
	N         int
	Last      time.Time
	Withdrawn string // why there are no links any more; "" where there are
}

// LinkUnlocksOf returns how often somebody was unlocked by link.
func (s *Store) LinkUnlocksOf(whom lock.Scope) (u LinkUnlocks, err error) {
	var last int64
	err = s.read.QueryRow(`SELECT n, last, withdrawn FROM link_unlocks WHERE user = ? AND identity = ?`, whom.User, whom.Identity).Scan(&u.N, &last, &u.Withdrawn)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return u, fmt.Errorf("could not read the unlocks by link of user %d: %w", whom.User, err)
	}
	u.Last = unstamp(last)
	return u, nil
}

// SetLinkUnlocks replaces it; the zero value forgets all.
func (s *Store) SetLinkUnlocks(whom lock.Scope, u LinkUnlocks) error {
	_, err := s.write.Exec(`INSERT OR REPLACE INTO link_unlocks (user, identity, n, last, withdrawn) VALUES (?, ?, ?, ?, ?)`, whom.User, whom.Identity, u.N, stamp(u.Last), u.Withdrawn)
	if u == (LinkUnlocks{}) && err == nil {
		_, err = s.write.Exec(`DELETE FROM link_unlocks WHERE user = ? AND identity = ?`, whom.User, whom.Identity)
	}
	if err != nil {
		return fmt.Errorf("could not store the unlocks by link of user %d: %w", whom.User, err)
	}
	return nil
}

// ForgetLinkUnlocks lets a user and all his identities unlock by link again.
func (s *Store) ForgetLinkUnlocks(user uint32) error {
	if _, err := s.write.Exec(`DELETE FROM link_unlocks WHERE user = ?`, user); err != nil {
		return fmt.Errorf("could not forget the unlocks by link of user %d: %w", user, err)
	}
	return nil
}

// Call is one event on its way to one webhook.
type Call struct {
	ID, Hook, Kind string
	Body           []byte
	Made, Next     time.Time
	Tries          int
	Error          string
}

// AddCalls keeps calls, all or none. One that waits already under the same id is left as it is.
func (s *Store) AddCalls(cs ...Call) error {
	err := s.update(func(tx *sql.Tx) error {
		for _, c := range cs {
			if _, err := tx.Exec(`INSERT OR IGNORE INTO calls (id, hook, kind, body, made, next, tries, error) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
				c.ID, c.Hook, c.Kind, string(c.Body), stamp(c.Made), stamp(c.Next), c.Tries, c.Error); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("could not keep an event for webhooks: %w", err)
	}
	return nil
}

// DueCalls returns the oldest calls of a webhook whose time has come.
func (s *Store) DueCalls(hook string, now time.Time, most int) ([]Call, error) {
	rows, err := s.read.Query(`SELECT id, hook, kind, body, made, next, tries, error FROM calls WHERE hook = ? AND next <= ? ORDER BY next, made LIMIT ?`, hook, stamp(now), most)
	if err != nil {
		return nil, fmt.Errorf("could not read the events for webhooks: %w", err)
	}
	defer rows.Close()
	var all []Call
	for rows.Next() {
		var c Call
		var made, next int64
		if err := rows.Scan(&c.ID, &c.Hook, &c.Kind, &c.Body, &made, &next, &c.Tries, &c.Error); err != nil {
			return nil, err
		}
		c.Made, c.Next = unstamp(made), unstamp(next)
		all = append(all, c)
	}
	return all, rows.Err()
}

// CountCalls tells how many calls wait, by webhook.
func (s *Store) CountCalls() (map[string]int, error) {
	rows, err := s.read.Query(`SELECT hook, count(*) FROM calls GROUP BY hook`)
	if err != nil {
		return nil, fmt.Errorf("could not count the events for webhooks: %w", err)
	}
	defer rows.Close()
	n := map[string]int{}
	for rows.Next() {
		var hook string
		var k int
		if err := rows.Scan(&hook, &k); err != nil {
			return nil, err
		}
		n[hook] = k
	}
	return n, rows.Err()
}

// CallTried keeps when a call is tried next.
func (s *Store) CallTried(c Call) error {
	if _, err := s.write.Exec(`UPDATE calls SET next = ?, tries = ?, error = ? WHERE hook = ? AND id = ?`, stamp(c.Next), c.Tries, c.Error, c.Hook, c.ID); err != nil {
		return fmt.Errorf("could not keep an event for webhooks: %w", err)
	}
	return nil
}

// DropCall forgets a call.
func (s *Store) DropCall(hook, id string) error {
	if _, err := s.write.Exec(`DELETE FROM calls WHERE hook = ? AND id = ?`, hook, id); err != nil {
		return fmt.Errorf("could not forget an event for webhooks: %w", err)
	}
	return nil
}
