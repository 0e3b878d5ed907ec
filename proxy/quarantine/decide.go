package quarantine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Release has send take a held message, and keeps its fingerprint, so that a further try to send it is not delivered
// twice. One that a crash interrupted between send and the note of it is released only with again: it may be out already.
func (b *Box) Release(id, by, why string, again bool, send func(*Content) error) (Entry, error) {
	b.deciding.Lock()
	defer b.deciding.Unlock()
	e, err := b.Find(id)
	switch {
	case err != nil:
		return e, err
	case e.State == Released:
		return e, ErrState
	case e.State == Releasing && !again:
		return e, fmt.Errorf("%w, or nearly so: sluiced ended while it was put into the queue; look into `sluice log` and `sluice queue list`, then release it with --again, or delete it", ErrState)
	}
	c, err := b.Read(id)
	if err != nil {
		return e, err
	}
	was := e
	e.State, e.By, e.Why, e.Done = Releasing, by, why, b.o.Now().UTC()
	if err := b.o.Index.PutHeld(e); err != nil {
		return e, err
	}
	if err := send(c); err != nil {
		return was, errors.Join(fmt.Errorf("could not release %s: %w", id, err), b.o.Index.PutHeld(was))
	}
	e.State, e.Key = Released, nil
	if err := b.o.Index.PutHeld(e); err != nil {
		return e, fmt.Errorf("%s is in the queue, but its entry says that it is held still: %w", id, err)
	}
	b.gone(&e, true)
	return e, b.unlink(id)
}

// Delete drops messages, whatever their state, and returns how many there were.
func (b *Box) Delete(ids ...string) (n int, err error) {
	var some []Entry
	for _, id := range ids {
		e, err := b.Find(id)
		if errors.Is(err, ErrUnknown) && len(ids) > 1 {
			continue
		}
		if err != nil {
			return 0, err
		}
		some = append(some, e)
	}
	return len(some), b.drop(some)
}

// drop removes entries, then their files: what a crash leaves is a file without a key.
func (b *Box) drop(some []Entry) error {
	b.deciding.Lock()
	defer b.deciding.Unlock()
	const batch = 200
	for len(some) > 0 {
		now := some[:min(len(some), batch)]
		some = some[len(now):]
		ids := make([]string, len(now))
		for i := range now {
			ids[i] = now[i].ID
		}
		if err := b.o.Index.RemoveHeld(ids...); err != nil {
			return fmt.Errorf("could not remove held messages from their index: %w", err)
		}
		for i := range now {
			b.gone(&now[i], false)
			if err := b.unlink(now[i].ID); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *Box) unlink(id string) error {
	if err := os.Remove(b.path(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("could not remove the file of a held message: %w", err)
	}
	return nil
}

// gone takes one out of the figures; of one that was released the fingerprint stays.
func (b *Box) gone(e *Entry, released bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if released || e.State != Released {
		b.bytes, b.count = max(0, b.bytes-e.Size), max(0, b.count-1)
	}
	if released {
		return
	}
	if b.users[e.User]--; b.users[e.User] <= 0 {
		delete(b.users, e.User)
	}
}

// Sweep drops what was kept for long enough, and returns how many.
func (b *Box) Sweep() (int, error) {
	old, err := b.o.Index.FindHeld(Query{Before: b.o.Now().Add(-b.o.Keep())})
	if err != nil {
		return 0, fmt.Errorf("could not look for held messages whose time is over: %w", err)
	}
	return len(old), b.drop(old)
}

// Rotate makes a new key, seals the keys of all messages under it, and drops from the key file all older ones but the last,
// by which a process that ends just now may still seal. It returns how many messages there are. A crash at any moment
// leaves a key file and an index that fit together.
func (b *Box) Rotate() (int, error) {
	b.deciding.Lock()
	defer b.deciding.Unlock()
	b.rotating.Lock()
	defer b.rotating.Unlock()
	all, err := b.o.Index.FindHeld(Query{})
	if err != nil {
		return 0, fmt.Errorf("could not read the index of held messages: %w", err)
	}
	if err := b.keys.add(b.o.Now()); err != nil {
		return 0, err
	}
	var changed []Entry
	lost := 0
	for _, e := range all {
		if e.State == Released {
			continue
		}
		own, err := b.keys.open(&e)
		if err != nil {
			lost++
			continue
		}
		e.KeyID, e.Key = b.keys.seal(own, e.ID)
		changed = append(changed, e)
	}
	if err := b.o.Index.PutHeld(changed...); err != nil {
		return 0, fmt.Errorf("could not seal the keys of held messages anew; the older keys stay in the key file: %w", err)
	}
	if lost > 0 {
		return len(changed), fmt.Errorf("the keys of %d held messages could not be opened; the older keys stay in the key file", lost)
	}
	return len(changed), b.keys.keepLast(2)
}
