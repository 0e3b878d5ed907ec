package campaign

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/filter"
	"sluice/filter/content"
	"sluice/filter/content/view"
	"sluice/filter/habit"
	"sluice/filter/message"
	"sluice/intercept/flow"
)

// stage is a tracker with a clock of its own.
type stage struct {
	t   *testing.T
	tr  *Tracker
	now time.Time
	set Settings
	ev  []Event
	n   int
}

func newStage(t *testing.T) *stage {
	s := &stage{t: t, now: time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC), set: DefaultSettings}
	s.set.Remember = 1 << 16
	s.tr = s.tracker()
	return s
}

func (s *stage) tracker() *Tracker {
	return New(Options{Settings: func() Settings { return s.set }, Events: func(e Event) { s.ev = append(s.ev, e) }, Now: func() time.Time { return s.now }})
}

// send lets a user send a text; bad is the probability that the content filter gives.
func (s *stage) send(user uint32, to, text string, probability float64) (filter.Verdict, content.Watched) {
	s.t.Helper()
	s.n++
	s.now = s.now.Add(time.Second)
	m := &message.Message{ID: fmt.Sprintf("k%d.1", s.n), Flow: &flow.Flow{User: flow.User{ID: user, Name: fmt.Sprintf("user%d", user)}, Client: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(user)}), 2525)},
		Envelope: message.Envelope{From: "a@x.example", To: []message.Address{message.Address(to)}}}
	var r view.Reader
	hits, w := s.tr.Watch(m, r.Read([]byte(text)), &content.Opinion{Probability: probability}, content.DefaultThresholds, nil)
	return filter.Judge(hits), w
}

// parcel is a message that is made for one recipient.
func parcel(name string) string {
	return "Subject: " + name + ", your parcel waits\r\nContent-Type: text/html\r\n\r\n<p>Dear " + name + ", we tried to deliver your parcel today and nobody was at home. " +
		"Please confirm your address within two days, or it goes back to where it came from.</p>" +
		"<a href=\"http://parcel-desk.example/track/" + name + "8f3a77c1e2d9?id=" + name + "\">Confirm now</a> Reference 4711" + name + "\r\n"
}

func words(r *rand.Rand, n int) string {
	var b strings.Builder
	for range n {
		for range 3 + r.IntN(6) {
			b.WriteByte(byte('a' + r.IntN(26)))
		}
		b.WriteByte(' ')
	}
	return b.String()
}

// TestOneBurstFromManyHosts is one campaign, which a rule holds; what else these users send passes.
func TestOneBurstFromManyHosts(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	r := rand.New(rand.NewPCG(1, 2))
	let := 0
	for i := range 30 {
		v, _ := s.send(uint32(1+i%3), fmt.Sprintf("r%d@sink.example", i), parcel(fmt.Sprintf("Name%d", i)), 0.9) // unsure, each of them
		if v.Action == filter.None {
			let++
		} else if d := v.Decisive(); d.Code != "CAMPAIGN" || v.Action != filter.Hold || v.Class.Bad() || !strings.Contains(d.Evidence, "rule users") {
			t.Fatalf("copy %d: %+v", i, d)
		}
		if v, _ := s.send(uint32(1+i%3), "x@sink.example", "Subject: x\r\n\r\n"+words(r, 80), 0.1); v.Action != filter.None {
			t.Fatalf("another message is held: %+v", v.Decisive())
		}
	}
	if let > 3 {
		t.Errorf("%d copies passed before the campaign was held", let)
	}
	all := s.tr.List(Query{Least: 2})
	if len(all) != 1 {
		t.Fatalf("there are %d campaigns: %+v", len(all), all)
	}
	c := all[0]
	if c.Copies != 30 || c.Recipients < 28 || c.Recipients > 32 || len(c.Users) != 3 || c.Users[0].Copies != 10 || c.Users[0].Name == "" || len(c.Sources) != 3 || c.Unsure != 30 || c.State != Held || c.Stopped != 30-let ||
		len(c.Samples) != maxSamples || !strings.Contains(c.Subject, "your parcel waits") || !slices.Equal(c.Hosts, []string{"parcel-desk.example"}) || c.Last.Sub(c.First) < 50*time.Second {
		t.Errorf("the campaign is %+v", c)
	}
	if len(s.ev) != 1 || s.ev[0].Campaign.ID != c.ID || s.ev[0].Shadow {
		t.Errorf("told: %+v", s.ev)
	}
}

