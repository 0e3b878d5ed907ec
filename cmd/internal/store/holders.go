package store

import (
	"database/sql"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Holding says who held a prefix, and from when until when (ATT7). What happens to users' prefixes is noted by itself; what
// a provider's own records know of the past is told.
type Holding struct {
	ID     int64
	Prefix netip.Prefix
	Holder string    // name of the user, or whoever held it before there was one
	Since  time.Time // zero: from the beginning
	Until  time.Time // zero: it goes on
	By     string    // who told; "" where it was noted by itself
}

// At tells whether the holding was in force.
func (h *Holding) At(t time.Time) bool {
	return !t.Before(h.Since) && (h.Until.IsZero() || t.Before(h.Until))
}

// ErrNoHolding says that there is no such line of the history.
var ErrNoHolding = errors.New("no such holding")

const holdingColumns = `SELECT h.id, h.prefix, coalesce(u.name, h.holder) AS holder, h.since, h.until, h.by FROM holdings h LEFT JOIN users u ON u.id = h.user `

// Holdings returns the history of an address: every holding of a prefix around it. Those of longer prefixes come first, of
// one prefix those that were told, then the younger ones: the first that was in force at a moment says who it was.
func (s *Store) Holdings(a netip.Addr) ([]Holding, error) {
	if err := s.flushMade(); err != nil {
		return nil, err
	}
	a = a.Unmap().WithZone("")
	var args []any
	for bits := a.BitLen(); bits >= 0; bits-- {
		args = append(args, netip.PrefixFrom(a, bits).Masked().String())
	}
	in := `(?` + strings.Repeat(", ?", len(args)-1) + `)`
	rows, err := s.read.Query(`SELECT id, prefix, holder, since, until, by FROM (`+
		holdingColumns+`WHERE h.prefix IN `+in+` UNION ALL
		SELECT 0, name, name, created, removed, '' FROM users WHERE origin = 'template' AND name IN `+in+`)
		ORDER BY CAST(substr(prefix, instr(prefix, '/') + 1) AS INTEGER) DESC, by != '' DESC, since DESC`, append(args, args...)...)
	if err != nil {
		return nil, fmt.Errorf("could not read who held %s: %w", a, err)
	}
	defer rows.Close()
	var all []Holding
	for rows.Next() {
		h, err := scanHolding(rows.Scan)
		if err != nil {
			return nil, fmt.Errorf("could not read who held %s: %w", a, err)
		}
		all = append(all, h)
	}
	return all, rows.Err()
}

func scanHolding(scan func(...any) error) (h Holding, err error) {
	var prefix string
	var since, until int64
	if err = scan(&h.ID, &prefix, &h.Holder, &since, &until, &h.By); err != nil {
		return h, err
	}
	h.Since, h.Until = unstamp(since), unstamp(until)
	h.Prefix, err = netip.ParsePrefix(prefix)
	return h, err
}

// TellHolding notes who held a prefix, and returns it with its number. Two that were told of one prefix do not overlap.
func (s *Store) TellHolding(h Holding, act Act) (Holding, error) {
	h.Prefix = h.Prefix.Masked()
	err := s.change(act, func(tx *sql.Tx) error {
		var other string
		err := tx.QueryRow(`SELECT coalesce(u.name, h.holder) FROM holdings h LEFT JOIN users u ON u.id = h.user
			WHERE h.prefix = ? AND h.by != '' AND (h.until = 0 OR h.until > ?) AND (? = 0 OR h.since < ?)`,
			h.Prefix.String(), stamp(h.Since), stamp(h.Until), stamp(h.Until)).Scan(&other)
		if err == nil {
			return fmt.Errorf("it was told that %s held it within that time; remove that first", other)
		}
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		return tx.QueryRow(`INSERT INTO holdings (prefix, user, holder, since, until, by)
			VALUES (?, coalesce((SELECT id FROM users WHERE name = ? AND removed = 0), 0), ?, ?, ?, ?) RETURNING id`,
			h.Prefix.String(), h.Holder, h.Holder, stamp(h.Since), stamp(h.Until), h.By).Scan(&h.ID)
	})
	if err != nil {
		return h, fmt.Errorf("could not note who held %s: %w", h.Prefix, err)
	}
	return h, nil
}

// ForgetHolding removes a line of the history that was told, or says ErrNoHolding.
func (s *Store) ForgetHolding(id int64, act Act) (h Holding, err error) {
	err = s.change(act, func(tx *sql.Tx) error {
		h, err = scanHolding(tx.QueryRow(holdingColumns+`WHERE h.id = ? AND h.by != ''`, id).Scan)
		if errors.Is(err, sql.ErrNoRows) {
			return ErrNoHolding
		}
		if err == nil {
			_, err = tx.Exec(`DELETE FROM holdings WHERE id = ?`, id)
		}
		return err
	})
	if err != nil {
		return h, fmt.Errorf("could not remove line %d of the history: %w", id, err)
	}
	return h, nil
}
