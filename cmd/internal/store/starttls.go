package store

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"

	"sluice/filter/policy"
	"sluice/proxy/distrust"
)

// TLSRules returns what becomes of STARTTLS towards destinations, by prefix and port; a rule's mode is terminate, pass or
// strip.
func (s *Store) TLSRules() ([]Rule, error) {
	rows, err := s.read.Query(`SELECT prefix, port, mode, 0, reason, by, since, until FROM starttls ORDER BY prefix, port`)
	return scanRules(rows, err, "rules for STARTTLS")
}

// PutTLSRule makes such a rule, in the place of one for the same prefix and port.
func (s *Store) PutTLSRule(r Rule, act Act) error {
	if err := s.putDestined("starttls", r, act); err != nil {
		return fmt.Errorf("could not store the rule for STARTTLS: %w", err)
	}
	return nil
}

// RemoveTLSRule removes such a rule, or says ErrNoRule.
func (s *Store) RemoveTLSRule(p netip.Prefix, port uint16, act Act) error {
	if err := s.removeDestined("starttls", p, port, act); err != nil {
		return fmt.Errorf("could not remove the rule for STARTTLS to %s: %w", p, err)
	}
	return nil
}

// Refusals returns what was learnt of clients that refuse the certificate.
func (s *Store) Refusals() ([]distrust.Entry, error) {
	rows, err := s.read.Query(`SELECT entry FROM refusals`)
	if err != nil {
		return nil, fmt.Errorf("could not read who refuses the certificate: %w", err)
	}
	defer rows.Close()
	var all []distrust.Entry
	for rows.Next() {
		var text []byte
		var e distrust.Entry
		if err := rows.Scan(&text); err != nil {
			return nil, fmt.Errorf("could not read who refuses the certificate: %w", err)
		}
		if err := json.Unmarshal(text, &e); err != nil {
			return nil, fmt.Errorf("could not read who refuses the certificate: %w", err)
		}
		all = append(all, e)
	}
	return all, rows.Err()
}

// PutRefusals replaces and removes what was learnt, all or nothing.
func (s *Store) PutRefusals(put []distrust.Entry, gone []distrust.Pair) error {
	err := s.update(func(tx *sql.Tx) error {
		for i := range put {
			text, err := json.Marshal(&put[i])
			if err != nil {
				return err
			}
			_, err = tx.Exec(`INSERT OR REPLACE INTO refusals (source, target, entry) VALUES (?, ?, ?)`, put[i].Source.String(), put[i].Target.String(), string(text))
			if err != nil {
				return err
			}
		}
		for _, p := range gone {
			if _, err := tx.Exec(`DELETE FROM refusals WHERE source = ? AND target = ?`, p.Source.String(), p.Target.String()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("could not store who refuses the certificate: %w", err)
	}
	return nil
}

// SetStartTLS replaces what of a user's settings is about STARTTLS, with a line of the audit log; nil inherits. It returns
// all that he does not inherit now.
func (s *Store) SetStartTLS(user uint32, how *policy.StartTLS, why *string, act Act) (policy.Overrides, error) {
	var o policy.Overrides
	err := s.update(func(tx *sql.Tx) error {
		var err error
		if o, err = overridesOf(tx, user); err != nil {
			return err
		}
		o.StartTLS, o.StartTLSWhy = how, why
		if err := putOverrides(tx, user, o); err != nil {
			return err
		}
		return audit(tx, act)
	})
	if err != nil {
		return o, fmt.Errorf("could not store what becomes of STARTTLS of user %d: %w", user, err)
	}
	return o, nil
}

// NameOf returns the name that an id belongs to, "" where it is not on disk.
func (s *Store) NameOf(user uint32) (name string, err error) {
	err = s.read.QueryRow(`SELECT name FROM users WHERE id = ?`, user).Scan(&name)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return name, err
}

// OverridesOf returns what a user does not inherit.
func (s *Store) OverridesOf(user uint32) (o policy.Overrides, err error) {
	if err = s.update(func(tx *sql.Tx) error { o, err = overridesOf(tx, user); return err }); err != nil {
		err = fmt.Errorf("could not read the settings of user %d: %w", user, err)
	}
	return o, err
}

// overridesOf reads what a user does not inherit.
func overridesOf(tx *sql.Tx, user uint32) (o policy.Overrides, err error) {
	var text []byte
	err = tx.QueryRow(`SELECT settings FROM overrides WHERE user = ?`, user).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return o, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &o)
	}
	return o, err
}

var _ distrust.Store = (*Store)(nil)
