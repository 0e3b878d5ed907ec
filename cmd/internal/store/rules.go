package store

import (
	"database/sql"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Rule is what somebody decided at run time about the mail of a source prefix, or to a destination.
type Rule struct {
	Prefix  netip.Prefix // masked
	Port    uint16       // of a destination; 0: every mail port
	Mode    string
	Percent int // of mode canary
	Reason  string
	By      string
	Since   time.Time
	Until   time.Time // zero: for good
}

// Over tells whether the rule has ended by itself.
func (r *Rule) Over(now time.Time) bool { return !r.Until.IsZero() && !r.Until.After(now) }

// ErrNoRule says that no rule was made for the prefix.
var ErrNoRule = errors.New("no such rule")

// Modes returns the rules for sources, by prefix.
func (s *Store) Modes() ([]Rule, error) {
	rows, err := s.read.Query(`SELECT prefix, 0, mode, percent, reason, by, since, until FROM modes ORDER BY prefix`)
	return scanRules(rows, err, "modes")
}

// Exemptions returns the rules for destinations, by prefix and port.
func (s *Store) Exemptions() ([]Rule, error) {
	rows, err := s.read.Query(`SELECT prefix, port, mode, 0, reason, by, since, until FROM exemptions ORDER BY prefix, port`)
	return scanRules(rows, err, "exemptions")
}

func scanRules(rows *sql.Rows, err error, what string) ([]Rule, error) {
	if err != nil {
		return nil, fmt.Errorf("could not read the %s: %w", what, err)
	}
	defer rows.Close()
	var all []Rule
	for rows.Next() {
		var r Rule
		var prefix string
		var since, until int64
		if err := rows.Scan(&prefix, &r.Port, &r.Mode, &r.Percent, &r.Reason, &r.By, &since, &until); err != nil {
			return nil, fmt.Errorf("could not read the %s: %w", what, err)
		}
		if r.Prefix, err = netip.ParsePrefix(prefix); err != nil {
			return nil, fmt.Errorf("could not read the %s: %q: %w", what, prefix, err)
		}
		r.Since, r.Until = unstamp(since), unstamp(until)
		all = append(all, r)
	}
	return all, rows.Err()
}

// ChangeModes makes rules for sources, in the place of those for the same prefixes, and removes others, with one line of
// the audit log: all of it or nothing.
func (s *Store) ChangeModes(put []Rule, gone []netip.Prefix, act Act) error {
	err := s.update(func(tx *sql.Tx) error {
		for _, p := range gone {
			if _, err := tx.Exec(`DELETE FROM modes WHERE prefix = ?`, p.String()); err != nil {
				return err
			}
		}
		for _, r := range put {
			_, err := tx.Exec(`INSERT OR REPLACE INTO modes (prefix, mode, percent, reason, by, since, until) VALUES (?, ?, ?, ?, ?, ?, ?)`,
				r.Prefix.String(), r.Mode, r.Percent, r.Reason, r.By, stamp(r.Since), stamp(r.Until))
			if err != nil {
				return err
			}
		}
		return audit(tx, act)
	})
	if err != nil {
		return fmt.Errorf("could not store the modes: %w", err)
	}
	return nil
}

// PutExemption makes a rule for a destination, in the place of one for the same prefix and port.
func (s *Store) PutExemption(r Rule, act Act) error {
	if err := s.putDestined("exemptions", r, act); err != nil {
		return fmt.Errorf("could not store the exemption: %w", err)
	}
	return nil
}

// RemoveExemption removes the rule for a destination, or says ErrNoRule.
func (s *Store) RemoveExemption(p netip.Prefix, port uint16, act Act) error {
	if err := s.removeDestined("exemptions", p, port, act); err != nil {
		return fmt.Errorf("could not remove the exemption of %s: %w", p, err)
	}
	return nil
}

// putDestined makes a rule for a destination in one of the tables that have such rules.
func (s *Store) putDestined(table string, r Rule, act Act) error {
	return s.update(func(tx *sql.Tx) error {
		_, err := tx.Exec(`INSERT OR REPLACE INTO `+table+` (prefix, port, mode, reason, by, since, until) VALUES (?, ?, ?, ?, ?, ?, ?)`,
			r.Prefix.String(), r.Port, r.Mode, r.Reason, r.By, stamp(r.Since), stamp(r.Until))
		if err != nil {
			return err
		}
		return audit(tx, act)
	})
}

func (s *Store) removeDestined(table string, p netip.Prefix, port uint16, act Act) error {
	return s.update(func(tx *sql.Tx) error {
		res, err := tx.Exec(`DELETE FROM `+table+` WHERE prefix = ? AND port = ?`, p.String(), port)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, ErrNoRule)
		}
		return audit(tx, act)
	})
}

// Fact returns what the store was told to remember under a name, "" for nothing.
func (s *Store) Fact(name string) (value string, err error) {
	err = s.read.QueryRow(`SELECT value FROM facts WHERE name = ?`, name).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("could not read %s: %w", name, err)
	}
	return value, nil
}

// SetFact remembers a value under a name, with a line of the audit log.
func (s *Store) SetFact(name, value string, act Act) error {
	err := s.update(func(tx *sql.Tx) error {
		if _, err := tx.Exec(`INSERT OR REPLACE INTO facts (name, value) VALUES (?, ?)`, name, value); err != nil {
			return err
		}
		return audit(tx, act)
	})
	if err != nil {
		return fmt.Errorf("could not store %s: %w", name, err)
	}
	return nil
}