// TestCopiesNextToUnsure: a burst whose copies are unsure on the whole is held, some of them above the threshold and some below; one of
// doubtful copies is not, nor is one that many users send.
func TestCopiesNextToUnsure(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		users         int
		probabilities [2]float64
		held          bool
	}{{1, [2]float64{0.79, 0.84}, true}, {1, [2]float64{0.76, 0.77}, false}, {1, [2]float64{0.45, 0.97}, false}, {1, [2]float64{0.3, 0.99}, true}, {20, [2]float64{0.6, 0.6}, false}} {
		s := newStage(t)
		held := 0
		for i := range 40 {
			if v, _ := s.send(uint32(1+i%c.users), fmt.Sprintf("r%d@sink.example", i), parcel(fmt.Sprintf("N%d", i)), c.probabilities[i%2]); v.Action == filter.Hold {
				held++
			}
		}
		if (held > 0) != c.held {
			t.Errorf("%+v: %d copies are held", c, held)
		}
	}
}

// TestGoodBurstsPass: a newsletter, and a shop system's notices that many customers send, however many there are.
func TestGoodBurstsPass(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	for i := range 2000 {
		if v, _ := s.send(7, fmt.Sprintf("r%d@sink.example", i), parcel(fmt.Sprintf("N%d", i)), 0.3); v.Action != filter.None {
			t.Fatalf("copy %d is held: %+v", i, v.Decisive())
		}
	}
	for i := range 200 {
		notice := "Subject: [Shop] new order\r\n\r\nYou have received the following order in your shop. It is being processed, and the customer was told so by mail.\r\n"
		p := 0.2
		if i%10 == 0 {
			p = 0.85 // the content filter is unsure of one in ten
		}
		if v, _ := s.send(uint32(100+i), fmt.Sprintf("owner%d@shop.example", i), notice, p); v.Action != filter.None {
			t.Fatalf("notice %d is held: %+v", i, v.Decisive())
		}
	}
	if n := len(s.tr.List(Query{Least: 100})); n != 2 {
		t.Errorf("%d campaigns, want 2", n)
	}
}

// TestDecisions hold for all copies at once, and over a restart; released ones pass whatever was learnt.
func TestDecisions(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	for i := range 3 {
		s.send(1, fmt.Sprintf("r%d@sink.example", i), parcel("A"+fmt.Sprint(i)), 0.2)
	}
	id := s.tr.List(Query{})[0].ID
	if _, err := s.tr.Decide(id, Refused, "", "x"); err == nil {
		t.Error("nobody decided, and it counts")
	}
	if _, err := s.tr.Decide("C0000000", Refused, "ann", "x"); err != ErrUnknown {
		t.Errorf("no such campaign: %v", err)
	}
	for _, x := range []struct {
		state  State
		action filter.Action
		bad    bool
		passes bool
	}{{Refused, filter.Reject, true, false}, {Held, filter.Hold, false, false}, {Released, filter.None, false, true}, {Watched, filter.None, false, false}, {Released, filter.None, false, true}} {
		if _, err := s.tr.Decide(strings.ToLower(id), x.state, "ann", "looked at it"); err != nil {
			t.Fatal(err)
		}
		v, w := s.send(2, "x@sink.example", parcel("Zoe"), 0.99)
		if v.Action != x.action || v.Class.Bad() != x.bad || (w.Passes != "") != x.passes || w.Group == 0 {
			t.Errorf("%v: %v %v, %+v", x.state, v.Action, v.Class, w)
		}
	}
	if !s.tr.Changed() || s.tr.Changed() {
		t.Error("a change is not told once")
	}
	saved := s.tr.Append(nil)
	s.tr = s.tracker()
	if err := s.tr.Restore(saved); err != nil {
		t.Fatal(err)
	}
	if v, w := s.send(3, "y@sink.example", parcel("Yan"), 0.99); v.Action != filter.None || w.Passes == "" {
		t.Errorf("after a restart: %+v, %+v", v, w)
	}
	c, err := s.tr.Find(id)
	if err != nil || c.Copies != 9 || c.By != "ann" {
		t.Errorf("after a restart it is %+v, %v", c, err)
	}
	if err := s.tr.Restore([]byte("nonsense")); err == nil {
		t.Error("nonsense was restored")
	}
	s.now = s.now.Add(s.set.Window + time.Minute)
	s.tr = s.tracker()
	if err := s.tr.Restore(saved); err != nil || len(s.tr.List(Query{})) != 0 {
		t.Errorf("what is over was restored: %v", err)
	}
}

