package store

import (
	"database/sql"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sluice/filter/policy"
)

// Imported counts what an import changed.
type Imported struct {
	Users, Prefixes, Modes int // that are in the list
	Added, Removed         int // users
}

// Import makes users added by command hold exactly the prefixes of the list, and makes rules for sources; where replace
// is set, users added by command who are not in the list are removed. All of it happens or nothing. A prefix stands in
// the list once. It is made for a million prefixes: what is there already is read at once, and only differences are
// written.
func (s *Store) Import(users []policy.Listed, modes []Rule, replace bool, act Act) (done Imported, err error) {
	done.Users, done.Modes = len(users), len(modes)
	if err := s.flushMade(); err != nil {
		return done, err
	}
	err = s.update(func(tx *sql.Tx) error {
		im := importer{tx: tx, replace: replace, done: &done}
		if err := im.read(); err != nil {
			return err
		}
		if err := im.users(users); err != nil {
			return err
		}
		if err := im.modes(modes); err != nil {
			return err
		}
		return audit(tx, act)
	})
	if err != nil {
		return Imported{}, fmt.Errorf("could not import the users: %w", err)
	}
	s.forgetMade(users)
	return done, nil
}

// importer is one import under way.
type importer struct {
	tx      *sql.Tx
	replace bool
	done    *Imported

	known  map[string]knownUser
	names  map[uint32]string // of those who hold prefixes
	holder map[netip.Prefix]uint32
}

type knownUser struct {
	id      uint32
	origin  Origin
	removed bool
}

// read takes what is there.
func (im *importer) read() error {
	im.known, im.names, im.holder = map[string]knownUser{}, map[uint32]string{}, map[netip.Prefix]uint32{}
	rows, err := im.tx.Query(`SELECT id, name, origin, removed FROM users`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var k knownUser
		var name string
		var removed int64
		if err := rows.Scan(&k.id, &name, &k.origin, &removed); err != nil {
			return err
		}
		k.removed = removed != 0
		im.known[name], im.names[k.id] = k, name
	}
	if err := rows.Err(); err != nil {
		return err
	}
	return im.readPrefixes()
}

func (im *importer) readPrefixes() error {
	rows, err := im.tx.Query(`SELECT prefix, user FROM prefixes`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var text string
		var user uint32
		if err := rows.Scan(&text, &user); err != nil {
			return err
		}
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return err
		}
		im.holder[p] = user
	}
	return rows.Err()
}

func (im *importer) users(list []policy.Listed) error {
	want := make(map[netip.Prefix]uint32)
	present := make(map[uint32]bool, len(list))
	var fresh []policy.Listed
	var revived []uint32
	for _, u := range list {
		k, ok := im.known[u.Name]
		switch {
		case !ok:
			fresh = append(fresh, u)
			continue
		case !k.removed && k.origin == Config:
			return fmt.Errorf("user %s is in the configuration file; change it there", u.Name)
		case k.removed || k.origin == Template:
			revived = append(revived, k.id)
		}
		present[k.id] = true
		for _, p := range u.Prefixes {
			want[p] = k.id
		}
	}
	if err := im.insert(fresh, want, present); err != nil {
		return err
	}
	now := stamp(time.Now())
	for _, id := range revived {
		if _, err := im.tx.Exec(`UPDATE users SET origin = 'command', removed = 0 WHERE id = ?`, id); err != nil {
			return err
		}
	}
	im.done.Added = len(fresh) + len(revived)
	for name, k := range im.known {
		if !im.replace || k.removed || k.origin != Command || present[k.id] {
			continue
		}
		if _, err := im.tx.Exec(`UPDATE users SET removed = ? WHERE id = ?`, now, k.id); err != nil {
			return fmt.Errorf("remove %s: %w", name, err)
		}
		im.done.Removed++
		present[k.id] = true // what he held goes
	}
	im.done.Prefixes = len(want)
	return im.prefixes(want, present)
}

// insert makes users who were never known.
func (im *importer) insert(fresh []policy.Listed, want map[netip.Prefix]uint32, present map[uint32]bool) error {
	if len(fresh) == 0 {
		return nil
	}
	id, err := takeIDs(im.tx, uint32(len(fresh)))
	if err != nil {
		return err
	}
	b := bulk{tx: im.tx, head: `INSERT INTO users (id, name, origin, created) VALUES `, row: `(?, ?, 'command', ?)`}
	now := stamp(time.Now())
	for _, u := range fresh {
		for _, p := range u.Prefixes {
			want[p] = id
		}
		present[id], im.names[id] = true, u.Name
		if err := b.add(id, u.Name, now); err != nil {
			return err
		}
		id++
	}
	return b.flush()
}

// prefixes gives those in want to their users, and takes all others from the users who are present.
func (im *importer) prefixes(want map[netip.Prefix]uint32, present map[uint32]bool) error {
	var gone, fresh []netip.Prefix
	for p, user := range im.holder {
		if present[user] && want[p] != user {
			gone = append(gone, p)
		}
	}
	for p, user := range want {
		holder, held := im.holder[p]
		if held && holder != user && !present[holder] {
			return fmt.Errorf("prefix %s belongs to user %s already; remove it there first", p, im.names[holder])
		}
		if !held || holder != user {
			fresh = append(fresh, p)
		}
	}
	for _, p := range gone {
		if _, err := im.tx.Exec(`DELETE FROM prefixes WHERE prefix = ?`, p.String()); err != nil {
			return err
		}
	}
	texts := make(map[string]uint32, len(fresh))
	for _, p := range fresh {
		texts[p.String()] = want[p]
	}
	order := make([]string, 0, len(fresh))
	for t := range texts {
		order = append(order, t)
	}
	slices.Sort(order) // as the table has them: each page is written once
	b := bulk{tx: im.tx, head: `INSERT INTO prefixes (prefix, user) VALUES `, row: `(?, ?)`}
	for _, t := range order {
		if err := b.add(t, texts[t]); err != nil {
			return err
		}
	}
	return b.flush()
}

func (im *importer) modes(list []Rule) error {
	b := bulk{tx: im.tx, head: `INSERT OR REPLACE INTO modes (prefix, mode, percent, reason, by, since, until) VALUES `, row: `(?, ?, ?, ?, ?, ?, ?)`}
	for _, r := range list {
		if err := b.add(r.Prefix.String(), r.Mode, r.Percent, r.Reason, r.By, stamp(r.Since), stamp(r.Until)); err != nil {
			return err
		}
	}
	return b.flush()
}

// bulk inserts many rows with few statements.
type bulk struct {
	tx        *sql.Tx
	head, row string
	full      *sql.Stmt
	args      []any
	rows      int
}

const bulkRows = 500

func (b *bulk) text(n int) string {
	return b.head + strings.TrimSuffix(strings.Repeat(b.row+", ", n), ", ")
}

func (b *bulk) add(args ...any) (err error) {
	b.args = append(b.args, args...)
	if b.rows++; b.rows < bulkRows {
		return nil
	}
	if b.full == nil {
		if b.full, err = b.tx.Prepare(b.text(bulkRows)); err != nil {
			return err
		}
	}
	_, err = b.full.Exec(b.args...)
	b.args, b.rows = b.args[:0], 0
	return err
}

func (b *bulk) flush() error {
	var err error
	if b.rows > 0 {
		_, err = b.tx.Exec(b.text(b.rows), b.args...)
		b.args, b.rows = nil, 0
	}
	if b.full != nil {
		err = errors.Join(err, b.full.Close())
	}
	return err
}
