package observe

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/bpf"
	"sluice/intercept/control"
)

var (
	customer = netip.MustParseAddrPort("192.0.2.10:40000")
	server   = netip.MustParseAddrPort("198.51.100.25:25")
	noon     = time.Unix(1700000000, 0)
)

// talk makes the segments of a dialogue: lines that begin with "S: " are the server's; "FIN" ends both sides.
func talk(began uint64, script ...string) []bpf.Segment {
	seq := [2]uint32{4294967000, 77} // the first one wraps
	add := func(from bool, s bpf.Segment) bpf.Segment {
		d := 0
		if from {
			d = 1
		}
		s.Client, s.Server, s.Began, s.FromServer, s.Seq = customer, server, began, from, seq[d]
		seq[d] += uint32(len(s.Data))
		if s.SYN {
			seq[d]++
		}
		return s
	}
	out := []bpf.Segment{add(false, bpf.Segment{SYN: true}), add(true, bpf.Segment{SYN: true})}
	for _, line := range script {
		text, from := strings.CutPrefix(line, "S: ")
		if line == "FIN" {
			out = append(out, add(false, bpf.Segment{FIN: true}), add(true, bpf.Segment{FIN: true}))
			continue
		}
		out = append(out, add(from, bpf.Segment{Data: []byte(text + "\r\n")}))
	}
	return out
}

// observed gives the records of segments, the reports of one flow put together.
func observed(o Options, segments []bpf.Segment) []*control.Observed {
	var out []*control.Observed
	obs := New(o, whole(func(r *control.Observed) { out = append(out, r) }))
	for _, s := range segments {
		obs.Add(s, noon)
	}
	obs.Close(noon)
	return out
}

// whole puts the reports of one flow together.
func whole(give func(*control.Observed)) func(*control.Observed) {
	messages := map[uint64][]control.ObservedMessage{}
	return func(r *control.Observed) {
		if len(messages[r.ID]) != r.Before {
			panic(fmt.Sprintf("%d messages were told before, not %d", len(messages[r.ID]), r.Before))
		}
		messages[r.ID] = append(messages[r.ID], r.Messages...)
		if !r.More {
			r.Messages = messages[r.ID]
			give(r)
		}
	}
}

// copied makes of segments what the kernel copies: at most limit bytes of a side before the other one speaks.
func copied(limit int, segments []bpf.Segment) (out []bpf.Segment) {
	var seen [2]int
	var cut [2]bool
	var next [2]uint32
	for _, s := range segments {
		d := side(s.FromServer)
		other := s
		if other.FromServer = !s.FromServer; len(s.Data) > 0 && !cut[d] {
			if seen[1-d] = 0; cut[1-d] {
				cut[1-d] = false
				other.Data, other.Seq, other.Resumed = nil, next[1-d], true
				out = append(out, other)
			}
		}
		next[d] = s.Seq + uint32(len(s.Data))
		if s.SYN {
			next[d]++
		}
		if len(s.Data) == 0 {
			out = append(out, s)
			continue
		}
		n := min(len(s.Data), max(0, limit-seen[d]))
		rest := s
		if s.Data = s.Data[:n]; n > 0 && !cut[d] {
			seen[d] += n
			out = append(out, s)
		}
		if n < len(rest.Data) && !cut[d] {
			cut[d] = true
			rest.Data, rest.Seq, rest.Cut = nil, s.Seq+uint32(n), true
			out = append(out, rest)
		}
	}
	return out
}

// text shows a record in one line.
func text(r *control.Observed) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s", r.Helo)
	for _, m := range r.Messages {
		fmt.Fprintf(&b, " | %s", m.From)
		for _, t := range m.To {
			fmt.Fprintf(&b, " >%s=%d", t.Address, t.Code)
		}
		fmt.Fprintf(&b, " %d", m.Code)
		if m.Whole {
			b.WriteString(" whole")
		}
	}
	for word, is := range map[string]bool{" opaque": r.Opaque, " truncated": r.Truncated, " lossy": r.Lossy} {
		if is {
			b.WriteString(word)
		}
	}
	return b.String()
}

