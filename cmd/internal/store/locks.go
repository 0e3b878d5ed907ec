package store

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"sluice/filter/lock"
	"sluice/filter/policy"
)

// SaveLock implements lock.Store.
func (s *Store) SaveLock(l *lock.Lock) error {
	text, err := json.Marshal(l)
	if err != nil {
		return err
	}
	_, err = s.write.Exec(`INSERT INTO locks (ticket, user, since, ended, lock) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (ticket) DO UPDATE SET since = excluded.since, ended = excluded.ended, lock = excluded.lock`,
		l.Ticket, l.User.ID, stamp(l.Since), stamp(l.Ended), string(text))
	if err != nil {
		return fmt.Errorf("could not store lock %s: %w", l.Ticket, err)
	}
	return nil
}

// SaveUnlocks implements lock.Store.
func (s *Store) SaveUnlocks(whom lock.Scope, n int) error {
	_, err := s.write.Exec(`INSERT INTO unlocks (user, identity, n) VALUES (?, ?, ?) ON CONFLICT (user, identity) DO UPDATE SET n = excluded.n`,
		whom.User, whom.Identity, n)
	if err != nil {
		return fmt.Errorf("could not store the unlocks of user %d: %w", whom.User, err)
	}
	return nil
}

// LoadLocks implements lock.Store.
func (s *Store) LoadLocks() (active []lock.Lock, unlocks map[lock.Scope]int, err error) {
	if active, err = s.locks(`SELECT lock FROM locks WHERE ended = 0 ORDER BY since`); err != nil {
		return nil, nil, err
	}
	rows, err := s.read.Query(`SELECT user, identity, n FROM unlocks WHERE n > 0`)
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	unlocks = map[lock.Scope]int{}
	for rows.Next() {
		var whom lock.Scope
		var n int
		if err := rows.Scan(&whom.User, &whom.Identity, &n); err != nil {
			return nil, nil, err
		}
		unlocks[whom] = n
	}
	return active, unlocks, rows.Err()
}

// PutFlows keeps what was open of a user when he was locked, and forgets what is older than a year.
func (s *Store) PutFlows(ticket string, at time.Time, flows []byte) error {
	_, err := s.write.Exec(`INSERT OR REPLACE INTO bundles (ticket, at, flows) VALUES (?, ?, ?)`, ticket, stamp(at), string(flows))
	if err == nil {
		_, err = s.write.Exec(`DELETE FROM bundles WHERE at < ?`, stamp(at.AddDate(-1, 0, 0)))
	}
	if err != nil {
		return fmt.Errorf("could not keep the connections of lock %s: %w", ticket, err)
	}
	return nil
}

// FlowsOf returns what PutFlows kept; nil where nothing was.
func (s *Store) FlowsOf(ticket string) (flows []byte, err error) {
	err = s.read.QueryRow(`SELECT flows FROM bundles WHERE ticket = ?`, ticket).Scan(&flows)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("could not read the connections of lock %s: %w", ticket, err)
	}
	return flows, nil
}

// LockHistory returns the latest locks of a user, or of all users where user is 0, newest first, ended ones too.
func (s *Store) LockHistory(user uint32, limit int) ([]lock.Lock, error) {
	if user == 0 {
		return s.locks(`SELECT lock FROM locks ORDER BY since DESC LIMIT ?`, limit)
	}
	return s.locks(`SELECT lock FROM locks WHERE user = ? ORDER BY since DESC LIMIT ?`, user, limit)
}

func (s *Store) locks(query string, args ...any) ([]lock.Lock, error) {
	rows, err := s.read.Query(query, args...)
	if err != nil {
		return nil, fmt.Errorf("could not read the locks: %w", err)
	}
	defer rows.Close()
	var all []lock.Lock
	for rows.Next() {
		var text []byte
		var l lock.Lock
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		if err := json.Unmarshal(text, &l); err != nil {
			return nil, fmt.Errorf("could not read a lock: %w", err)
		}
		all = append(all, l)
	}
	return all, rows.Err()
}

