package proxy

import (
	"regexp"
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

// TestSmallMessagesGoAsOneChunk: where the destination has shown that it can, without the round trip of DATA, dots as they are; its
// answer is the client's, and the session serves the next mail. Large ones are asked for first.
func TestSmallMessagesGoAsOneChunk(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, reply("BDAT", "250 2.0.0 so far", "250 2.0.0 queued as C1", "452 4.3.1 full", "250 2.0.0 queued as C3"))
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
	heard(t, mx, "1 EHLO", "1 MAIL", "1 BDAT", "1 BDAT LAST", "1 MAIL", "1 BDAT LAST", "1 RSET", "1 MAIL", "1 BDAT LAST", "1 MAIL", "1 DATA", "1 .", "1 MAIL", "1 BDAT LAST")
	if all := mx.messages(); len(all) != 5 || !strings.HasSuffix(all[0], "\r\n"+dotted) {
		t.Errorf("it has %d messages, the first %.300q", len(all), all[0])
	}
}

var aNumber = regexp.MustCompile(` [0-9]+`)

// heard compares the commands of a destination, RCPT and arguments left out.
func heard(t *testing.T, mx *remote, want ...string) {
	t.Helper()
	var verbs []string
	for _, c := range mx.commands() {
		n, c, _ := strings.Cut(c, " ")
		switch verb, _, _ := strings.Cut(c, " "); verb {
		case "RCPT":
		case "BDAT":
			verbs = append(verbs, n+" "+aNumber.ReplaceAllString(c, ""))
		default:
			verbs = append(verbs, n+" "+verb)
		}
	}
	if !slices.Equal(verbs, want) {
		t.Errorf("the destination heard %q, want %q", verbs, want)
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

// TestWhoTakesChunksForCommandsSeesNoMessage: a destination that offers CHUNKING and does not know it would take a stranger's
// lines for commands. It sees none but our own header fields; the client notices nothing, and the next mail goes by DATA.
func TestWhoTakesChunksForCommandsSeesNoMessage(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, func(r *remote) { r.lines = true }, reply("BDAT", "502 5.5.2 unknown command"))
	r := newRig(t, mx.addr(), chunking)
	p := r.hello()
	p.envelope()
	evil := goodMail + "RSET\r\nMAIL FROM:<evil@sink.example>\r\nRCPT TO:<victim@sink.example>\r\nDATA\r\nnot filtered"
	p.send(evil, "250 2.0.0 queued as X1")
	p.envelope()
	p.send(goodMail, "250 2.0.0 queued as X1")
	p.cmd("QUIT", "221")
	for _, rec := range r.log.wait(t, 2) {
		if rec.Status != Delivered {
			t.Errorf("record %+v", rec)
		}
	}
	for _, c := range mx.commands() {
		if strings.Contains(c, "evil") || strings.Contains(c, "not filtered") {
			t.Errorf("the destination took %q of the message for a command", c)
		}
	}
	if all := mx.messages(); len(all) != 2 || !strings.HasSuffix(all[0], evil+"\r\n") {
		t.Errorf("it has %d messages: %.500q", len(all), all)
	}
}

// TestWhoDoesNotTakeTheFirstChunkHearsDATA: with a word, without one, or too late; once, on a new connection.
func TestWhoDoesNotTakeTheFirstChunkHearsDATA(t *testing.T) {
	t.Parallel()
	for _, says := range []string{"502 5.5.2 unknown command", "503 5.5.1 bad sequence", "354 go ahead", closeNow, stall} {
		t.Run(says, func(t *testing.T) {
			t.Parallel()
			mx := newRemote(t, reply("BDAT", says))
			r := newRig(t, mx.addr(), func(r *rig) {
				r.cfg.Dialer = relay.NewDialer(relay.Options{Keep: time.Minute, Chunks: true, Timeouts: relay.Timeouts{Command: time.Second}})
			})
			p := r.hello()
			for range 2 {
				p.envelope()
				p.send(goodMail, "250 2.0.0 queued as X1")
			}
			p.cmd("QUIT", "221")
			r.log.wait(t, 2)
			heard(t, mx, "1 EHLO", "1 MAIL", "1 BDAT", "2 EHLO", "2 MAIL", "2 DATA", "2 .", "2 MAIL", "2 DATA", "2 .")
		})
	}
}

// TestWhatIsSaidToTheFirstChunkOfTheMessage is the client's answer.
func TestWhatIsSaidToTheFirstChunkOfTheMessage(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, reply("BDAT", "452 4.3.1 full", "554 5.7.1 not from you", "250 2.0.0 so far", "250 2.0.0 queued as C1"))
	r := newRig(t, mx.addr(), chunking)
	p := r.hello()
	for _, want := range []string{"452 4.3.1 full", "554 5.7.1 not from you", "250 2.0.0 queued as C1"} {
		p.envelope()
		p.send(goodMail, want)
	}
	p.cmd("QUIT", "221")
	r.log.wait(t, 3)
	heard(t, mx, "1 EHLO", "1 MAIL", "1 BDAT", "1 RSET", "1 MAIL", "1 BDAT", "1 RSET", "1 MAIL", "1 BDAT", "1 BDAT LAST")
}

// TestWhoTakesChunksNoMoreHearsDATA: the message is there once, and in flight no more.
func TestWhoTakesChunksNoMoreHearsDATA(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, reply("BDAT", "250 2.0.0 so far", "250 2.0.0 queued as C1", "500 5.5.1 what?"))
	r := newRig(t, mx.addr(), chunking)
	p := r.hello()
	p.envelope()
	p.send(goodMail, "250 2.0.0 queued as C1")
	p.envelope()
	p.send(goodMail, "250 2.0.0 queued as X1")
	p.cmd("QUIT", "221")
	for _, rec := range r.log.wait(t, 2) {
		if rec.Status != Delivered {
			t.Errorf("record %+v", rec)
		}
	}
	heard(t, mx, "1 EHLO", "1 MAIL", "1 BDAT", "1 BDAT LAST", "1 MAIL", "1 BDAT LAST", "2 EHLO", "2 MAIL", "2 DATA", "2 .")
}

// TestChunkWithoutAnAnswer is as ambiguous as a dot without one, and a client that left has nothing sent.
func TestChunkWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, reply("BDAT", "250 2.0.0 so far", closeNow))
	r := newRig(t, mx.addr(), chunking)
	p := r.hello()
	p.envelope()
	p.send(goodMail, "451 4.4.2")
	if rec := r.log.wait(t, 1)[0]; rec.Status != Ambiguous {
		t.Errorf("record %+v", rec)
	}
}
