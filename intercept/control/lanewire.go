package control

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"
)

// In a lane a packet is not JSON: reading that costs more than all the rest of a lock. All numbers are big-endian.
//
//	request: kind 1, id 8, user 4; for a lock also until 8 (Unix nanoseconds, 0: for good), per minute 4, flags 1, and
//	         for each prefix its length in bits 1, family 1 (4 or 6) and address 16
//	answer:  id 8, then nothing, or the length of a code 1, the code and a text
const (
	laneLock     = 1
	laneUnlock   = 2
	laneCutFlows = 1 // flag

	laneHead   = 1 + 8 + 4
	laneFixed  = laneHead + 8 + 4 + 1
	lanePrefix = 1 + 1 + 16
)

// appendLane appends the packet of a lock or an unlock.
func appendLane(b []byte, r *Request) []byte {
	if r.Op == OpUnlock {
		b = binary.BigEndian.AppendUint64(append(b, laneUnlock), r.ID)
		return binary.BigEndian.AppendUint32(b, r.User)
	}
	l := r.Lock
	b = binary.BigEndian.AppendUint64(append(b, laneLock), r.ID)
	b = binary.BigEndian.AppendUint32(b, l.User)
	var until int64
	if !l.Until.IsZero() {
		until = l.Until.UnixNano()
	}
	b = binary.BigEndian.AppendUint64(b, uint64(until))
	b = binary.BigEndian.AppendUint32(b, uint32(l.PerMinute))
	var flags byte
	if l.CutFlows {
		flags |= laneCutFlows
	}
	b = append(b, flags)
	for _, p := range l.Prefixes {
		family := byte(6)
		addr := p.Addr().As16()
		if p.Addr().Is4() {
			family = 4
			a := p.Addr().As4()
			addr = [16]byte{}
			copy(addr[:], a[:])
		}
		b = append(append(b, byte(p.Bits()), family), addr[:]...)
	}
	return b
}

// parseLane reads what appendLane wrote, as strictly as decodeRequest reads the rest.
func parseLane(b []byte) (*Request, error) {
	if len(b) < laneHead {
		return nil, fmt.Errorf("%w: %d bytes in a lane", errMessage, len(b))
	}
	r := &Request{V: Version, ID: binary.BigEndian.Uint64(b[1:])}
	user := binary.BigEndian.Uint32(b[9:])
	switch {
	case b[0] == laneUnlock && len(b) == laneHead:
		r.Op, r.User = OpUnlock, user
	case b[0] == laneLock && len(b) >= laneFixed && (len(b)-laneFixed)%lanePrefix == 0:
		r.Op, r.Lock = OpLock, &Lock{User: user, PerMinute: int(binary.BigEndian.Uint32(b[21:])), CutFlows: b[25] == laneCutFlows}
		if until := int64(binary.BigEndian.Uint64(b[13:])); until != 0 {
			r.Lock.Until = time.Unix(0, until)
		}
		if b[25] > laneCutFlows || !r.Lock.parsePrefixes(b[laneFixed:]) {
			return nil, fmt.Errorf("%w: a lock that cannot be read", errMessage)
		}
	default:
		return nil, fmt.Errorf("%w: kind %d with %d bytes in a lane", errMessage, b[0], len(b))
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", errMessage, r.Op, err)
	}
	return r, nil
}

// parsePrefixes reads prefixes; whether they make sense is for check to say.
func (l *Lock) parsePrefixes(b []byte) bool {
	l.Prefixes = make([]netip.Prefix, 0, len(b)/lanePrefix)
	for ; len(b) > 0; b = b[lanePrefix:] {
		addr := netip.AddrFrom16([16]byte(b[2:lanePrefix]))
		switch b[1] {
		case 4:
			addr = netip.AddrFrom4([4]byte(b[2:6]))
			if [12]byte(b[6:lanePrefix]) != [12]byte{} {
				return false
			}
		case 6:
		default:
			return false
		}
		l.Prefixes = append(l.Prefixes, netip.PrefixFrom(addr, int(b[0])))
	}
	return true
}

// appendLaneReply appends the answer to a request of a lane.
func appendLaneReply(b []byte, id uint64, e *Error) []byte {
	b = binary.BigEndian.AppendUint64(b, id)
	if e == nil {
		return b
	}
	code := e.Code[:min(len(e.Code), 255)]
	b = append(append(b, byte(len(code))), code...)
	return append(b, e.Text[:min(len(e.Text), 4096)]...)
}

// parseLaneReply reads what appendLaneReply wrote.
func parseLaneReply(b []byte) (id uint64, refused *Error, err error) {
	if len(b) < 8 {
		return 0, nil, errMessage
	}
	id, b = binary.BigEndian.Uint64(b), b[8:]
	if len(b) == 0 {
		return id, nil, nil
	}
	n := 1 + int(b[0])
	if len(b) < n {
		return 0, nil, errMessage
	}
	return id, &Error{Code: string(b[1:n]), Text: string(b[n:])}, nil
}