func TestDialogues(t *testing.T) {
	t.Parallel()
	hello := []string{"S: 220 mx ESMTP", "EHLO cust.example", "S: 250-mx\r\n250-PIPELINING\r\n250 STARTTLS"}
	for name, c := range map[string]struct {
		script []string
		want   string
	}{
		"one message": {[]string{"MAIL FROM:<a@b.example> SIZE=5", "S: 250 ok", "RCPT TO:<c@d.example>", "S: 250 ok", "DATA", "S: 354 go",
			"Subject: x\r\n\r\n..dot\r\nMAIL FROM:<inside@body.example>\r\n.", "S: 250 queued", "QUIT", "S: 221 bye", "FIN"},
			"cust.example | a@b.example >c@d.example=250 250 whole"},
		"pipelined, two messages": {[]string{"MAIL FROM:<>\r\nRCPT TO:<c@d.example>\r\nRCPT TO:<e@f.example>\r\nDATA", "S: 250 a\r\n250 b\r\n550 c\r\n354 d",
			"hello\r\n.\r\nMAIL FROM:<g@h.example>\r\nRCPT TO:<i@j.example>\r\nDATA", "S: 554 spam\r\n250 a\r\n451 later\r\n503 no", "FIN"},
			"cust.example |  >c@d.example=250 >e@f.example=550 554 whole | g@h.example >i@j.example=451 503"},
		"chunks": {[]string{"MAIL FROM:<a@b.example>", "S: 250 ok", "RCPT TO:<c@d.example>", "S: 250 ok", "BDAT 6\r\nQUIT", "S: 250 ok", "BDAT 2 LAST\r\n", "S: 250 queued", "FIN"},
			"cust.example | a@b.example >c@d.example=250 250 whole"},
		"STARTTLS": {[]string{"STARTTLS", "S: 220 go", "\x16\x03\x01MAIL FROM:<never@read.example>", "FIN"}, "cust.example opaque"},
		"STARTTLS refused": {[]string{"STARTTLS", "S: 454 no", "MAIL FROM:<a@b.example>", "S: 250 ok", "QUIT", "S: 221 bye", "FIN"},
			"cust.example | a@b.example 250"},
		"a secret is no command": {[]string{"AUTH LOGIN", "S: 334 VXNl", "MAIL FROM:<a@b.example>", "S: 334 UGFz", "QUIT", "S: 535 no", "MAIL FROM:<c@d.example>", "S: 530 log in", "FIN"},
			"cust.example | c@d.example 530"},
		"left in the body":    {[]string{"MAIL FROM:<a@b.example>", "S: 250 ok", "RCPT TO:<c@d.example>", "S: 250 ok", "DATA", "S: 354 go", "half", "FIN"}, "cust.example | a@b.example >c@d.example=250 250"},
		"left before a reply": {[]string{"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>", "FIN"}, "cust.example | a@b.example >c@d.example=0 0"},
		"reset":               {[]string{"MAIL FROM:<a@b.example>", "S: 250 ok", "RSET", "S: 250 ok", "FIN"}, "cust.example | a@b.example 250"},
		"no SMTP":             {[]string{"S: what", "FIN"}, "cust.example lossy"},
		"nothing":             {[]string{"FIN"}, "cust.example"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			segments := talk(1, append(append([]string(nil), hello...), c.script...)...)
			got := observed(Options{}, segments)
			if len(got) != 1 || text(got[0]) != c.want {
				for _, r := range got {
					t.Errorf("got  %s", text(r))
				}
				t.Fatalf("want %s", c.want)
			}
			// The two sides come by different CPUs: the server's bytes may be here before the client's, and pieces twice.
			var mixed []bpf.Segment
			for _, server := range []bool{true, false} {
				for _, s := range segments[2:] {
					if s.FromServer == server && (!s.FIN || server) {
						mixed = append(mixed, s)
					}
				}
			}
			if c.want == "cust.example lossy" { // where it became unreadable depends on the order
				return
			}
			mixed = append(append(segments[:2:2], mixed...), mixed...)
			if got := observed(Options{}, mixed); len(got) != 1 || text(got[0]) != c.want {
				t.Errorf("in another order: %d records, %s; want %s", len(got), text(got[0]), c.want)
			}
		})
	}
}

