package demo

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/scripts/bench/testbed"
	"sluice/scripts/lab"
)

// steady is a customer who behaves: ten messages a second, a new connection each second, whatever happens around.
type steady struct {
	lab    *lab.Lab
	stop   context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex
	phase  int
	took   [2][]time.Duration // from MAIL to the final reply, before and during the attack
	others []string           // replies that were not the MX's, or failures
}

const perSecond = 10

func startSteady(ctx context.Context, l *lab.Lab) *steady {
	ctx, cancel := context.WithCancel(ctx)
	s := &steady{lab: l, stop: cancel}
	s.wg.Go(func() {
		tick := time.NewTicker(time.Second / perSecond)
		defer tick.Stop()
		for n := 0; ctx.Err() == nil; n += perSecond {
			s.second(ctx, tick.C, n)
		}
	})
	return s
}

// second sends one second's messages over one connection.
func (s *steady) second(ctx context.Context, tick <-chan time.Time, n int) {
	c, err := s.lab.Hello(context.Background(), "bob", "", sinkAddr)
	if err != nil {
		s.note(0, err.Error())
		return
	}
	for i := range perSecond {
		select {
		case <-ctx.Done():
		case <-tick:
			start := time.Now()
			other := transaction(c, n+i)
			s.note(time.Since(start), other)
		}
	}
	if err := c.Quit(); err != nil {
		s.note(0, err.Error())
	}
}

// note keeps a message's time and whatever was not said by the MX.
func (s *steady) note(took time.Duration, other string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if other != "" {
		s.others = append(s.others, other)
		return
	}
	s.took[s.phase] = append(s.took[s.phase], took)
}

func transaction(c *lab.Client, n int) (other string) {
	rcpt := fmt.Sprintf("steady%04d@sink.example", n)
	body := fmt.Sprintf("From: <bob@bob.example>\r\nTo: <%s>\r\nSubject: order %d\r\n\r\nYour order %d was shipped.\r\n", rcpt, n, n)
	rcpts, last, err := c.Send("bob@bob.example", []string{rcpt}, []byte(body))
	switch {
	case err != nil:
		return err.Error()
	case len(rcpts) != 1 || rcpts[0].Code != 250:
		return fmt.Sprint(rcpts)
	case !strings.HasPrefix(last.String(), "250 2.0.0 Ok: queued"): // the sink's own words
		return last.String()
	}
	return ""
}

// period is a stretch of the demo, as it began.
type period struct {
	gateway    *lab.Gateway
	began      time.Time
	idle, used time.Duration // of all processors; of the gateway's programs
}

func (d *demo) begin() (p period, err error) {
	p = period{gateway: d.gateway, began: time.Now()}
	if p.idle, err = testbed.Idle(); err != nil {
		return p, err
	}
	p.used, err = d.gateway.CPU()
	return p, err
}

// others is the share of the processors that was in use since the period's beginning, without what the gateway took: that
// is what the demo is about.
func (p period) others() (float64, error) {
	idle, err := testbed.Idle()
	if err != nil {
		return 0, err
	}
	used, err := p.gateway.CPU()
	all := time.Since(p.began) * time.Duration(runtime.NumCPU())
	return 1 - float64(idle-p.idle+used-p.used)/float64(all), err
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
