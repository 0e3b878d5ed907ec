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
			if got := Shipped().Classify(550, status+" "+words); got == Unknown && statusOf(550, status+" "+words) == status {
				t.Errorf("%s %s is taken for an unknown user", status, words)
			}
		}
	}
}

func TestBadRulesAreRefused(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"spam | -", "ham | - | x", "| - | x", "spam - x"} {
		if _, err := ParseReplies("\n# a line\n" + text); err == nil || !strings.Contains(err.Error(), "line 3") {
			t.Errorf("%q: %v", text, err)
		}
	}
	r, err := ParseReplies("unknown | 5.1. | nobody & ! sender")
	if err != nil || r.Classify(550, "5.1.1 nobody") != Unknown || r.Classify(550, "5.1.1 Nobody sender") != Other || r.Classify(450, "4.1.1 nobody") != Temporary || r.Classify(250, "5.1.1 nobody") != Other {
		t.Errorf("rules of one's own: %v", err)
	}
}

func FuzzClassify(f *testing.F) {
	f.Add(550, "5.1.1 unknown")
	f.Fuzz(func(_ *testing.T, code int, text string) { Shipped().Classify(code, text) })
}

func BenchmarkClassify(b *testing.B) {
	r := Shipped()
	b.ReportAllocs()
	for range b.N {
		r.Classify(554, "5.3.0 Rejected, and nothing that any rule knows is said about the reason, which makes it the longest way")
	}
}
