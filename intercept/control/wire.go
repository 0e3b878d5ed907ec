package control

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"
)

// Op names what a request asks for.
type Op string

// The requests.
const (
	OpHello        Op = "hello"         // Names and Files: listeners given back; Started
	OpUsers        Op = "users"         // Sources, in parts
	OpPutUsers     Op = "put-users"     // Sources and Gone, one packet: the set changes by them
	OpExempt       Op = "exempt"        // Exemptions, in parts
	OpLock         Op = "lock"          // Lock
	OpUnlock       Op = "unlock"        // User
	OpLocks        Op = "locks"         // Locks, in parts
	OpLockExempt   Op = "lock-exempt"   // Exempt
	OpConnect      Op = "connect"       // Connect; the reply carries one file
	OpCounters     Op = "counters"      // nothing
	OpUserCounters Op = "user-counters" // nothing; the reply comes in parts
	OpStatus       Op = "status"        // nothing
	OpAnnounce     Op = "announce"      // For
	OpBypass       Op = "bypass"        // Bypass; root only
	OpBypassEnd    Op = "bypass-end"    // Bypass, of which the prefix counts, or none for all; root only
	OpServing      Op = "serving"       // nothing; every older proxy is told to retire
	OpTell         Op = "tell"          // Note, for every other proxy
	OpLane         Op = "lane"          // nothing; only locks come on this connection from now on
)

// Request is one packet from the proxy to the helper.
type Request struct {
	V          int            `json:"v"`
	ID         uint64         `json:"id"`
	Op         Op             `json:"op"`
	More       bool           `json:"more,omitempty"` // further parts of the list follow under the same id
	Names      []string       `json:"names,omitempty"`
	Sources    []Source       `json:"sources,omitempty"`
	Gone       []netip.Prefix `json:"gone,omitempty"`
	Exemptions []Exemption    `json:"exemptions,omitempty"`
	Lock       *Lock          `json:"lock,omitempty"`
	Locks      []Lock         `json:"locks,omitempty"`
	Exempt     []netip.Addr   `json:"exempt,omitempty"`
	User       uint32         `json:"user,omitempty"`
	Connect    *Connect       `json:"connect,omitempty"`
	For        time.Duration  `json:"for,omitempty"`
	Bypass     *Bypass        `json:"bypass,omitempty"`
	Note       []byte         `json:"note,omitempty"`
	Started    uint64         `json:"started,omitempty"` // the proxy's start, CLOCK_MONOTONIC nanoseconds

	Files []*os.File `json:"-"` // in the order of Names

	held    int    // entries that count against maxHeld until it is answered
	refused *Error // why it cannot be done, whatever the handler says
}

// Reply is one packet from the helper to the proxy.
type Reply struct {
	V        int               `json:"v"`
	ID       uint64            `json:"id"`
	More     bool              `json:"more,omitempty"`
	Err      *Error            `json:"err,omitempty"`
	Welcome  *Welcome          `json:"welcome,omitempty"`
	Names    []string          `json:"names,omitempty"` // of the files beside a welcome; "heartbeat" is the map
	Counters map[string]uint64 `json:"counters,omitempty"`
	Users    []UserCount       `json:"users,omitempty"`
	Status   *Status           `json:"status,omitempty"`
	Event    *Event            `json:"event,omitempty"` // answers nothing: the id is 0

	Files      []*os.File `json:"-"`
	CloseFiles bool       `json:"-"` // close Files once they are sent
}

// WelcomeReply makes the answer to a hello. The listeners and the heartbeat map (nil when there is none) stay the
// caller's.
func WelcomeReply(w Welcome, listeners []Listener, heartbeat *os.File) *Reply {
	r := &Reply{Welcome: &w}
	for _, l := range listeners {
		r.Names, r.Files = append(r.Names, l.Name), append(r.Files, l.File)
	}
	if heartbeat != nil {
		r.Names, r.Files = append(r.Names, heartbeatName), append(r.Files, heartbeat)
	}
	return r
}