// TestLongMessages: what follows a message that is longer than what is copied is read all the same.
func TestLongMessages(t *testing.T) {
	t.Parallel()
	long := strings.Repeat(strings.Repeat("x", 78)+"\r\n", 100)
	hello := []string{"S: 220 mx", "EHLO c.example", "S: 250-mx\r\n250 CHUNKING"}
	envelope := func(from string) []string {
		return []string{"MAIL FROM:<" + from + ">", "S: 250 ok", "RCPT TO:<c@d.example>", "S: 250 ok"}
	}
	var rcpts, oks strings.Builder
	for i := range 100 {
		fmt.Fprintf(&rcpts, "RCPT TO:<r%d@d.example>\r\n", i)
		fmt.Fprintf(&oks, "250 %d\r\n", i)
	}
	for name, c := range map[string]struct {
		script []string
		want   string
	}{
		"the last": {slices.Concat(hello, envelope("a@b.example"), []string{"DATA", "S: 354 go", long + ".", "S: 250 queued", "FIN"}),
			"c.example | a@b.example >c@d.example=250 250 whole"},
		"three": {slices.Concat(hello, envelope("1@b.example"), []string{"DATA", "S: 354 go", long + ".", "S: 250 queued"},
			envelope("2@b.example"), []string{"DATA", "S: 354 go", "short\r\n.", "S: 250 queued"},
			envelope("3@b.example"), []string{"DATA", "S: 354 go", long + ".", "S: 554 spam", "QUIT", "S: 221 bye", "FIN"}),
			"c.example | 1@b.example >c@d.example=250 250 whole | 2@b.example >c@d.example=250 250 whole | 3@b.example >c@d.example=250 554 whole"},
		"QUIT behind the dot": {slices.Concat(hello, envelope("a@b.example"), []string{"DATA", "S: 354 go", long + ".\r\nQUIT", "S: 250 queued\r\n221 bye", "FIN"}),
			"c.example | a@b.example >c@d.example=250 250 whole"},
		"left in the midst": {slices.Concat(hello, envelope("a@b.example"), []string{"DATA", "S: 354 go", long, "FIN"}),
			"c.example | a@b.example >c@d.example=250 0"},
		"a long chunk": {slices.Concat(hello, envelope("a@b.example"), []string{fmt.Sprintf("BDAT %d LAST\r\n%s", len(long)+2, long), "S: 250 queued"},
			envelope("z@b.example"), []string{"BDAT 6 LAST\r\nfour", "S: 250 queued", "FIN"}),
			"c.example | a@b.example >c@d.example=250 250 whole | z@b.example >c@d.example=250 250 whole"},
		"more commands than are copied": {slices.Concat(hello, []string{"MAIL FROM:<a@b.example>\r\n" + rcpts.String() + "DATA", "S: 250 ok\r\n" + oks.String() + "354 go", "x\r\n.", "S: 250 queued"},
			envelope("z@b.example"), []string{"DATA", "S: 354 go", "x\r\n.", "S: 250 queued", "FIN"}),
			"c.example | z@b.example >c@d.example=250 250 whole lossy"},
		"refused in the midst": {slices.Concat(hello, envelope("a@b.example"), []string{"DATA", "S: 354 go", long, "S: 552 too large", "MAIL FROM:<no@command.example>\r\n.", "S: 500 what"},
			envelope("y@b.example"), []string{"DATA", "S: 354 go", "x\r\n.", "S: 250 queued"},
			envelope("z@b.example"), []string{"DATA", "S: 354 go", "x\r\n.", "S: 250 queued", "FIN"}),
			""},
	} {
		got := observed(Options{}, copied(1000, talk(1, c.script...)))
		if c.want == "" { // nobody can tell where the message ended; what begins anew behind it is found
			if len(got) != 1 || !strings.HasSuffix(text(got[0]), "| z@b.example >c@d.example=250 250 whole lossy") {
				t.Errorf("%s: %d records, %s", name, len(got), text(got[0]))
			}
			continue
		}
		if len(got) != 1 || text(got[0]) != c.want {
			t.Errorf("%s: %d records\ngot  %s\nwant %s", name, len(got), text(got[0]), c.want)
		}
	}
}