// Overrides returns the settings that users do not inherit.
func (s *Store) Overrides() (map[uint32]policy.Overrides, error) {
	rows, err := s.read.Query(`SELECT user, settings FROM overrides`)
	if err != nil {
		return nil, fmt.Errorf("could not read the settings of users: %w", err)
	}
	defer rows.Close()
	all := map[uint32]policy.Overrides{}
	for rows.Next() {
		var user uint32
		var text []byte
		var o policy.Overrides
		if err := rows.Scan(&user, &text); err != nil {
			return nil, err
		}
		if err := json.Unmarshal(text, &o); err != nil {
			return nil, fmt.Errorf("could not read the settings of user %d: %w", user, err)
		}
		all[user] = o
	}
	return all, rows.Err()
}

// SetOverrides replaces the settings that a user does not inherit; the zero Overrides make it inherit everything.
func (s *Store) SetOverrides(user uint32, o policy.Overrides) error {
	if err := o.Validate(); err != nil {
		return fmt.Errorf("could not set the settings of user %d: %w", user, err)
	}
	return putOverrides(s.write, user, o)
}

func putOverrides(db execer, user uint32, o policy.Overrides) error {
	if o == (policy.Overrides{}) {
		_, err := db.Exec(`DELETE FROM overrides WHERE user = ?`, user)
		return err
	}
	text, err := json.Marshal(&o)
	if err != nil {
		return err
	}
	_, err = db.Exec(`INSERT INTO overrides (user, settings, changed) VALUES (?, ?, ?)
		ON CONFLICT (user) DO UPDATE SET settings = excluded.settings, changed = excluded.changed`, user, string(text), stamp(time.Now()))
	return err
}

// Act is one line of the audit log (LOG5).
type Act struct {
	At      time.Time `json:"at"`
	Who     string    `json:"who"`
	What    string    `json:"what"`    // "lock", "unlock", "add user" …
	Subject string    `json:"subject"` // what was acted on
	Detail  string    `json:"detail"`
}

// Audit adds a line to the audit log. A zero time is now.
func (s *Store) Audit(a Act) error { return audit(s.write, a) }

// execer is what *sql.DB and *sql.Tx have in common here.
type execer interface {
	Exec(query string, args ...any) (sql.Result, error)
}

func audit(e execer, a Act) error {
	if a.At.IsZero() {
		a.At = time.Now()
	}
	_, err := e.Exec(`INSERT INTO audit (at, who, what, subject, detail) VALUES (?, ?, ?, ?, ?)`,
		stamp(a.At), a.Who, a.What, a.Subject, a.Detail)
	if err != nil {
		return fmt.Errorf("could not write the audit log: %w", err)
	}
	return nil
}

// Acts returns the latest lines of the audit log, newest first.
func (s *Store) Acts(limit int) ([]Act, error) {
	rows, err := s.read.Query(`SELECT at, who, what, subject, detail FROM audit ORDER BY id DESC LIMIT ?`, limit)
	if err != nil {
		return nil, fmt.Errorf("could not read the audit log: %w", err)
	}
	defer rows.Close()
	return scanActs(rows)
}

// ActsOn returns the lines of the audit log whose subject is one of these, oldest first, at most so many.
func (s *Store) ActsOn(most int, subjects ...string) ([]Act, error) {
	args := make([]any, 0, len(subjects)+1)
	for _, one := range subjects {
		args = append(args, one)
	}
	rows, err := s.read.Query(`SELECT at, who, what, subject, detail FROM audit WHERE subject IN (`+strings.TrimSuffix(strings.Repeat("?, ", len(subjects)), ", ")+`) ORDER BY id LIMIT ?`, append(args, most)...)
	if err != nil {
		return nil, fmt.Errorf("could not read the audit log: %w", err)
	}
	defer rows.Close()
	return scanActs(rows)
}

func scanActs(rows *sql.Rows) ([]Act, error) {
	var all []Act
	for rows.Next() {
		var a Act
		var at int64
		if err := rows.Scan(&at, &a.Who, &a.What, &a.Subject, &a.Detail); err != nil {
			return nil, err
		}
		a.At = unstamp(at)
		all = append(all, a)
	}
	return all, rows.Err()
}