// TestRulesThatOnlySay hold nothing, and say it once.
func TestRulesThatOnlySay(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.set.Rules = false
	for i := range 20 {
		if v, _ := s.send(1, fmt.Sprintf("r%d@sink.example", i), parcel("B"+fmt.Sprint(i)), 0.999); v.Action != filter.None {
			t.Fatalf("copy %d is held", i)
		}
	}
	if len(s.ev) != 1 || !s.ev[0].Shadow || s.ev[0].Campaign.Rule != "burst" {
		t.Errorf("told: %+v", s.ev)
	}
	s.set.Rules = true
	if v, _ := s.send(1, "last@sink.example", parcel("Last"), 0.999); v.Action != filter.Hold {
		t.Errorf("once rules count: %+v", v)
	}
}

// TestOneMessageTriedAgain is one message: a greylisted one comes ten times.
func TestOneMessageTriedAgain(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	for range 10 {
		if v, _ := s.send(1, "r@sink.example", parcel("Ann"), 0.999); v.Action != filter.None {
			t.Fatal("a message that is tried again is held as a campaign")
		}
	}
	if n := len(s.tr.List(Query{})); n != 0 {
		t.Errorf("%d campaigns", n)
	}
}

// TestTooLittleToTell: short messages have no print, but one that is a link or a file has.
func TestTooLittleToTell(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	for _, text := range []string{"Subject: Test\r\n\r\nTest\r\n", "Subject: hi\r\n\r\nsee you at seven then\r\n", "", "\r\n\r\n"} {
		if _, w := s.send(1, "r@sink.example", text, 0); w.Group != 0 {
			t.Errorf("%q has a print", text)
		}
	}
	short := "Subject: look\r\n\r\nhttps://pics.example/album/summer-in-the-hills https://pics.example/faq https://pics.example/app\r\n"
	if _, w := s.send(1, "r@sink.example", short, 0); w.Group == 0 {
		t.Error("links have no print")
	}
	file := "Content-Type: application/pdf; name=x.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\nAAECAwQFBgcICQoLDA0ODw==\r\n"
	_, a := s.send(1, "r@sink.example", file, 0)
	_, b := s.send(2, "q@sink.example", strings.Replace(file, "x.pdf", "y.pdf", 1), 0)
	if a.Group == 0 || a.Group != b.Group {
		t.Errorf("the same file in two messages: %v, %v", a, b)
	}
}

