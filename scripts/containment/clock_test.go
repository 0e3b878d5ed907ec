package containment

import (
	"container/heap"
	"math/rand/v2"
	"time"
)

// world is a queue of things to come, in a bubble of testing/synctest whose clock goes on when nothing is left to do.
type world struct {
	rnd   *rand.Rand
	began time.Time
	queue events
	n     int
}

type event struct {
	at time.Time
	n  int // events of one moment come in the order in which they were planned
	do func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at.Before(e[j].at) || e[i].at.Equal(e[j].at) && e[i].n < e[j].n
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

func newWorld(seed uint64) *world {
	return &world{rnd: rand.New(rand.NewPCG(seed, 0xC0)), began: time.Now()}
}

// after plans do.
func (w *world) after(d time.Duration, do func()) {
	w.n++
	heap.Push(&w.queue, event{time.Now().Add(d), w.n, do})
}

// every does something at random moments, so often an hour, while told to go on.
func (w *world) every(perHour float64, do func() (on bool)) {
	w.after(time.Duration(w.rnd.ExpFloat64()*float64(time.Hour)/perHour), func() {
		if do() {
			w.every(perHour, do)
		}
	})
}

// run lets time go on.
func (w *world) run(d time.Duration) {
	end := w.began.Add(d)
	for len(w.queue) > 0 && !w.queue[0].at.After(end) {
		e := heap.Pop(&w.queue).(event)
		time.Sleep(time.Until(e.at))
		e.do()
	}
	time.Sleep(time.Until(end))
}
