package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sluice/filter"
	"sluice/filter/campaign"
	"sluice/filter/content"
	"sluice/filter/content/shipped"
	"sluice/filter/content/view"
	"sluice/filter/habit"
	"sluice/filter/message"
	"sluice/filter/policy"
	"sluice/intercept/flow"
)

// The replay of bursts: how long one is, how many other messages come between two copies, and how many good messages the
// gateway has seen before.
const (
	burstLength = 60
	between     = 3
	seenBefore  = 1000
)

// learnt is a model that may or may not act.
type learnt struct {
	judge  *content.Judge
	acting bool
}

func (l learnt) Judge() *content.Judge                                     { return l.judge }
func (learnt) Seen(*message.Message, *content.Opinion, content.Thresholds) {}
func (l learnt) Acting() bool                                              { return l.acting }

// same gives every user the same settings.
type same struct{ s policy.Settings }

func (s *same) Settings(uint32) *policy.Settings { return &s.s }

// stage is the gateway's filter with a clock of its own.
type stage struct {
	checks  *filter.Pipeline
	tracker *campaign.Tracker
	habits  *habit.Habits
	now     time.Time
	n       int
}

func newStage(j *content.Judge, acting bool) *stage {
	s := &stage{now: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)}
	s.habits = habit.New(0, func() time.Time { return s.now })
	s.tracker = campaign.New(campaign.Options{Now: func() time.Time { return s.now }})
	c := content.NewClassifier(learnt{j, acting}, &same{policy.Default()}, func() string { return content.LearnedAuto }).Watching(s.habits, s.tracker)
	s.checks = filter.NewPipeline(filter.Step{Name: "content", Phases: content.Phases, Check: content.NewMarks()}, filter.Step{Name: "learned", Phases: content.Phases, Check: c})
	return s
}

// send lets a user send a message, and tells whether it passes.
func (s *stage) send(user uint32, data []byte) bool {
	s.n++
	s.now = s.now.Add(time.Second)
	return s.to(user, fmt.Sprintf("r%d@example.net", s.n), data)
}

// to lets a user send a message to somebody.
func (s *stage) to(user uint32, rcpt string, data []byte) bool {
	m := &message.Message{ID: fmt.Sprintf("m%d.1", s.n), Data: data, DataSize: int64(len(data)),
		Flow:     &flow.Flow{User: flow.User{ID: user, Name: fmt.Sprint("user", user)}, Client: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(user >> 8), byte(user)}), 2525)},
		Envelope: message.Envelope{From: "a@customer.example", To: []message.Address{message.Address(rcpt)}}}
	m.Forwarded = message.PassedOn(m)
	v := s.checks.Ask(context.Background(), filter.Data, m)
	return v.Action == filter.None
}

// settle has the account of the burst write to the same twelve people for a week, as an office does.
func (s *stage) settle(good []*letter, r *rand.Rand) {
	for range 7 {
		for i := range 12 {
			s.n++
			s.now = s.now.Add(30 * time.Minute)
			s.to(7777, fmt.Sprintf("friend%d@example.net", i), good[r.IntN(len(good))].data)
		}
		s.now = s.now.Truncate(24 * time.Hour).Add(33 * time.Hour)
	}
}

// replay sends a burst of the messages in turn, amid good mail of others, and counts what passed of it.
func (s *stage) replay(burst, good []*letter, r *rand.Rand) (passed int) {
	for i := range burstLength {
		if s.send(7777, burst[i%len(burst)].data) {
			passed++
		}
		for range between {
			s.send(uint32(r.IntN(200)), good[r.IntN(len(good))].data)
		}
	}
	return passed
}

// campaigns measures what the rules about copies do with the corpus's clusters, each as the burst of one account; with each it
// names those of bad mail that pass, and those of good mail that do not.
func campaigns(w io.Writer, all []*letter, each bool) error {
	m, err := shipped.Model()
	if err != nil {
		return err
	}
	j := content.NewJudge(m)
	bad, ham := clusters(all)
	var good []*letter
	for _, x := range all {
		if !x.bad && x.headline {
			good = append(good, x)
		}
	}
	fmt.Fprintf(w, "campaigns: each cluster of the corpus with three or more members as a burst of %d copies of one account, %d good messages of others between two copies\n", burstLength, between)
	fmt.Fprintln(w, "(unseen: clusters of which the shipped model saw no message)")
	for _, k := range []how{
		{"on day one, when what was learnt refuses nothing by itself", false, false, each},
		{"likewise, of an account that wrote to the same twelve people for a week", false, true, each},
		{"once what was learnt refuses spam by itself", true, false, each},
	} {
		fmt.Fprintf(w, "\n%s\n", k.name)
		bursts(w, "bad bursts, unseen", ofSeen(bad, false), good, j, k, true)
		bursts(w, "bad bursts, seen", ofSeen(bad, true), good, j, k, true)
		bursts(w, "good bursts, unseen", ofSeen(ham, false), good, j, k, false)
		bursts(w, "good bursts, seen", ofSeen(ham, true), good, j, k, false)
		bursts(w, "newsletters, each to 60", news(all), good, j, k, false)
	}
	fmt.Fprintln(w)
	copyCost(w, all)
	return nil
}

// how bursts are replayed.
type how struct {
	name    string
	acting  bool // what was learnt refuses
	settled bool // the account has habits
	each    bool // bursts that are not treated as they should be are named
}

// cluster is messages of one kind.
type cluster struct {
	mails []*letter
	seen  bool // the shipped model learnt from one
}

