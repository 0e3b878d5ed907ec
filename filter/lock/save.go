package lock

import (
	"encoding/binary"
	"encoding/json"
	"errors"
)

// saved begins what Append writes; another form gets another number.
const saved = 0x4c4f4b31 // "LOK1"

// Changed tells whether anything that Append writes changed since the last Append.
func (l *Locks) Changed() bool { return l.tallies.dirty.Load() }

// Append appends, for Restore after a restart, what is known of the senders against whom something speaks: a restart must
// not give a spammer a new start.
func (l *Locks) Append(dst []byte) []byte {
	t := l.tallies
	t.dirty.Store(false)
	dst = binary.LittleEndian.AppendUint32(dst, saved)
	for i := range t.shards {
		dst = t.shards[i].append(dst, t)
	}
	return dst
}

func (sh *tallyShard) append(dst []byte, t *tallies) []byte {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	now := t.now()
	for whom, u := range sh.known.all {
		if !u.Marked(now) {
			continue
		}
		evidence, err := json.Marshal(u.evidence)
		if err != nil {
			evidence = nil // texts and times always have a form
		}
		sender := u.Sender.Append(nil)
		dst = binary.AppendUvarint(dst, uint64(whom.User))
		for _, b := range [][]byte{[]byte(whom.Identity), evidence, sender} {
			dst = append(binary.AppendUvarint(dst, uint64(len(b))), b...)
		}
	}
	return dst
}

// errSaved says that bytes are not of Append.
var errSaved = errors.New("what was saved of senders is damaged")

// Restore takes over what an earlier process knew, as Append wrote it. What this process knows against a sender already, since both
// had mail of his while one handed over to the other, is added. After an error a part may have been taken over.
func (l *Locks) Restore(b []byte) error {
	if len(b) < 4 || binary.LittleEndian.Uint32(b) != saved {
		return errSaved
	}
	for b = b[4:]; len(b) > 0; {
		user, n := binary.Uvarint(b)
		if n <= 0 {
			return errSaved
		}
		b = b[n:]
		var parts [3][]byte
		for i := range parts {
			size, n := binary.Uvarint(b)
			if n <= 0 || size > uint64(len(b)-n) {
				return errSaved
			}
			parts[i], b = b[n:n+int(size)], b[n+int(size):]
		}
		if err := l.restore(Scope{uint32(user), string(parts[0])}, parts[1], parts[2]); err != nil {
			return err
		}
	}
	return nil
}

func (l *Locks) restore(whom Scope, evidence, sender []byte) error {
	t := l.tallies
	var u tally
	if u.Sender.Restore(sender, t.now()) != nil {
		return errSaved
	}
	if err := json.Unmarshal(evidence, &u.evidence); err != nil {
		return errSaved
	}
	if _, locked := l.FindIn(whom); locked {
		return nil // what led to the lock counts no more
	}
	s := &l.d.Settings.Settings(whom.User).Lock
	sh, now := t.shard(whom.User), t.now()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	have := t.sender(sh, whom, now, s)
	if have.OnProbation(now) { // what led to his lock counts no more
		return nil
	}
	u.Join(&have.Sender)
	for i := range have.evidence {
		u.keep(have.evidence[i])
	}
	u.quiet = have.quiet
	*have = u
	t.suspect(whom.User)
	return nil
}