// TestDigests are exact: the very file and the very text, whatever is around them.
func TestDigests(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	mail := "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nplease open the file\r\n--b\r\n" +
		"Content-Type: application/pdf; name=x.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\nAAECAwQFBgcICQoLDA0ODw==\r\n--b--\r\n"
	file := sha256.Sum256([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15})
	if all := DigestsOf([]byte(mail)); len(all) != 2 || all[0].Of != "text" || all[1].Of != "x.pdf" || all[1].Hash != hex.EncodeToString(file[:]) {
		t.Fatalf("%+v", all)
	}
	for _, d := range DigestsOf([]byte(mail)) {
		hash, err := ParseDigest(" " + strings.ToUpper(d.Hash) + "\n")
		if err != nil {
			t.Fatal(err)
		}
		s.tr.SetDigests([]Digest{{Hash: hash, Why: "worm", By: "ann"}, {Hash: "none"}})
		v, _ := s.send(1, "r@sink.example", mail, 0)
		if h := v.Decisive(); h == nil || h.Code != "HASH" || v.Class != filter.Spam || !h.Outside || !strings.Contains(h.Evidence, "listed by ann: worm") {
			t.Errorf("%s: %+v", d.Of, v)
		}
		if v, _ := s.send(1, "r@sink.example", strings.Replace(strings.Replace(mail, "AAEC", "BAEC", 1), "please open", "please do open", 1), 0); v.Action != filter.None {
			t.Errorf("%s: another message: %+v", d.Of, v)
		}
	}
	s.tr.SetDigests([]Digest{{Hash: hex.EncodeToString(file[:]), By: "ann", Until: time.Now().Add(-time.Hour)}})
	if v, _ := s.send(1, "r@sink.example", mail, 0); v.Action != filter.None {
		t.Error("what is over is refused")
	}
	if _, err := ParseDigest("abc"); err == nil {
		t.Error("abc is a digest")
	}
	if len(s.tr.Digests()) != 1 {
		t.Error("the list is not shown")
	}
}

// TestMemoryIsBounded: the oldest kinds make room, those of campaigns that go on stay.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.set.Remember = chunk
	s.tr = s.tracker()
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 4 * chunk {
		s.now = s.now.Add(-999 * time.Millisecond) // so that none is over
		s.send(9, "x@sink.example", "\r\n"+words(r, 12), 0)
		if i%100 == 0 {
			s.send(1, fmt.Sprintf("r%d@sink.example", i), parcel(fmt.Sprint(i)), 0)
		}
	}
	f := s.tr.Figures()
	if f.Kinds > chunk || f.Campaigns != 1 || len(s.tr.memory.index) > parts*chunk {
		t.Errorf("%+v, %d keys", f, len(s.tr.memory.index))
	}
	if c := s.tr.List(Query{})[0]; c.Copies != 4*chunk/100+1 {
		t.Errorf("a campaign that goes on was forgotten: %d copies", c.Copies)
	}
	used := s.tr.memory.used
	s.now = s.now.Add(s.set.Window + time.Hour)
	for range 100 {
		s.send(9, "x@sink.example", "\r\n"+words(r, 12), 0)
	}
	if s.tr.memory.used != used {
		t.Errorf("places of what is over are not used again: %d, before %d", s.tr.memory.used, used)
	}
}

// TestManyCampaigns: those that nobody decided about make room.
func TestManyCampaigns(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	var first string
	for i := range maxCampaigns + 100 {
		p := Print{}
		for k := range p {
			p[k] = uint16(i*31 + k*7)
		}
		p[0], p[1] = uint16(i), uint16(i>>8)
		s.tr.mu.Lock()
		m := &message.Message{Flow: &flow.Flow{}}
		b := s.tr.burst(&kind{print: p}, &letter{m: m, v: &view.View{}})
		b.Last = s.now.Add(time.Duration(i) * time.Second)
		if i == 0 {
			first, b.State = b.ID, Refused
		}
		s.tr.mu.Unlock()
	}
	f := s.tr.Figures()
	if f.Campaigns > maxCampaigns || f.Campaigns < maxCampaigns/2 || f.Refused != 1 {
		t.Errorf("%+v", f)
	}
	if _, err := s.tr.Find(first); err != nil {
		t.Error("one that was decided about is forgotten")
	}
}

func BenchmarkTake10K(b *testing.B) {
	r := rand.New(rand.NewPCG(5, 6))
	var rd view.Reader
	v := rd.Read([]byte("Subject: x\r\n\r\n" + words(r, 1540)))
	var p Print
	b.ReportAllocs()
	for range b.N {
		Take(v, &p)
	}
}