// TestBodies: what a record has of a body, and its size where it was read to its end.
func TestBodies(t *testing.T) {
	t.Parallel()
	envelope := []string{"S: 220 mx", "EHLO c.example", "S: 250 mx", "MAIL FROM:<a@b.example> SIZE=7 BODY=8BITMIME SMTPUTF8", "S: 250 ok", "RCPT TO:<c@d.example>", "S: 250 ok"}
	for name, c := range map[string]struct {
		script []string
		body   string
		size   int64
	}{
		"short":  {[]string{"DATA", "S: 354 go", "A: b\r\n\r\n..dot\r\n.", "S: 250 queued"}, "A: b\r\n\r\n.dot\r\n", 14},
		"long":   {[]string{"DATA", "S: 354 go", strings.Repeat("x", 2000) + "\r\n.", "S: 250 queued"}, strings.Repeat("x", 1000), 0},
		"chunks": {[]string{"BDAT 5\r\n.\r\n", "S: 250 ok", "BDAT 3 LAST\r\n.", "S: 250 queued"}, ".\r\n\r\n.\r\n", 8},
		"reset":  {[]string{"DATA", "S: 354 go", "half"}, "half\r\n", 0},
	} {
		got := observed(Options{}, copied(1000, talk(1, append(append(append([]string(nil), envelope...), c.script...), "FIN")...)))
		if len(got) != 1 || len(got[0].Messages) != 1 {
			t.Errorf("%s: records: %+v", name, got)
			continue
		}
		if m := got[0].Messages[0]; string(m.Body) != c.body || m.Size != c.size || m.Said != 7 || !m.UTF8 || !m.Eight {
			t.Errorf("%s: body %q of %d bytes; want %q of %d", name, m.Body, m.Size, c.body, c.size)
		}
	}
}

func TestMissingBytesAreTold(t *testing.T) {
	t.Parallel()
	segments := talk(1, "S: 220 mx", "EHLO c.example", "S: 250 mx", "MAIL FROM:<a@b.example>", "S: 250 ok", "RCPT TO:<c@d.example>", "S: 250 ok")
	lost := 5 // the MAIL
	segments = append(segments[:lost:lost], segments[lost+1:]...)
	var got []*control.Observed
	obs := New(Options{}, func(r *control.Observed) { got = append(got, r) })
	for _, s := range segments {
		obs.Add(s, noon)
	}
	obs.Tick(noon.Add(11 * time.Second))
	obs.Close(noon.Add(12 * time.Second))
	if len(got) != 1 || !got[0].Lossy || len(got[0].Messages) != 0 {
		t.Errorf("got %+v, want a lossy record", got)
	}
}