// LaneReply is the answer to a lane's request: the memory of urgent locks, which stays the caller's, or nil.
func LaneReply(urgent *os.File) *Reply {
	if urgent == nil {
		return new(Reply)
	}
	return &Reply{Names: []string{urgentName}, Files: []*os.File{urgent}}
}

// urgentName marks the map's descriptor in the answer to a lane's request.
const urgentName = "urgent"

// heartbeatName marks the map's descriptor among the files of a welcome.
const heartbeatName = "heartbeat"

// errMessage marks a peer that broke the protocol and is cut off.
var errMessage = errors.New("control message breaks the protocol")

// envelope is what all versions of a request have in common.
type envelope struct {
	V    int    `json:"v"`
	ID   uint64 `json:"id"`
	Op   Op     `json:"op"`
	More bool   `json:"more"`
}

// decodeRequest reads one request. Trailing bytes, another version, an op without its argument or with a senseless one are
// errors. A newer peer may say more than this program knows: what it adds is ignored, and an op, or a word for a value,
// that is not known here makes a request that is refused.
func decodeRequest(b []byte) (*Request, error) {
	var e envelope
	if err := decode(b, &e); err != nil {
		return nil, err
	}
	if e.V != Version {
		return nil, &versionError{e.V, e.ID}
	}
	if !e.Op.known() {
		return e.refuse(CodeUnknown, "sluice-intercept does not know %.40q: it is older than the program that asks; restart it with the same version", e.Op), nil
	}
	r := new(Request)
	if err := decode(b, r); err != nil {
		return e.refuse(CodeInvalid, "sluice-intercept does not understand this %s: %v", e.Op, err), nil
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", errMessage, r.Op, err)
	}
	return r, nil
}

func (e envelope) refuse(code, format string, args ...any) *Request {
	return &Request{V: e.V, ID: e.ID, Op: e.Op, More: e.More, refused: Errorf(code, format, args...)}
}

// versionError is a peer who speaks another version of the protocol.
type versionError struct {
	theirs int
	id     uint64
}

func (e *versionError) Error() string {
	return fmt.Sprintf("version %d of the control protocol instead of %d; restart the older of the two programs", e.theirs, Version)
}

// known tells whether this program has such an operation.
func (o Op) known() bool {
	switch o {
	case OpHello, OpUsers, OpPutUsers, OpLock, OpUnlock, OpLocks, OpLockExempt, OpConnect, OpCounters, OpUserCounters, OpStatus,
		OpAnnounce, OpBypass, OpBypassEnd, OpServing, OpTell, OpExempt, OpLane:
		return true
	}
	return false
}

// list tells which requests come in parts.
func (o Op) list() bool { return o == OpUsers || o == OpLocks || o == OpExempt }