func BenchmarkLookup(b *testing.B) {
	m := newMemory(1_000_000, 1<<30)
	r := rand.New(rand.NewPCG(7, 8))
	ps := make([]Print, 1_000_000)
	for i := range ps {
		for k := range ps[i] {
			ps[i][k] = uint16(r.Uint32())
		}
		keys := ps[i].keys()
		m.add(kind{print: ps[i]}, &keys, 0)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		p := &ps[(i*7919)%len(ps)]
		q := *p
		if i%2 == 0 {
			q[0]++ // a stranger, but for one part in ten
			for k := range q {
				q[k]++
			}
		}
		keys := q.keys()
		if got := m.find(&q, &keys, 0); (got == nil) != (i%2 == 0) {
			b.Fatal("not found, or found")
		}
	}
}

func TestIDs(t *testing.T) {
	t.Parallel()
	for _, g := range []uint64{1, 77, 1<<32 - 1, 0xdeadbeef} {
		if got, err := ParseID(strings.ToLower(ID(g))); err != nil || got != g {
			t.Errorf("%d is written %s and read %d, %v", g, ID(g), got, err)
		}
	}
	for _, s := range []string{"", "C123", "X0000000", "C000000U", "C00000000"} {
		if _, err := ParseID(s); err == nil {
			t.Errorf("%q is an id", s)
		}
	}
}

// TestAGoodMessageCostsNoMemory beyond what is remembered of it.
func TestAGoodMessageCostsNoMemory(t *testing.T) {
	s := newStage(t)
	r := rand.New(rand.NewPCG(9, 9))
	var rd view.Reader
	v := rd.Read([]byte("Subject: x\r\n\r\n" + words(r, 400)))
	m := &message.Message{ID: "k1.1", Flow: &flow.Flow{User: flow.User{ID: 7, Name: "alice"}}, Envelope: message.Envelope{To: []message.Address{"b@sink.example"}}}
	var o content.Opinion
	if n := testing.AllocsPerRun(100, func() { s.tr.Watch(m, v, &o, content.DefaultThresholds, nil) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestStrangers: copies that are not clearly good, to strangers, of a sender who usually writes to people he knows, are held,
// unless that rule is off; a few are not, nor those of somebody who always writes to such.
func TestStrangers(t *testing.T) {
	t.Parallel()
	for _, off := range []bool{false, true} {
		s := newStage(t)
		if off {
			s.set.Strangers = 0
		}
		h := habit.New(0, func() time.Time { return s.now })
		r := rand.New(rand.NewPCG(5, 6))
		send := func(user uint32, to, text string) filter.Action {
			s.now = s.now.Add(time.Second)
			s.n++
			m := &message.Message{ID: fmt.Sprintf("k%d.1", s.n), Flow: &flow.Flow{User: flow.User{ID: user}}, Envelope: message.Envelope{To: []message.Address{message.Address(to)}}}
			var rd view.Reader
			v, o := rd.Read([]byte(text)), &content.Opinion{Probability: 0.55}
			hits, _ := h.Watch(m, v, o, content.DefaultThresholds, nil)
			hits, _ = s.tr.Watch(m, v, o, content.DefaultThresholds, hits)
			return filter.Judge(hits).Action
		}
		for range 5 {
			for i := range 40 {
				send(1, fmt.Sprintf("friend%d@x.example", i%12), "Subject: x\r\n\r\n"+words(r, 30))
				send(2, fmt.Sprintf("reader%d@x.example", s.n), "Subject: x\r\n\r\n"+words(r, 30))
			}
			s.now = s.now.Add(24 * time.Hour)
		}
		let := map[uint32]int{}
		for user := uint32(1); user <= 2; user++ {
			for i := range 60 {
				if send(user, fmt.Sprintf("s%d-%d@y.example", user, i), strings.ReplaceAll(parcel(fmt.Sprintf("Name%d", i)), "parcel", []string{"", "invoice", "journal"}[user])) == filter.None {
					let[user]++
				}
			}
			s.now = s.now.Add(7 * time.Hour)
		}
		if off && let[1] != 60 || !off && (let[1] < 20 || let[1] > 30) || let[2] != 60 {
			t.Errorf("rule off: %t; %v of 60 copies passed", off, let)
		}
	}
}