// TestTornMessage: a message whose last reply nobody copied is not told as one that was never sent.
func TestTornMessage(t *testing.T) {
	t.Parallel()
	script := []string{"S: 220 mx", "EHLO c.example", "S: 250 mx", "MAIL FROM:<a@b.example>", "S: 250 ok", "RCPT TO:<c@d.example>", "S: 250 good", "DATA", "S: 354 go",
		"A: b\r\n\r\nx\r\n.", "S: 250 queued", "MAIL FROM:<e@f.example>", "S: 250 ok", "RSET", "S: 250 ok", "QUIT", "S: 221 bye", "FIN"}
	segments := talk(1, script...)
	missing := slices.IndexFunc(segments, func(s bpf.Segment) bool { return strings.Contains(string(s.Data), "queued") })
	var got []control.ObservedMessage
	lossy := false
	obs := New(Options{}, func(r *control.Observed) { got, lossy = append(got, r.Messages...), lossy || r.Lossy })
	for i, s := range segments {
		switch {
		case i == missing: // what the client says next tells that it has come
			obs.Add(bpf.Segment{Client: s.Client, Server: s.Server, Began: s.Began, FromServer: true, Cut: true}, noon)
			obs.Add(bpf.Segment{Client: s.Client, Server: s.Server, Began: s.Began, FromServer: true, Resumed: true, Seq: s.Seq + uint32(len(s.Data))}, noon)
		default:
			obs.Add(s, noon)
		}
	}
	obs.Close(noon.Add(time.Second))
	if len(got) != 2 || !lossy || got[0].From != "a@b.example" || got[0].Whole || !got[0].Torn || got[1].From != "e@f.example" || got[1].Torn {
		t.Errorf("lossy %v, %+v; want a torn message, and one that is not", lossy, got)
	}
}

func TestPortsUsedAgain(t *testing.T) {
	t.Parallel()
	first := talk(1, "S: 220 mx", "EHLO one.example", "S: 250 mx")
	second := talk(9, "S: 220 mx", "EHLO two.example", "S: 250 mx", "FIN")
	got := observed(Options{}, append(append(first, second...), first[3:]...))
	if len(got) != 2 || got[0].Helo != "one.example" || got[1].Helo != "two.example" {
		t.Errorf("got %d records: %+v", len(got), got)
	}
	// A repeated SYN is no second flow.
	again := append(talk(3)[:1], talk(9, "S: 220 mx", "EHLO two.example", "S: 250 mx", "FIN")...)
	if got := observed(Options{}, again); len(got) != 1 || got[0].Helo != "two.example" {
		t.Errorf("a repeated SYN gave %d records: %+v", len(got), got)
	}
}

// TestShamEnds: an RST or FIN that the server refuses must not hide what follows.
func TestShamEnds(t *testing.T) {
	t.Parallel()
	before := []string{"S: 220 mx", "EHLO c.example", "S: 250 mx"}
	after := []string{"MAIL FROM:<a@b.example>", "S: 250 ok", "QUIT", "S: 221 bye", "FIN"}
	all := talk(1, append(append([]string(nil), before...), after...)...)
	at := 2 + len(before)
	sham := func(s bpf.Segment) []bpf.Segment {
		s.Client, s.Server, s.Began = customer, server, 1
		return append(append(append([]bpf.Segment(nil), all[:at]...), s), all[at:]...)
	}
	next := all[at].Seq
	for name, c := range map[string]struct {
		end  bpf.Segment
		want string
	}{
		"an old FIN is none":   {bpf.Segment{FIN: true, Seq: next - 5}, "c.example | a@b.example 250"},
		"a FIN in its place":   {bpf.Segment{FIN: true, Seq: next}, "c.example lossy"},
		"an RST in its place":  {bpf.Segment{RST: true, Seq: next}, "c.example lossy"},
		"an RST from anywhere": {bpf.Segment{RST: true, Seq: next + 1<<20}, "c.example lossy"},
	} {
		if got := observed(Options{}, sham(c.end)); len(got) != 1 || text(got[0]) != c.want {
			t.Errorf("%s: %d records, %s; want %s", name, len(got), text(got[0]), c.want)
		}
	}
	// One that was meant ends the flow.
	records := 0
	obs := New(Options{}, func(r *control.Observed) {
		if records++; r.Lossy {
			t.Error("a flow that was reset is said to have lost bytes")
		}
	})
	for _, s := range append(all[:at:at], bpf.Segment{Client: customer, Server: server, Began: 1, RST: true, Seq: next}) {
		obs.Add(s, noon)
	}
	obs.Tick(noon.Add(3 * time.Second))
	if records != 1 || obs.Open() != 0 {
		t.Errorf("after a reset %d records came and %d flows are open", records, obs.Open())
	}
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	records := 0
	obs := New(Options{Flows: 10, Idle: time.Minute}, func(*control.Observed) { records++ })
	for i := range 25 {
		s := talk(1)[0]
		s.Client = netip.AddrPortFrom(customer.Addr(), uint16(1000+i))
		obs.Add(s, noon)
	}
	if obs.Open() != 10 || obs.Seen() != 25 || obs.Lost() != 15 {
		t.Errorf("%d open, %d seen, %d lost; want 10, 25, 15", obs.Open(), obs.Seen(), obs.Lost())
	}
	obs.Tick(noon.Add(2 * time.Minute))
	if obs.Open() != 0 || records != 10 {
		t.Errorf("after a long silence %d are open, %d records came; want 0 and 10", obs.Open(), records)
	}
}

