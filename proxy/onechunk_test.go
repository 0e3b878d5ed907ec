package proxy

import (
	"net"
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
	bothDelivered(t, r)
	for _, c := range mx.commands() {
		if strings.Contains(c, "evil") || strings.Contains(c, "not filtered") {
			t.Errorf("the destination took %q of the message for a command", c)
		}
	}
	if all := mx.messages(); len(all) != 2 || !strings.HasSuffix(all[0], evil+"\r\n") {
		t.Errorf("it has %d messages: %.500q", len(all), all)
	}
}

// bothDelivered holds the log to two messages, which were delivered.
func bothDelivered(t *testing.T, r *rig) {
	t.Helper()
	all := r.log.wait(t, 2)
	for _, rec := range all {
		if len(all) != 2 || rec.Status != Delivered {
			t.Errorf("of %d records %+v", len(all), rec)
		}
	}
}

// TestWhoDoesNotTakeTheFirstChunkHearsDATA: with a word, without one, or too late; once, on a new connection.
func TestWhoDoesNotTakeTheFirstChunkHearsDATA(t *testing.T) {
	t.Parallel()
	for _, says := range []string{"502 5.5.2 unknown command", "503 5.5.1 bad sequence", "550 5.7.1 what?", "354 go ahead", closeNow, stall} {
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

// TestWhoAnswersTheFirstChunkTwiceHearsDATA: the second answer would be taken for that to the message.
func TestWhoAnswersTheFirstChunkTwiceHearsDATA(t *testing.T) {
	t.Parallel()
	for _, again := range []string{"250 2.0.0 queued as C0", "500 5.5.1 what?"} {
		mx := newRemote(t, reply("BDAT", "250 2.0.0 so far\r\n"+again, "554 5.7.1 no"))
		r := newRig(t, mx.addr(), chunking)
		r.mail("250 2.0.0 queued as X1")
		heard(t, mx, "1 EHLO", "1 MAIL", "1 BDAT", "2 EHLO", "2 MAIL", "2 DATA", "2 .")
	}
}

// TestWhatIsSaidToTheFirstChunkOfTheMessage is the client's answer, if it may try again.
func TestWhatIsSaidToTheFirstChunkOfTheMessage(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, reply("BDAT", "452 4.3.1 full", "250 2.0.0 so far", "250 2.0.0 queued as C1"))
	r := newRig(t, mx.addr(), chunking)
	p := r.hello()
	for _, want := range []string{"452 4.3.1 full", "250 2.0.0 queued as C1"} {
		p.envelope()
		p.send(goodMail, want)
	}
	p.cmd("QUIT", "221")
	r.log.wait(t, 2)
	heard(t, mx, "1 EHLO", "1 MAIL", "1 BDAT", "1 RSET", "1 MAIL", "1 BDAT", "1 BDAT LAST")
}

// TestWhoRefusesTheFirstChunkForGoodIsAskedByDATA: that may have been the command's refusal; if it was the message's, the client
// hears it.
func TestWhoRefusesTheFirstChunkForGoodIsAskedByDATA(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, reply("BDAT", "554 5.7.1 not from you"), reply("DATA", "554 5.7.1 not from you either"))
	r := newRig(t, mx.addr(), chunking)
	p := r.hello()
	p.envelope()
	p.send(goodMail, "554 5.7.1 not from you either")
	if rec := r.log.wait(t, 1)[0]; rec.Status != Refused {
		t.Errorf("record %+v", rec)
	}
	heard(t, mx, "1 EHLO", "1 MAIL", "1 BDAT", "2 EHLO", "2 MAIL", "2 DATA")
}

// TestServersThatAllTakeNoChunk: behind one address there may be several, each of which has not been tried. The message is not
// put off for that.
func TestServersThatAllTakeNoChunk(t *testing.T) {
	t.Parallel()
	const offers = ".sink.example\r\n250-PIPELINING\r\n250 CHUNKING"
	mx := newRemote(t, reply("EHLO", "250-mx1"+offers, "250-mx2"+offers), reply("BDAT", "502 5.5.2 unknown command"))
	r := newRig(t, mx.addr(), chunking)
	r.mail("250 2.0.0 queued as X1")
	heard(t, mx, "1 EHLO", "1 MAIL", "1 BDAT", "2 EHLO", "2 MAIL", "2 DATA", "2 .")
}

