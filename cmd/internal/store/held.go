package store

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"

	"sluice/proxy/quarantine"
)

// heldIndex is one table of messages that are kept.
type heldIndex struct {
	*Store
	table string
}

// Held is the index of held messages.
func (s *Store) Held() quarantine.Index { return heldIndex{s, "held"} }

// Samples is the index of samples of what locked senders sent.
func (s *Store) Samples() quarantine.Index { return heldIndex{s, "samples"} }

// PutHeld implements quarantine.Index.
func (s heldIndex) PutHeld(es ...quarantine.Entry) error {
	err := s.update(func(tx *sql.Tx) error {
		for i := range es {
			e := &es[i]
			text, err := json.Marshal(e)
			if err != nil {
				return err
			}
			if _, err := tx.Exec(`INSERT OR REPLACE INTO `+s.table+` (id, at, user, user_name, print, grp, entry) VALUES (?, ?, ?, ?, ?, ?, ?)`,
				e.ID, stamp(e.At), e.User, e.UserName, e.Print, int64(e.Group), string(text)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("could not write the index of held messages: %w", err)
	}
	return nil
}

// FindHeld implements quarantine.Index.
func (s heldIndex) FindHeld(q quarantine.Query) ([]quarantine.Entry, error) {
	where, args := []string{"1 = 1"}, []any{}
	and := func(clause string, arg any) { where, args = append(where, clause), append(args, arg) }
	if q.ID != "" {
		and("id = ?", q.ID)
	}
	if q.Print != "" {
		and("print = ?", q.Print)
	}
	if q.User != "" {
		and("user_name = ?", q.User)
	}
	if q.Group != 0 {
		and("grp = ?", int64(q.Group))
	}
	if !q.Before.IsZero() {
		and("at < ?", stamp(q.Before))
	}
	rows, err := s.read.Query(`SELECT entry FROM `+s.table+` WHERE `+strings.Join(where, " AND ")+` ORDER BY at DESC, id`, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []quarantine.Entry
	for rows.Next() && (q.Most == 0 || len(all) < q.Most) {
		var text []byte
		var e quarantine.Entry
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		if err := json.Unmarshal(text, &e); err != nil {
			return nil, fmt.Errorf("could not read the entry of a held message: %w", err)
		}
		if q.Matches(&e) {
			all = append(all, e)
		}
	}
	return all, rows.Err()
}

// RemoveHeld implements quarantine.Index.
func (s heldIndex) RemoveHeld(ids ...string) error {
	return s.update(func(tx *sql.Tx) error {
		for _, id := range ids {
			if _, err := tx.Exec(`DELETE FROM `+s.table+` WHERE id = ?`, id); err != nil {
				return err
			}
		}
		return nil
	})
}