func TestAnyBytesInAnyOrder(t *testing.T) {
	t.Parallel()
	words := []string{"MAIL FROM:<a@b.example>", "RCPT TO:<", "DATA", ".", "STARTTLS", "BDAT 99999999999999999999 LAST", "BDAT 3", "AUTH PLAIN", "S: 354", "S: 250-x", "S: 250 ok", "S: 220 go", "S: 334 ", "\x00", "RSET"}
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		var script []string
		for range r.IntN(40) {
			script = append(script, words[r.IntN(len(words))])
		}
		segments := talk(1, script...)
		for range r.IntN(20) {
			i, j := r.IntN(len(segments)), r.IntN(len(segments))
			segments[i], segments[j] = segments[j], segments[i]
			segments = append(segments, segments[i])
			segments[i].Seq += uint32(r.IntN(3))
			segments[j].FIN = r.IntN(5) == 0
		}
		for i := range segments {
			segments[i].Cut, segments[i].Resumed = r.IntN(30) == 0, r.IntN(30) == 0
		}
		got := observed(Options{Pages: 8, Memory: 1 + r.IntN(4000)}, copied(1+r.IntN(400), segments))
		again, more := observed(Options{}, segments), observed(Options{}, segments)
		for i := range again {
			if len(more) == len(again) {
				again[i].ID = more[i].ID
			}
		}
		if !reflect.DeepEqual(again, more) || len(got) > 2 {
			t.Fatalf("seed %d: the same bytes read twice differ, or %d records", seed, len(got))
		}
	}
}

// TestMemoryIsBoundedInTotal: thousands of flows that begin a message and never go on are let go of before they take more
// than they may, each is counted, and what is told of them says that it is not all.
func TestMemoryIsBoundedInTotal(t *testing.T) {
	t.Parallel()
	const flows, most = 5000, 1 << 20
	lossy := 0
	obs := New(Options{Memory: most}, func(r *control.Observed) {
		if r.Lossy {
			lossy++
		}
	})
	half := strings.Repeat("x", 1400)
	for i := range flows {
		for _, s := range talk(1, "S: 220 mx", "EHLO c.example", "S: 250 mx", "MAIL FROM:<a@b.example>", "S: 250 ok", "RCPT TO:<c@d.example>", "S: 250 ok", "DATA", "S: 354 go", half) {
			s.Client = netip.AddrPortFrom(customer.Addr(), uint16(1000+i))
			obs.Add(s, noon)
			if obs.Held() > most+1<<16 {
				t.Fatalf("after %d flows %d bytes are held: more than %d", i, obs.Held(), most)
			}
		}
	}
	if obs.Open() != flows || obs.Lost() < flows/2 {
		t.Errorf("%d flows are open, %d were let go of; want %d and at least %d", obs.Open(), obs.Lost(), flows, flows/2)
	}
	obs.Close(noon)
	if obs.Held() != 0 || obs.Open() != 0 || uint64(lossy) != obs.Lost() {
		t.Errorf("at the end %d bytes are held and %d flows open; %d of %d are told as lossy", obs.Held(), obs.Open(), lossy, obs.Lost())
	}
}