// clusters are those with three or more members.
func clusters(all []*letter) (bad, good []cluster) {
	by := map[int][]*letter{}
	for _, x := range all {
		if x.headline {
			by[x.cluster] = append(by[x.cluster], x)
		}
	}
	for _, mails := range by {
		if len(mails) < 3 {
			continue
		}
		slices.SortFunc(mails, func(a, b *letter) int { return cmp.Compare(a.seq, b.seq) })
		c := cluster{mails, slices.ContainsFunc(mails, func(x *letter) bool { return x.split == "train" && free[x.source] })}
		if mails[0].bad {
			bad = append(bad, c)
		} else {
			good = append(good, c)
		}
	}
	byFirst := func(a, b cluster) int { return cmp.Compare(a.mails[0].file, b.mails[0].file) }
	slices.SortFunc(bad, byFirst)
	slices.SortFunc(good, byFirst)
	return bad, good
}

func ofSeen(all []cluster, seen bool) (some []cluster) {
	for _, c := range all {
		if c.seen == seen {
			some = append(some, c)
		}
	}
	return some
}

// news are newsletters and mail of shops, each as a burst of its own, that the shipped model did not see.
func news(all []*letter) (some []cluster) {
	for _, x := range all {
		if !x.bad && strings.HasPrefix(x.kind, "newsletter") && x.split == "test" {
			some = append(some, cluster{mails: []*letter{x}})
		}
	}
	return some
}

// bursts replays and tells how many copies passed.
func bursts(w io.Writer, name string, some []cluster, good []*letter, j *content.Judge, k how, wanted bool) {
	var passed []int
	stopped := 0
	for i, c := range some {
		r := rand.New(rand.NewPCG(uint64(i), 1))
		s := newStage(j, k.acting)
		if k.settled {
			s.settle(good, r)
		}
		n := s.replay(c.mails, good, r)
		if n < burstLength {
			stopped++
		}
		if k.each && wanted == (n == burstLength) {
			describe(w, &c, j, n)
		}
		passed = append(passed, n)
	}
	if len(passed) == 0 {
		fmt.Fprintf(w, "  %-26s none\n", name)
		return
	}
	slices.Sort(passed)
	sum := 0
	for _, n := range passed {
		sum += n
	}
	if wanted {
		fmt.Fprintf(w, "  %-26s %4d, stopped %4d (%.0f %%); copies that passed: median %d, mean %.1f, 90 %% at most %d\n", name, len(passed), stopped, 100*float64(stopped)/float64(len(passed)),
			passed[len(passed)/2], float64(sum)/float64(len(passed)), passed[len(passed)*9/10])
		return
	}
	fmt.Fprintf(w, "  %-26s %4d, stopped %4d; copies held or refused %d of %d\n", name, len(passed), stopped, burstLength*len(passed)-sum, burstLength*len(passed))
}

// describe tells what the content filter makes of a burst's messages.
func describe(w io.Writer, c *cluster, j *content.Judge, passed int) {
	first := c.mails[0]
	fmt.Fprintf(w, "    %d of %d passed: %s, %s, %s:", passed, burstLength, first.source, first.kind, first.file)
	for _, m := range c.mails {
		o := j.Judge(m.data, content.DefaultThresholds, 2)
		fmt.Fprintf(w, " %.2f", o.Probability)
		for _, f := range o.Findings {
			fmt.Fprintf(w, "+%s", f.Code)
		}
	}
	fmt.Fprintln(w)
}

// copyCost measures time and memory.
func copyCost(w io.Writer, all []*letter) {
	var rd view.Reader
	var spent time.Duration
	n, bytes := 0, 0
	for _, x := range all {
		v := rd.Read(x.data)
		var p campaign.Print
		begin := time.Now()
		campaign.Take(v, &p)
		spent += time.Since(begin)
		n++
		bytes += len(x.data)
	}
	fmt.Fprintf(w, "a print costs %.1f µs of a message of %d bytes, the mean of the corpus\n", spent.Seconds()*1e6/float64(n), bytes/n)
	const kinds = 1_000_000
	before := heapInUse()
	t := campaign.New(campaign.Options{})
	watch := func(i int) time.Duration {
		v := &view.View{Text: fmt.Appendf(nil, "%s %s %s %s %s %s %s %s %s %s %s", word(i), word(i+1), word(i*3), word(i*5), word(i*7), word(i*11), word(i*13), word(i*17), word(i*19), word(i*23), word(i*29))}
		m := &message.Message{ID: "m", Flow: &flow.Flow{}}
		begin := time.Now()
		t.Watch(m, v, &content.Opinion{}, content.DefaultThresholds, nil)
		return time.Since(begin)
	}
	var first, again time.Duration
	for i := range kinds {
		first += watch(i)
	}
	memory := heapInUse() - before
	for i := range kinds / 10 {
		again += watch(i * 10)
	}
	fmt.Fprintf(w, "%d kinds of messages remembered take %.0f MB; one more takes %.2f µs, one that is known %.2f µs, its print of 11 words and all\n", t.Figures().Kinds, float64(memory)/1e6,
		first.Seconds()*1e6/kinds, again.Seconds()*1e6/(kinds/10))
}

// word makes a word of a number.
func word(i int) string {
	b := []byte("aaaaaaaa")
	h := uint64(i+1) * 0x9e3779b97f4a7c15
	for k := range b {
		b[k] += byte(h >> (8 * k) % 26)
	}
	return string(b)
}