func (r *Request) check() error {
	if r.More && !r.Op.list() {
		return errors.New("parts are for lists only")
	}
	switch r.Op {
	case OpHello:
		if len(r.Names) > MaxFiles {
			return fmt.Errorf("more than %d listeners", MaxFiles)
		}
	case OpUsers, OpPutUsers:
		for i := range r.Sources {
			if err := r.Sources[i].Valid(); err != nil {
				return err
			}
		}
		for _, p := range r.Gone {
			if err := checkPrefix(p); err != nil {
				return err
			}
		}
	case OpExempt:
		for i := range r.Exemptions {
			if err := r.Exemptions[i].Valid(); err != nil {
				return err
			}
		}
	case OpLock:
		if r.Lock == nil {
			return errors.New("without a lock")
		}
		return r.Lock.Valid()
	case OpLocks:
		for i := range r.Locks {
			if err := r.Locks[i].Valid(); err != nil {
				return err
			}
		}
	case OpLockExempt:
		if len(r.Exempt) > MaxLockExempt {
			return fmt.Errorf("more than %d addresses", MaxLockExempt)
		}
		for _, a := range r.Exempt {
			if !a.IsValid() || a.Is4In6() || a.Zone() != "" {
				return fmt.Errorf("%v is not a plain address", a)
			}
		}
	case OpUnlock:
		if r.User == 0 {
			return errors.New("without a user")
		}
	case OpConnect:
		if r.Connect == nil || !r.Connect.Src.IsValid() || !r.Connect.Dst.IsValid() {
			return errors.New("without two addresses")
		}
	case OpAnnounce:
		if r.For < 0 || r.For > MaxRestart {
			return fmt.Errorf("%v is not between 0 and %v", r.For, MaxRestart)
		}
	case OpBypass:
		if r.Bypass == nil {
			return errors.New("without a bypass")
		}
		return r.Bypass.check()
	case OpTell:
		if len(r.Note) == 0 || len(r.Note) > MaxNote {
			return fmt.Errorf("a note of %d bytes is not between 1 and %d", len(r.Note), MaxNote)
		}
	case OpCounters, OpUserCounters, OpStatus, OpBypassEnd, OpServing, OpLane:
	default:
		return errors.New("not an operation")
	}
	return nil
}

// Valid tells what makes the source senseless, if anything does.
func (s *Source) Valid() error {
	if err := checkPrefix(s.Prefix); err != nil {
		return err
	}
	switch {
	case s.Mode > Drop || s.Fail > Closed:
		return fmt.Errorf("%v has a mode or fail mode that is none", s.Prefix)
	case s.Mode == 0 && s.Fail == 0:
		return fmt.Errorf("%v has neither user nor mode", s.Prefix)
	case s.User != 0 && s.Fail == 0:
		return fmt.Errorf("%v has a user without a fail mode", s.Prefix)
	case s.User == 0 && s.Fail != 0 && s.Prefix.Bits() != 0:
		return fmt.Errorf("%v has a fail mode without a user", s.Prefix)
	}
	return nil
}

// Valid tells what makes the exemption senseless, if anything does.
func (x *Exemption) Valid() error {
	if err := checkPrefix(x.Prefix); err != nil {
		return err
	}
	if x.Mode == 0 || x.Mode == Canary || x.Mode > Drop {
		return fmt.Errorf("the exemption of %v has no mode that a destination can have", x.Prefix)
	}
	return nil
}

// Valid tells what makes the lock senseless, if anything does.
func (l *Lock) Valid() error {
	if l.User == 0 {
		return errors.New("lock without a user")
	}
	if len(l.Prefixes) > MaxLockPrefixes {
		return fmt.Errorf("lock of user %d has more than %d prefixes", l.User, MaxLockPrefixes)
	}
	if l.PerMinute < 0 || l.PerMinute > 1<<16 {
		return fmt.Errorf("lock of user %d: %d connections a minute is not between 0 and %d", l.User, l.PerMinute, 1<<16)
	}
	for _, p := range l.Prefixes {
		if err := checkPrefix(p); err != nil {
			return err
		}
	}
	return nil
}

func (b *Bypass) check() error {
	if b.Prefix != (netip.Prefix{}) {
		if err := checkPrefix(b.Prefix); err != nil {
			return err
		}
	}
	if b.Reason == "" || len(b.Reason) > MaxReason {
		return fmt.Errorf("a bypass needs a reason of at most %d bytes", MaxReason)
	}
	return nil
}

// checkPrefix holds that a prefix has one spelling only.
func checkPrefix(p netip.Prefix) error {
	switch {
	case !p.IsValid():
		return errors.New("not a prefix")
	case p.Addr().Is4In6():
		return fmt.Errorf("%v is IPv4 written as IPv6; write it as IPv4", p)
	case p != p.Masked():
		return fmt.Errorf("%v has bits set beyond its length; write %v", p, p.Masked())
	}
	return nil
}

var errSize = errors.New("could not send a control message")
