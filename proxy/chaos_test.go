package proxy

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/filter"
	"sluice/filter/message"
)

// books is a check that reserves at rcpt and must be told of every end.
type books struct {
	mails, settled, accepted atomic.Int64
	open                     sync.Map // message id -> struct{}
	t                        *testing.T
}

func (b *books) Check(_ context.Context, p filter.Phase, m *message.Message, hits []filter.Hit) []filter.Hit {
	if p == filter.Mail {
		b.mails.Add(1)
		b.open.Store(m.ID, struct{}{})
	}
	return hits
}

func (b *books) Settle(m *message.Message, o filter.Outcome) {
	if _, was := b.open.LoadAndDelete(m.ID); !was {
		b.t.Errorf("message %s is settled though it is not open", m.ID)
	}
	b.settled.Add(1)
	b.accepted.Add(int64(o.Accepted))
}

// TestChaos has clients and destinations that break off anywhere, and a shutdown in the midst of it. No 250 is given
// for a message the destination did not take, every transaction is settled and logged once, and nothing is left open.
func TestChaos(t *testing.T) {
	t.Parallel()
	odd := func(usual string, others ...string) []string {
		list := make([]string, 997)
		for i := range list {
			if list[i] = usual; rand.IntN(12) == 0 {
				list[i] = others[rand.IntN(len(others))]
			}
		}
		return list
	}
	mx := newRemote(t, func(r *remote) {
		r.event = make(chan string, 1<<20)
		r.on["RCPT"] = odd("250 ok", closeNow, "550 no", "451 later", "421 bye", "250 ok\r\n250 twice", "garbage")
		r.on["MAIL"] = odd("250 ok", closeNow, "550 no", "421 bye")
		r.on["RSET"] = odd("250 ok", closeNow, "500 no")
		r.on["DATA"] = odd("354 go", closeNow, "554 no", "250 what", "421 bye")
		r.on["."] = odd("250 taken", closeNow, "554 no", "451 later", "421 bye", "354 more")
	})
	b := &books{t: t}
	r := newRig(t, mx.addr(), steps(filter.Step{Name: "books", Phases: []filter.Phase{filter.Mail}, Check: b}, spamStep()), func(r *rig) {
		r.cfg.Settings.BodyMemory, r.cfg.Settings.BodiesMemory = 16<<10, 200<<10
		r.log.ready = make(chan struct{}, 1)
	})
	var wg sync.WaitGroup
	var told sync.Map // message number -> struct{}: the client heard 250
	var next atomic.Int64
	end := time.Now().Add(2 * time.Second)
	for range 24 {
		wg.Go(func() {
			for time.Now().Before(end) {
				chaosClient(r, &next, &told)
			}
		})
	}
	<-time.After(time.Until(end) - 300*time.Millisecond)
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = r.srv.Shutdown(ctx) // whether it had to cut does not matter
	wg.Wait()
	at := map[string]int{}
	for _, m := range mx.messages() {
		_, rest, _ := strings.Cut(m, "X-Number: ")
		n, _, _ := strings.Cut(rest, "\r\n")
		at[n]++
		if strings.Contains(m, "SPAMWORD") {
			t.Error("spam went onward")
		}
	}
	heard := 0
	told.Range(func(n, _ any) bool {
		if heard++; at[fmt.Sprint(n)] != 1 {
			t.Errorf("message %v was answered 250 and is %d times at the destination", n, at[fmt.Sprint(n)])
		}
		return true
	})
	status := map[Status]int{}
	for _, rec := range r.log.wait(t, 1) {
		status[rec.Status]++
	}
	messages := status[Delivered] + status[Refused] + status[Deferred] + status[Ambiguous] + status[Lost]
	if heard == 0 || b.mails.Load() != b.settled.Load() || int64(messages) != b.mails.Load() {
		t.Errorf("%d mails, %d settled, %d logged, %d heard 250: %v", b.mails.Load(), b.settled.Load(), messages, heard, status)
	}
	if status[Delivered] < heard || len(at) > status[Delivered]+status[Ambiguous]+status[Refused]+status[Deferred] {
		t.Errorf("%d heard 250, %d are there, the log says %v", heard, len(at), status)
	}
	if n := r.srv.bodies.Load(); n != 0 || r.srv.Sessions() != 0 {
		t.Errorf("%d bytes of bodies and %d sessions are left", n, r.srv.Sessions())
	}
}

// chaosClient leads one session that may break off anywhere.
func chaosClient(r *rig, next *atomic.Int64, told *sync.Map) {
	nc, err := net.Dial("tcp", r.ln.Addr().String())
	if err != nil {
		return
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(wait))
	if rand.IntN(2) == 0 {
		_ = nc.(*net.TCPConn).SetLinger(0) // a reset instead of a FIN
	}
	br := bufio.NewReader(nc)
	reply := func() string {
		for {
			l, err := br.ReadString('\n')
			if err != nil || len(l) < 4 || l[3] != '-' {
				return l
			}
		}
	}
	say := func(lines ...string) bool {
		text := strings.Join(lines, "\r\n") + "\r\n"
		if rand.IntN(20) == 0 {
			_, _ = nc.Write([]byte(text[:rand.IntN(len(text))]))
			return false
		}
		_, err := nc.Write([]byte(text))
		return err == nil && rand.IntN(25) > 0
	}
	reply()
	if !say("EHLO c.example") || reply() == "" {
		return
	}
	for range 1 + rand.IntN(5) {
		number := next.Add(1)
		lines := []string{"MAIL FROM:<a@c.example>"}
		rcpts := 1 + rand.IntN(3)
		for i := range rcpts {
			lines = append(lines, fmt.Sprintf("RCPT TO:<r%d@sink.example>", i))
		}
		if !say(append(lines, "DATA")...) {
			return
		}
		last := ""
		for range rcpts + 2 {
			if last = reply(); last == "" {
				return
			}
		}
		if !strings.HasPrefix(last, "354") {
			if !say("RSET") || reply() == "" {
				return
			}
			continue
		}
		text := fmt.Sprintf("X-Number: %d\r\n\r\n", number)
		if rand.IntN(6) == 0 {
			text += "SPAMWORD\r\n"
		}
		text += strings.Repeat("some text\r\n", rand.IntN(6000))
		if !say(text + ".") {
			return
		}
		if strings.HasPrefix(reply(), "250") {
			told.Store(number, struct{}{})
		}
	}
}
