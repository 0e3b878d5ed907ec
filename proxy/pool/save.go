package pool

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"
)

// savedChoices begins what Append writes; another form gets another number.
const savedChoices = 0x31484f43 // "COH1"

// Changed tells whether anything was remembered or forgotten since the last Append.
func (c *Choices) Changed() bool { return c.changed.Load() }

// Append appends what is remembered to dst, for Restore after a restart.
func (c *Choices) Append(dst []byte) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changed.Store(false)
	dst = binary.LittleEndian.AppendUint32(dst, savedChoices)
	for key, o := range c.m {
		dst = binary.LittleEndian.AppendUint64(dst, key)
		dst = binary.LittleEndian.AppendUint32(dst, o.user)
		dst = binary.LittleEndian.AppendUint64(dst, uint64(o.used))
		ip := o.ip.As16()
		dst = append(dst, ip[:]...)
	}
	return dst
}

const savedChoice = 8 + 4 + 8 + 16 // bytes of one entry

// errSavedChoices says that bytes are not of Append.
var errSavedChoices = errors.New("saved choices of delivery addresses are damaged")

// Restore adds what an earlier process remembered, as Append wrote it; what is remembered here already stands. After an
// error nothing was added.
func (c *Choices) Restore(b []byte) error {
	if len(b) < 4 || binary.LittleEndian.Uint32(b) != savedChoices || (len(b)-4)%savedChoice != 0 {
		return errSavedChoices
	}
	now := time.Now().Unix()
	c.mu.Lock()
	defer c.mu.Unlock()
	for b = b[4:]; len(b) > 0 && len(c.m) < choicesRoom; b = b[savedChoice:] {
		key := binary.LittleEndian.Uint64(b)
		o := choice{
			ip: netip.AddrFrom16([16]byte(b[20:savedChoice])).Unmap(), user: binary.LittleEndian.Uint32(b[8:]),
			used: min(int64(binary.LittleEndian.Uint64(b[12:])), now),
		}
		if _, known := c.m[key]; !known && o.fresh(now) && c.users[o.user] < choicesUser {
			c.put(key, o)
		}
	}
	return nil
}
