package replies

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// fieldReplies reads replies as servers in the field give them.
func fieldReplies(t *testing.T) (all []sample) {
	text, err := os.ReadFile("testdata/replies.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(strings.TrimSpace(string(text)), "\n") {
		if strings.HasPrefix(line, "#") {
			continue
		}
		name, reply, _ := strings.Cut(line, " ")
		c, ok := parseClass(name)
		code, err := strconv.Atoi(reply[:3])
		if !ok || err != nil {
			t.Fatalf("bad line %q", line)
		}
		all = append(all, sample{code: code, text: reply[4:], class: c})
	}
	return all
}

func TestRepliesOfTheField(t *testing.T) {
	t.Parallel()
	all := fieldReplies(t)
	f1, table := measure(t, all, true)
	t.Logf("%d replies, macro-F1 %.3f\n%s", len(all), f1, table)
	if f1 < 0.95 {
		t.Errorf("macro-F1 is %.3f, want at least 0.95", f1)
	}
}

// TestPolicyIsNeverAnUnknownUser: whatever words stand behind 5.7.x.
func TestPolicyIsNeverAnUnknownUser(t *testing.T) {
	t.Parallel()
	for _, s := range fieldReplies(t) {
		_, words, _ := strings.Cut(s.text, " ")
		for _, status := range []string{"5.7.1", "5.7.0", "5.7.26", "5.7.999"} {
			if got := Shipped().Classify(Recipient, 550, status+" "+words); got == Unknown && statusOf(550, status+" "+words) == status {
				t.Errorf("%s %s is taken for an unknown user", status, words)
			}
		}
	}
}

func TestBadRulesAreRefused(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"spam | -", "ham | - | x", "spam at home | - | x", "spam at | - | x", "| - | x", "spam - x"} {
		if _, err := ParseReplies("\n# a line\n" + text); err == nil || !strings.Contains(err.Error(), "line 3") {
			t.Errorf("%q: %v", text, err)
		}
	}
	r, err := ParseReplies("unknown | 5.1. | nobody & ! sender")
	if err != nil || r.Classify(Recipient, 550, "5.1.1 nobody") != Unknown || r.Classify(Anywhere, 550, "5.1.1 Nobody sender") != Other || r.Classify(Anywhere, 450, "4.1.1 nobody") != Temporary || r.Classify(Anywhere, 250, "5.1.1 nobody") != Other {
		t.Errorf("rules of one's own: %v", err)
	}
}

// TestPlaces: the same words mean another thing where they answer another command.
func TestPlaces(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		at    At
		reply string
		want  Class
	}{
		{Recipient, "550 Unknown user b@mx.example", Unknown},
		{Anywhere, "550 Unknown user b@mx.example", Unknown},
		{Sender, "550 Unknown user a@customer.example", Other},
		{Message, "550 Unknown user b@mx.example", Other},
		{Message, "550 5.1.1 Unknown user b@mx.example", Unknown},
		{Message, "554 delivery error: dd This user doesn't have a mx.example account (b@mx.example) [0]", Unknown},
		{Message, "552 5.2.2 Quota exceeded", Quota},
		{Message, "550 looks like spam.", Spam},
		{Greeting, "554 mx.example you've reached your daily quota", Blocked},
		{Recipient, "550 you've reached your daily quota", Rate},
		{Greeting, "554 Bad DNS PTR resource record.", Policy},
		{Greeting, "421 too many connections", Rate},
	} {
		code, _ := strconv.Atoi(c.reply[:3])
		if got := Shipped().Classify(c.at, code, c.reply[4:]); got != c.want {
			t.Errorf("at %d: %s: %v, want %v", c.at, c.reply, got, c.want)
		}
	}
}

func FuzzClassify(f *testing.F) {
	f.Add(byte(Message), 550, "5.1.1 unknown")
	f.Fuzz(func(_ *testing.T, at byte, code int, text string) { Shipped().Classify(At(at), code, text) })
}

func BenchmarkClassify(b *testing.B) {
	r := Shipped()
	b.ReportAllocs()
	for range b.N {
		r.Classify(Recipient, 554, "5.3.0 Rejected, and nothing that any rule knows is said about the reason, which makes it the longest way")
	}
}
