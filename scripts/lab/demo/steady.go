package demo

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"sluice/scripts/lab"
)

// steady is a customer who behaves: ten messages a second, each on a connection of its own, whatever happens around.
type steady struct {
	lab    *lab.Lab
	stop   context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex
	phase  int
	took   [2][]time.Duration // from connect to the final reply, before and during the attack
	others []string           // replies that were not the MX's, or failures
}

const perSecond = 10

func startSteady(ctx context.Context, l *lab.Lab) *steady {
	ctx, cancel := context.WithCancel(ctx)
	s := &steady{lab: l, stop: cancel}
	s.wg.Go(func() {
		tick := time.NewTicker(time.Second / perSecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				s.wg.Go(func() { s.send(n) })
			}
		}
	})
	return s
}

// send delivers one message and keeps its time and whatever was not said by the MX.
func (s *steady) send(n int) {
	s.mu.Lock()
	phase := s.phase
	s.mu.Unlock()
	start := time.Now()
	other := s.transaction(n)
	took := time.Since(start)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.took[phase] = append(s.took[phase], took)
	if other != "" {
		s.others = append(s.others, other)
	}
}

func (s *steady) transaction(n int) (other string) {
	c, err := s.lab.Hello(context.Background(), "bob", "", sinkAddr)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	rcpt := fmt.Sprintf("steady%04d@sink.example", n)
	body := fmt.Sprintf("From: <bob@bob.example>\r\nTo: <%s>\r\nSubject: order %d\r\n\r\nYour order %d was shipped.\r\n", rcpt, n, n)
	rcpts, last, err := c.Send("bob@bob.example", []string{rcpt}, []byte(body))
	switch {
	case err != nil:
		return err.Error()
	case len(rcpts) != 1 || rcpts[0].Code != 250:
		return fmt.Sprint(rcpts)
	case last.Code != 250:
		return last.String()
	}
	return ""
}

// attacked begins the second count.
func (s *steady) attacked() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.phase = 1
}

// end stops the customer and waits for what is on its way.
func (s *steady) end() {
	s.stop()
	s.wg.Wait()
}

func percentile(all []time.Duration, p float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(len(sorted)-1, int(p*float64(len(sorted))))]
}
