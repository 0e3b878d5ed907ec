package proxy

import (
	"context"
	"io"
	"net"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/filter"
	"sluice/filter/message"
)

// toil refuses the recipients of all users but the first, and takes its time for each, as computing does.
type toil struct {
	done atomic.Int64
	over atomic.Bool
}

const toilTime = 20 * time.Microsecond

func (c *toil) Check(_ context.Context, _ filter.Phase, m *message.Message, hits []filter.Hit) []filter.Hit {
	if m.Flow.User.ID == goodUser {
		return hits
	}
	for began := time.Now(); time.Since(began) < toilTime && !c.over.Load(); {
	}
	c.done.Add(1)
	return append(hits, filter.Hit{Code: "TEST", Class: filter.Policy, Action: filter.Reject, SMTP: 550, Enhanced: "5.7.1", Text: "no"})
}

const goodUser = 7

// pipeliners opens sessions of many users, each of which names recipients without end, and gives what ends them.
func pipeliners(r *rig, users, sessions int) (stop func()) {
	var all sync.WaitGroup
	var conns []net.Conn
	lines := "EHLO client.example\r\nMAIL FROM:<a@client.example>\r\n" + strings.Repeat("RCPT TO:<b@sink.example>\r\n", mostTried)
	for user := range users {
		r.user.Store(uint32(user) + 1)
		for range sessions {
			p := r.dial() // greeted: its user is known
			conns = append(conns, p.nc)
			all.Go(func() { _, _ = io.WriteString(p.nc, lines) }) // it is cut off in the end
			all.Go(func() { _, _ = io.Copy(io.Discard, p.nc) })
		}
	}
	r.user.Store(0)
	return func() {
		for _, nc := range conns {
			_ = nc.Close()
		}
		all.Wait()
	}
}

// TestBusySessionsStandInNobodysWay: beside 100 sessions that pipeline without end a client who sends one mail waits for few
// of their commands, not for a turn of each at every step. It is counted, not timed: the machine may be as slow as it likes.
func TestBusySessionsStandInNobodysWay(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(max(2, runtime.GOMAXPROCS(0)))) // sluiced takes two also where there is one
	work := &toil{}
	mx := newRemote(t)
	r := newRig(t, mx.addr(), steps(filter.Step{Name: "toil", Phases: []filter.Phase{filter.Rcpt}, Check: work}))
	stop := pipeliners(r, 10, 10)
	end := sync.OnceFunc(func() { work.over.Store(true); stop() })
	defer end()
	eventually(t, "all of them are busy", func() bool { return work.done.Load() > 100*stint })
	var waited []int64
	var took []time.Duration
	for range 10 {
		before, began := work.done.Load(), time.Now()
		p := r.hello()
		p.envelope()
		p.send(goodMail, "250")
		p.cmd("QUIT", "221")
		p.nc.Close()
		waited, took = append(waited, work.done.Load()-before), append(took, time.Since(began))
	}
	slices.Sort(waited)
	slices.Sort(took)
	t.Logf("recipients of others meanwhile %v, in %v", waited, took)
	if got := waited[5]; got > 100*stint/2 {
		t.Errorf("a mail waited for %d commands of others in the median", got)
	}
	end()
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	for user := range max(1, runtime.GOMAXPROCS(0)-1) { // cut off in the midst of their turns, they gave them back
		must(t, r.srv.cfg.Busy.Take(ctx, 1000+uint32(user)))
	}
}

// TestTurnEndsWithTheRow: who has nothing more to say has no turn, also where the last command of a row is the one that
// was given it.
func TestTurnEndsWithTheRow(t *testing.T) {
	t.Parallel()
	turns := filter.NewTurns(1)
	r := newRig(t, newRemote(t).addr(), func(r *rig) { r.cfg.Busy, r.quick = turns, true })
	for row := stint - 2; row <= stint+2; row++ {
		p := r.hello()
		p.write(strings.Repeat("NOOP\r\n", row))
		for range row {
			p.want("250")
		}
		ctx, end := context.WithTimeout(context.Background(), wait)
		if err := turns.Take(ctx, goodUser); err != nil {
			t.Fatalf("after %d commands in a row a silent session keeps its turn", row)
		}
		end()
		turns.Give(goodUser)
		p.nc.Close()
	}
}

// TestChunksInARowDoNotWaitForThemselves: a large message in many chunks, all of which are there, has its session take a turn;
// the check that looks at it has one, too, also at its beginning, and there is one for each user.
func TestChunksInARowDoNotWaitForThemselves(t *testing.T) {
	t.Parallel()
	for _, stream := range []int64{0, filter.Large} {
		t.Run(strconv.FormatInt(stream, 10), func(t *testing.T) { chunksInARow(t, stream) })
	}
}

func chunksInARow(t *testing.T, stream int64) {
	t.Parallel()
	turns := filter.NewTurns(1)
	looks := filter.InTurn(&toil{}, turns)
	mx := newRemote(t)
	r := newRig(t, mx.addr(), steps(filter.Step{Name: "toil", Phases: []filter.Phase{filter.Data, filter.Part}, Check: looks}), func(r *rig) { r.cfg.Busy, r.cfg.Settings.Stream = turns, stream })
	late := r.dataAfterVerdict(mx)
	p := r.hello()
	p.envelope()
	const chunk, chunks = 100, filter.Large/100 + 1
	one := "BDAT 100\r\n" + strings.Repeat("x", chunk-2) + "\r\n"
	p.write("BDAT 14\r\nSubject: x\r\n\r\n")
	p.want("250")
	go func() { _, _ = io.WriteString(p.nc, strings.Repeat(one, chunks)+"BDAT 0 LAST\r\n") }() // what does not arrive is not answered
	for range chunks + 1 {
		p.want("250")
	}
	if n := len(mx.messages()); n != 1 || late.Load() == (stream > 0) {
		t.Errorf("%d messages arrived, want 1; it waited for its verdict: %t", n, late.Load())
	}
}
