package limit

import (
	"iter"
	"time"

	"sluice/filter/policy"
)

// whose is who sends: a user, an identity of his, or all who share a budget.
type whose struct {
	user  uint32
	scope uint32 // so wide that there is no gap: then it is hashed as a whole
	of    uint64
}

func (k *Key) whose() whose { return whose{k.User, uint32(k.Scope), k.Of} }

// account is what is counted of one of them, side by side, since a message asks for several.
type account struct {
	hour [2]count // Messages and Recipients of an hour, for which nearly everybody has limits
	more []other
}

// other is any other count.
type other struct {
	what   Quantity
	length time.Duration
	count
}

type count struct {
	window   Window
	reserved int
}

// settle gives back what was reserved and books what was sent.
func (e *count) settle(now, length time.Duration, reserved, booked int) {
	e.reserved = max(0, e.reserved-reserved)
	if booked > 0 {
		e.window.Add(now, length, booked)
	}
}

// find returns a count, nil where there is none.
func (a *account) find(what Quantity, length time.Duration) *count {
	if length == time.Hour && what <= Recipients {
		return &a.hour[what]
	}
	for i := range a.more {
		if e := &a.more[i]; e.what == what && e.length == length {
			return &e.count
		}
	}
	return nil
}

// open returns a count, making it where it is missing. It is good until another one is made.
func (a *account) open(k Key) *count {
	if e := a.find(k.What, k.Window); e != nil {
		return e
	}
	a.more = append(a.more, other{what: k.What, length: k.Window})
	return &a.more[len(a.more)-1].count
}

// sum returns what is booked of an hour.
func (a *account) sum(now time.Duration, what Quantity) int {
	if e := a.find(what, time.Hour); e != nil {
		return e.window.Sum(now, time.Hour)
	}
	return 0
}

// all goes over the counts with their keys.
func (a *account) all(w whose) iter.Seq2[Key, *count] {
	return func(yield func(Key, *count) bool) {
		k := Key{User: w.user, Scope: policy.Scope(w.scope), Of: w.of, Window: time.Hour}
		for i := range a.hour {
			if k.What = Quantity(i); !yield(k, &a.hour[i]) {
				return
			}
		}
		for i := range a.more {
			if k.What, k.Window = a.more[i].what, a.more[i].length; !yield(k, &a.more[i].count) {
				return
			}
		}
	}
}

// tidy drops counts that count nothing any more, and tells whether none is left.
func (a *account) tidy(now time.Duration) (empty bool) {
	left := a.more[:0]
	for i := range a.more {
		if e := &a.more[i]; !e.empty(now, e.length) {
			left = append(left, *e)
		}
	}
	clear(a.more[len(left):])
	a.more = left
	return len(a.more) == 0 && a.hour[Messages].empty(now, time.Hour) && a.hour[Recipients].empty(now, time.Hour)
}

func (e *count) empty(now, length time.Duration) bool {
	return e.reserved == 0 && e.window.Sum(now, length) == 0
}

// likeOne is how many bytes weigh as much as one message.
const likeOne = 16 << 10

// weight is the most that stands in one of the counts. Where there is a budget of bytes alone, that is what it has.
func (a *account) weight(now time.Duration) (most int) {
	for k, e := range a.all(whose{}) {
		n := e.window.Sum(now, k.Window) + e.reserved
		if k.What == Bytes {
			n = (n + likeOne - 1) / likeOne
		}
		most = max(most, n)
	}
	return most
}
