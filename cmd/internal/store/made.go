package store

import (
	"database/sql"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"sluice/filter/policy"
	"sluice/intercept/flow"
)

const (
	// defaultBlock is how many ids are reserved at once for users made from the template. A process that is killed wastes
	// up to two blocks; two thousand million ids outlast a hundred thousand kills.
	defaultBlock = 8192
	writeAfter   = 50 * time.Millisecond // so that a burst of new users is one transaction
	tryAgain     = time.Second
)

// made are the users made from the template. An id is given in memory, from a block that the database has reserved, and
// the disk hears of it soon after: the first SYN of an unknown source never waits for a disk.
type made struct {
	mu      sync.Mutex
	ids     map[netip.Prefix]uint32
	pending []netip.Prefix
	block   uint32 // ids reserved at once
	next    uint32 // the present block
	end     uint32
	spare   uint32 // first id of the block after it, 0 for none
	closed  bool
	wake    chan struct{}
	stopped chan struct{}

	flushing sync.Mutex // one batch at a time
}

// MakeUser returns the user for an unknown source's prefix, the same for the same prefix at all times. It never waits for
// the disk; it fails only when thousands of new users came while the disk took no writes.
func (s *Store) MakeUser(p netip.Prefix) (flow.User, error) {
	p = p.Masked()
	if !p.IsValid() {
		return flow.User{}, errors.New("could not make a user: the prefix is not valid")
	}
	u := flow.User{Name: p.String(), Prefix: p, Made: true}
	m := &s.made
	m.mu.Lock()
	defer m.mu.Unlock()
	if id, ok := m.ids[p]; ok {
		u.ID = id
		return u, nil
	}
	if m.next == m.end {
		m.next, m.end, m.spare = m.spare, m.spare+m.block, 0
		if m.next == 0 {
			m.end = 0
			return flow.User{}, fmt.Errorf("could not make a user for %s: no ids are left until the store takes writes again", p)
		}
	}
	u.ID = m.next
	m.next++
	m.ids[p] = u.ID
	m.pending = append(m.pending, p)
	select {
	case m.wake <- struct{}{}:
	default:
	}
	return u, nil
}

// Made returns the id of the user who was made for exactly p.
func (s *Store) Made(p netip.Prefix) (id uint32, ok bool) {
	s.made.mu.Lock()
	defer s.made.mu.Unlock()
	id, ok = s.made.ids[p]
	return id, ok
}

// loadMade reads the made users of former runs and reserves the first blocks.
func (s *Store) loadMade() error {
	m := &s.made
	m.ids, m.wake, m.stopped = map[netip.Prefix]uint32{}, make(chan struct{}, 1), make(chan struct{})
	rows, err := s.read.Query(`SELECT id, name FROM users WHERE origin = 'template'`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id uint32
		var name string
		if err := rows.Scan(&id, &name); err != nil {
			return err
		}
		p, err := netip.ParsePrefix(name)
		if err != nil {
			return fmt.Errorf("user %d has the name %q, want a prefix: %w", id, name, err)
		}
		m.ids[p] = id
	}
	if err := rows.Err(); err != nil {
		return err
	}
	return s.update(func(tx *sql.Tx) error {
		m.next, err = takeIDs(tx, 2*m.block)
		m.end, m.spare = m.next+m.block, m.next+m.block
		return err
	})
}

// writeBehind brings made users to the disk until the store is closed.
func (s *Store) writeBehind() {
	m := &s.made
	pause := time.NewTimer(0)
	<-pause.C
	for {
		select {
		case <-m.stopped:
			return
		case <-m.wake:
		}
		wait := writeAfter
		for {
			pause.Reset(wait)
			select {
			case <-m.stopped:
				return
			case <-pause.C:
			}
			err := s.flushMade()
			if err == nil {
				break
			}
			wait = tryAgain
			if s.o.Failed != nil {
				s.o.Failed(err)
			}
		}
	}
}

// flushMade writes the made users that the disk has not got, and reserves the next block where it is missing.
func (s *Store) flushMade() error {
	m := &s.made
	m.flushing.Lock()
	defer m.flushing.Unlock()
	m.mu.Lock()
	batch, reserve := m.pending, m.spare == 0 && !m.closed
	m.pending = nil
	ids := make([]uint32, len(batch))
	for i, p := range batch {
		ids[i] = m.ids[p]
	}
	m.mu.Unlock()
	if len(batch) == 0 && !reserve {
		return nil
	}
	var spare uint32
	stored := make([]uint32, len(batch))
	err := s.update(func(tx *sql.Tx) (err error) {
		for i, p := range batch {
			if stored[i], err = putMade(tx, p, ids[i]); err != nil {
				return err
			}
		}
		if reserve {
			spare, err = takeIDs(tx, m.block)
		}
		return err
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		m.pending = append(batch, m.pending...)
		return fmt.Errorf("could not store %d made users: %w", len(batch), err)
	}
	if reserve {
		m.spare = spare
	}
	for i, p := range batch {
		if _, ok := m.ids[p]; ok {
			m.ids[p] = stored[i]
		}
	}
	return nil
}

// putMade stores a made user and returns its id: another process may have made the same user a moment earlier, and
// then its id is the one that lasts.
func putMade(tx *sql.Tx, p netip.Prefix, id uint32) (uint32, error) {
	// The update changes nothing; it is there because only then the present row is returned.
	err := tx.QueryRow(`INSERT INTO users (id, name, origin, created) VALUES (?, ?, 'template', ?)
		ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING id`, id, p.String(), stamp(time.Now())).Scan(&id)
	return id, err
}

// forgetMade drops made users that configuration or command have taken over by name.
func (s *Store) forgetMade(users []policy.Listed) {
	s.made.mu.Lock()
	defer s.made.mu.Unlock()
	for _, u := range users {
		if p, err := netip.ParsePrefix(u.Name); err == nil {
			delete(s.made.ids, p)
		}
	}
}

// giveBack returns the ids that were reserved last if nobody has reserved after us.
func (s *Store) giveBack() error {
	m := &s.made
	m.mu.Lock()
	defer m.mu.Unlock()
	from, end := m.next, m.end
	if m.spare != 0 {
		if m.spare == m.end {
			end = m.spare + m.block
		} else {
			from, end = m.spare, m.spare+m.block
		}
	}
	m.next, m.end, m.spare = 0, 0, 0
	if from == end {
		return nil
	}
	_, err := s.write.Exec(`UPDATE ids SET next = ? WHERE next = ?`, from, end)
	return err
}

func (m *made) stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed {
		m.closed = true
		close(m.stopped)
	}
}
