package proxy

import (
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/proxy/relay"
)

// chunking lets a rig send small messages in one chunk, and keep sessions.
func chunking(r *rig) {
	r.cfg.Dialer = relay.NewDialer(relay.Options{Keep: time.Minute, Chunks: true})
}

// TestSmallMessagesGoAsOneChunk: where the destination can, without the round trip of DATA, dots as they are; its answer is
// the client's, and the session serves the next mail. Large ones are asked for first.
func TestSmallMessagesGoAsOneChunk(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, reply("BDAT", "250 2.0.0 queued as C1", "452 4.3.1 full", "250 2.0.0 queued as C3"))
	r := newRig(t, mx.addr(), chunking)
	dotted := goodMail + ".one dot\r\n..two\r\n"
	stuffed := goodMail + "..one dot\r\n...two"
	p := r.hello()
	p.envelope()
	p.send(stuffed, "250 2.0.0 queued as C1")
	p.envelope()
	p.send(goodMail, "452 4.3.1 full")
	p.envelope()
	p.send(goodMail, "250 2.0.0 queued as C3")
	p.envelope()
	p.send(goodMail+strings.Repeat("longer than one chunk may be\r\n", 10_000), "250 2.0.0 queued as X1")
	p.cmd("QUIT", "221")
	r.quiet()
	r.mail("250 2.0.0 queued as C3")
	r.log.wait(t, 5)
	var verbs []string
	for _, c := range mx.commands() {
		if verb, _, _ := strings.Cut(c, " FROM"); !strings.HasPrefix(c, "1 RCPT") {
			verb, _, _ = strings.Cut(verb, " LAST")
			verbs = append(verbs, strings.TrimRight(verb, " 0123456789"))
		}
	}
	want := []string{"1 EHLO out.gw.example", "1 MAIL", "1 BDAT", "1 MAIL", "1 BDAT", "1 RSET", "1 MAIL", "1 BDAT", "1 MAIL", "1 DATA", "1 .", "1 MAIL", "1 BDAT"}
	if !slices.Equal(verbs, want) {
		t.Errorf("the destination heard %q, want %q", verbs, want)
	}
	if all := mx.messages(); len(all) != 5 || !strings.HasSuffix(all[0], "\r\n"+dotted) {
		t.Errorf("it has %d messages, the first %.300q", len(all), all[0])
	}
}

// TestDestinationWithoutChunkingHearsDATA, as one hears that left its list or never had it.
func TestDestinationWithoutChunkingHearsDATA(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, func(r *remote) { r.ehlo = []string{"PIPELINING"} })
	r := newRig(t, mx.addr(), chunking)
	r.mail("250 2.0.0 queued as X1")
	if !slices.Contains(mx.commands(), "1 DATA") {
		t.Errorf("the destination heard %q", mx.commands())
	}
}

// TestChunkWithoutAnAnswer is as ambiguous as a dot without one, and a client that left has nothing sent.
func TestChunkWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, reply("BDAT", closeNow))
	r := newRig(t, mx.addr(), chunking)
	p := r.hello()
	p.envelope()
	p.send(goodMail, "451 4.4.2")
	if rec := r.log.wait(t, 1)[0]; rec.Status != Ambiguous {
		t.Errorf("record %+v", rec)
	}
}
