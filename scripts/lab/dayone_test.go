//go:build labtest

package lab

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// gtubeMail has the test text for spam, in two pieces so that no filter takes this program for spam.
const gtubeMail = "Subject: test\r\n\r\nXJS*C4JDBQADN1.NSBN3*2IDNEN*" + "GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X\r\n"

// TestWhatWasLearntHasToProveItself (CON1): on day one what was learnt refuses nothing, and the log says what it would have
// done; the test text, a listed file and a virus's are refused at once. After 5,000 good messages of this network, with
// SLUICE_SOAK_MESSAGES=5000, what it called spam waits for a person's word; then it refuses by itself, also after a restart,
// and another model has to prove itself anew.
func TestWhatWasLearntHasToProveItself(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, strings.Replace(GatewayConfig, `name = "{{.Name}}"`, `name = "{{.Name}}"
limits = { messages_per_hour = 0, recipients_per_hour = 0 }`, 1))
	hears := func(host, mail, want string) {
		t.Helper()
		if got := say(ctx, t, l, host, "x@sink.example", mail); !strings.HasPrefix(got, want) {
			t.Errorf("%s hears %q, want %q", host, got, want)
		}
	}
	hears("alice", pillMail, "250 ")
	hears("alice", gtubeMail, "550 5.7.1 gw.example: [GTUBE]")
	var log []struct {
		Hits []struct{ Code, Action, Evidence string }
	}
	if err := sluiceJSON(ctx, g, &log, "log", "--status", "delivered"); err != nil || len(log) != 1 || len(log[0].Hits) == 0 {
		t.Fatalf("%+v, %v", log, err)
	}
	if h := log[0].Hits[0]; h.Code != "SPAM" || h.Action != "accept" || !strings.Contains(h.Evidence, "not proved itself here yet") {
		t.Errorf("the log says %+v", h)
	}
	hears("alice", phishMail, "250 ") // one doubt in 5,000 is not too many, two are
	good := 20
	if n, err := strconv.Atoi(os.Getenv("SLUICE_SOAK_MESSAGES")); err == nil {
		good = n
	}
	c, err := l.Hello(ctx, "bob", "", "198.51.100.20:25")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range good {
		if _, last, err := c.Send("b@bob.example", []string{"y@sink.example"}, fmt.Appendf(nil, "Subject: minutes %d\r\n\r\nHi, these are the minutes of our meeting number %d. Regards, Bob\r\n", i, i)); err != nil || last.Code != 250 {
			t.Fatalf("good message %d: %v %v", i, last, err)
		}
	}
	if r, err := c.Cmd("NOOP"); err != nil || r.Code != 250 { // behind what the last message taught
		t.Fatal(r, err)
	}
	var m struct {
		Acting  bool
		Missing string
		Taken   int `json:"taken_for_good"`
		Doubts  []struct{ ID string }
	}
	model := func() {
		t.Helper()
		if err := sluiceJSON(ctx, g, &m, "model"); err != nil {
			t.Fatal(err)
		}
	}
	if model(); m.Taken < good || m.Acting || m.Missing == "" || len(m.Doubts) != 2 {
		t.Errorf("the model has taken %d for good, acts: %t, lacks %q, doubts %v", m.Taken, m.Acting, m.Missing, m.Doubts)
	}
	hears("alice", pillMail, "250 ")
	if good < 5000 {
		return
	}
	sluice(t, g, "model", "doubt", m.Doubts[0].ID, "spam")
	if model(); !m.Acting {
		t.Fatalf("it does not act: it lacks %q", m.Missing)
	}
	hears("alice", minutesMail, "250 ")
	hears("alice", pillMail, "550 5.7.1 gw.example: [SPAM]")
	if err := g.RestartSluiced(ctx); err != nil {
		t.Fatal(err)
	}
	hears("alice", pillMail, "550 5.7.1 gw.example: [SPAM]")
}
