package containment

import (
	"bytes"
	"fmt"
	"net/netip"
	"time"

	"sluice/filter/policy"
)

// customer is a sender with mail servers that have a queue.
type customer struct {
	id         uint32
	name, kind string
	addr       netip.Addr
	identities []string
	stolen     string // who of them sends spam from a moment on; "all": everybody
	s          *scene
	run        int // of its newsletter
}

// The kinds of customers, with how many of 200 there are.
var kinds = []struct {
	kind  string
	of200 int
}{{"shop", 70}, {"office", 60}, {"cron", 30}, {"forwarder", 15}, {"list", 15}, {"newsletter", 10}}

func (s *scene) customers(n int) {
	for _, k := range kinds {
		for range max(1, k.of200*n/200) {
			id := uint32(len(s.all) + 1)
			c := &customer{id: id, kind: k.kind, name: fmt.Sprintf("%s%d.example", k.kind, id), addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(id)}), s: s}
			c.identities = []string{"info", "sales", "web", "boss", "desk"}
			s.all = append(s.all, c)
			c.settings()
			c.begin()
		}
	}
}

// settings are those that a provider gives: identities by a header, and the volume that was agreed on.
func (c *customer) settings() {
	o := policy.Overrides{Identify: &policy.Identify{Method: policy.ByHeader, Headers: []policy.HeaderRule{{Name: "X-AuthUser"}}}}
	if c.kind == "newsletter" || c.kind == "list" {
		many := 25000
		o.MessagesPerHour, o.RecipientsPerHour = &many, &many
	}
	c.s.gate.table.Override(c.id, o)
}

// begin plans the customer's good mail.
func (c *customer) begin() {
	w := c.s.w
	always := func(do func()) func() bool { return func() bool { do(); return true } }
	switch c.kind {
	case "shop":
		w.every(20+w.rnd.Float64()*80, always(func() { c.write("web", true) }))
	case "office":
		w.every(10+w.rnd.Float64()*20, always(func() { c.write(c.identities[w.rnd.IntN(5)], true) }))
	case "cron":
		w.every(2+w.rnd.Float64()*10, always(func() { c.write("", w.rnd.IntN(10) == 0) }))
	case "forwarder":
		w.every(100, always(c.forward))
	case "list":
		w.every(4, always(c.post))
	case "newsletter":
		w.after(20*time.Minute+time.Duration(w.rnd.Int64N(int64(2*time.Hour))), c.issue)
	}
}

// letter returns some text.
func (c *customer) letter(all [][]byte) (uint64, []byte) {
	i := c.s.w.rnd.IntN(len(all))
	return uint64(i), all[i]
}

// make puts a message together: what the customer's server writes on top, and the text.
func (c *customer) make(identity, top string, text uint64, letter []byte) *mail {
	var b bytes.Buffer
	if identity != "" {
		fmt.Fprintf(&b, "X-AuthUser: %s@%s\r\n", identity, c.name)
	}
	b.WriteString(top)
	b.Write(letter)
	c.s.serial++
	return &mail{from: c, identity: identity, data: b.Bytes(), text: text, to: fmt.Sprintf("r%d@mx%d.example", c.s.serial, text%50), born: time.Now()}
}

// write sends a good message of its own; one that is not fresh is like others that the same program sends.
func (c *customer) write(identity string, fresh bool) {
	_, letter := c.letter(c.s.letters.good)
	text := 1<<40 + c.s.serial // each is judged for itself
	if !fresh {
		text, letter = uint64(c.id), c.s.letters.good[int(c.id)%len(c.s.letters.good)]
	}
	c.s.send(c.make(identity, "", text, letter))
}

// forward passes on what came from outside: three in ten are spam.
func (c *customer) forward() {
	spam := c.s.w.rnd.IntN(10) < 3
	all := c.s.letters.good
	if spam {
		all = c.s.letters.bad
	}
	text, letter := c.letter(all)
	if !spam {
		text = 2<<40 + c.s.serial
	}
	m := c.make("", fmt.Sprintf("Received: from mx%d.example (mx%d.example [198.51.100.%d])\r\n\tby %s (Postfix) with ESMTPS id 4A%d; Thu, 1 Jan 2026 10:00:00 +0000\r\n",
		text%50, text%50, 1+text%200, c.name, c.s.serial), text, letter)
	m.bad, m.forwarded = spam, true
	c.s.send(m)
}

// post is a message to a mailing list, to each of its subscribers.
func (c *customer) post() {
	_, letter := c.letter(c.s.letters.good)
	text := 3<<40 + c.s.serial
	for i := range 60 {
		c.s.w.after(time.Duration(i)*300*time.Millisecond, func() { c.s.send(c.make("list", "", text, letter)) })
	}
}

// issue sends a newsletter to its 20,000 readers within an hour, with the name of each on top. The first one of each third
// customer is taken for spam by any filter.
func (c *customer) issue() {
	var letter []byte
	i := -1
	for i < 0 || len(bytes.Fields(letter[i:])) < 40 { // fewer words are no newsletter
		_, letter = c.letter(c.s.letters.good)
		i = bytes.Index(letter, []byte("\r\n\r\n"))
	}
	head, body := letter[:i+4], letter[i+4:]
	c.run++
	text, readers := 4<<40+c.s.serial, c.s.readers
	misjudged := c.run == 1 && c.id%3 == 0
	n := 0
	var next func()
	next = func() {
		own := fmt.Appendf(append([]byte(nil), head...), "Dear reader %s,\r\n\r\n%s\r\nYour number: %d\r\n", names[c.s.w.rnd.IntN(len(names))], body, c.s.serial)
		m := c.make("newsletter", "", text, own)
		m.misjudged = misjudged
		c.s.send(m)
		if n++; n < readers {
			c.s.w.after(time.Hour/time.Duration(readers), next)
		}
	}
	next()
	c.s.w.after(24*time.Hour, c.issue)
}

var names = []string{"Anna", "Berthold", "Chantal", "Dmitri", "Elif", "Fabio", "Grete", "Hans-Peter", "Ines", "Jussi"}

// spam sends what whoever stole an account sends: another message each time, and he does not try again.
func (c *customer) spam(identity string) {
	text, letter := c.letter(c.s.letters.bad)
	m := c.make(identity, "", text, letter)
	m.bad = true
	c.s.send(m)
}