// TestNoChunkIsTriedBehindAUTH: the session in which the customer authenticated cannot be replaced.
func TestNoChunkIsTriedBehindAUTH(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, submission("PLAIN", reply("AUTH", "235 2.7.0 welcome"), reply("BDAT", "502 5.5.2 unknown command"))...)
	r := newRig(t, mx.addr(), func(r *rig) {
		r.cfg.Dialer = relay.NewDialer(relay.Options{Own: ownDialer{src: make(chan string, 100)}, Chunks: true})
	})
	p := r.dial()
	p.cmd("EHLO client.example", "250")
	p.cmd("AUTH PLAIN AHVzZXIAcGFzcw==", "235 2.7.0 welcome")
	p.envelope()
	p.send(goodMail, "250 2.0.0 queued as X1")
	p.cmd("QUIT", "221")
	if said := mx.commands(); slices.ContainsFunc(said, func(c string) bool { return strings.Contains(c, "BDAT") }) {
		t.Errorf("the destination heard %q", said)
	}
}

// TestWhoLeavesAtTheFirstChunk: 421 is what the client hears, and says nothing of chunks.
func TestWhoLeavesAtTheFirstChunk(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, reply("BDAT", "421 4.3.2 leaving", "250 2.0.0 so far", "250 2.0.0 queued as C1"))
	r := newRig(t, mx.addr(), chunking)
	p := r.hello()
	p.envelope()
	p.send(goodMail, "421 4.3.2 leaving")
	p.closed()
	if rec := r.log.wait(t, 1)[0]; rec.Status != Deferred {
		t.Errorf("record %+v", rec)
	}
	r.mail("250 2.0.0 queued as C1")
	heard(t, mx, "1 EHLO", "1 MAIL", "1 BDAT", "2 EHLO", "2 MAIL", "2 BDAT", "2 BDAT LAST")
}

// TestWhoTakesChunksNoMoreHearsDATA: the message is there once, and what was not taken is in flight no more when it goes again.
func TestWhoTakesChunksNoMoreHearsDATA(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, reply("BDAT", "250 2.0.0 so far", "250 2.0.0 queued as C1", "500 5.5.1 what?"))
	j, landed := &journal{}, make(chan int32, 2)
	mx.before = func(verb string) {
		if verb == "EHLO" {
			landed <- j.answered.Load()
		}
	}
	r := newRig(t, mx.addr(), chunking, func(r *rig) { r.cfg.Inflight = j })
	p := r.hello()
	p.envelope()
	p.send(goodMail, "250 2.0.0 queued as C1")
	p.envelope()
	p.send(goodMail, "250 2.0.0 queued as X1")
	p.cmd("QUIT", "221")
	bothDelivered(t, r)
	heard(t, mx, "1 EHLO", "1 MAIL", "1 BDAT", "1 BDAT LAST", "1 MAIL", "1 BDAT LAST", "2 EHLO", "2 MAIL", "2 DATA", "2 .")
	if first, again := <-landed, <-landed; first != 0 || again != 2 || j.sent.Load() != 3 {
		t.Errorf("at the second session slot %d had landed, and in all %d were taken; want 2 and 3", again, j.sent.Load())
	}
}

// TestChunkWithoutAnAnswer is as ambiguous as a dot without one.
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

// TestWhoLeavesBeforeTheChunkSendsNothing: a client that is gone once the first chunk is taken has no message there.
func TestWhoLeavesBeforeTheChunkSendsNothing(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	var p *peer
	mx.before = func(verb string) {
		if verb == "BDAT" {
			_ = p.nc.(*net.TCPConn).SetLinger(0) // a reset is no half-closed client
			_ = p.nc.Close()
		}
	}
	r := newRig(t, mx.addr(), chunking)
	p = r.hello()
	p.envelope()
	p.cmd("DATA", "354")
	p.write(goodMail + ".\r\n")
	if rec := r.log.wait(t, 1)[0]; rec.Status != Lost || len(mx.messages()) != 0 {
		t.Errorf("record %+v, and %d messages arrived", rec, len(mx.messages()))
	}
}
