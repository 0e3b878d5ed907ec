package content

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/filter"
	"sluice/filter/content/learn"
	"sluice/filter/content/shipped"
)

func shippedJudge(t testing.TB) *Judge {
	t.Helper()
	m, err := shipped.Model()
	if err != nil {
		t.Fatal(err)
	}
	return NewJudge(m)
}

const minutes = "From: Ann Miller <ann@example.org>\nTo: bob@example.net\nSubject: Re: minutes of the meeting\nIn-Reply-To: <1@example.net>\n\n" +
	"Hi Bob,\n\nattached are the minutes; please send corrections by Friday.\nI have added my comments to the draft.\n\nBest, Ann\n"

const suspended = "From: \"PayPal Security\" <x@account-verify.example>\nTo: bob@example.net\nSubject: Your account has been suspended\nContent-Type: text/html\n\n" +
	"<p>Dear customer, we detected unusual activity. Verify your account within 24 hours or it will be closed.</p><a href=\"http://198.51.100.7/paypal.com/login\">Verify now</a>\n" +
	"<p>Congratulations, you have won a gift card. Click here to claim your prize.</p>\n"

const pills = "From: Canadian Pharmacy <x@medstore.example>\nSubject: Viagra 80% OFF\n\nBuy Viagra, Cialis and Levitra, no prescription needed. Lowest prices, worldwide delivery.\n" +
	"Click here: http://meds.example/ Free pills with every order, 100% money back guarantee! To be removed click here.\n"

func TestShippedModelJudges(t *testing.T) {
	t.Parallel()
	j := shippedJudge(t)
	for name, c := range map[string]struct{ mail, class string }{"minutes": {minutes, "clean"}, "suspended": {suspended, "phish"}, "pills": {pills, "spam"}} {
		o := j.Judge([]byte(crlf(c.mail)), DefaultThresholds, 0.5)
		if o.Name(DefaultThresholds) != c.class {
			t.Errorf("%s is %s with %.4f, want %s", name, o.Name(DefaultThresholds), o.Probability, c.class)
		}
		hits := o.Hits("test", nil)
		if c.class != "clean" && (len(hits) == 0 || hits[len(hits)-1].Code != "LEARNED" || !strings.Contains(hits[len(hits)-1].Evidence, "by test: ")) {
			t.Errorf("%s is not explained: %+v", name, hits)
		}
		for _, h := range hits {
			if h.Action != filter.None || h.Class != filter.Clean {
				t.Errorf("%s: an opinion decides by itself: %+v", name, h)
			}
		}
	}
}

func TestSameOpinionInManyHands(t *testing.T) {
	t.Parallel()
	j := shippedJudge(t)
	want := j.Judge([]byte(suspended), DefaultThresholds, 2).Score
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 50 {
				if got := j.Judge([]byte(suspended), DefaultThresholds, 2).Score; got != want {
					t.Errorf("score %v, want %v", got, want)
					return
				}
				j.Judge([]byte(minutes), DefaultThresholds, 0)
			}
		})
	}
	all.Wait()
}

func TestLearnsOnLine(t *testing.T) {
	t.Parallel()
	j := shippedJudge(t)
	mail := []byte("From: x@example.org\nSubject: turnips\n\nour turnips are the best in the county, have a look at the stall\n")
	before := j.Judge(mail, DefaultThresholds, 2)
	steps, ids := j.Teach(mail, true)
	if after := j.Judge(mail, DefaultThresholds, 2); after.Probability < 0.5 || steps == 0 {
		t.Errorf("learnt as bad it is judged %.3f, before %.3f", after.Probability, before.Probability)
	}
	taught := j.Judge(mail, DefaultThresholds, 2).Score
	if err := j.Repeat(ids, steps, true, true); err != nil {
		t.Fatal(err)
	}
	if err := j.Repeat(ids, steps, true, false); err != nil {
		t.Fatal(err)
	}
	if again := j.Judge(mail, DefaultThresholds, 2).Score; again-taught > 0.01 || taught-again > 0.01 {
		t.Errorf("forgotten and repeated by its features it scores %.3f, before %.3f", again, taught)
	}
	if err := j.Repeat(ids[:len(ids)/2], steps, true, false); err == nil {
		t.Error("half the features were taken")
	}
	j.Unlearn(mail, steps, true)
	if after := j.Judge(mail, DefaultThresholds, 2); after.Score-before.Score > 0.01 || before.Score-after.Score > 0.01 {
		t.Errorf("unlearnt it is judged %.3f, before %.3f", after.Score, before.Score)
	}
}

func TestBuildIsCalibrated(t *testing.T) {
	t.Parallel()
	j := NewJudge(learn.NewModel(""))
	var es []learn.Example
	for i := range 40 {
		es = append(es, j.Example([]byte(minutes+strings.Repeat("x", i)), false, 1), j.Example([]byte(pills+strings.Repeat("y", i)), true, 1))
		es[2*i].Group, es[2*i+1].Group = i, i
	}
	m := Build("test", time.Unix(0, 0), []string{"here"}, es)
	k := NewJudge(m)
	if p := k.Judge([]byte(pills), DefaultThresholds, 2).Probability; p < 0.9 {
		t.Errorf("pills are judged %.3f", p)
	}
	if p := k.Judge([]byte(minutes), DefaultThresholds, 2).Probability; p > 0.1 {
		t.Errorf("minutes are judged %.3f", p)
	}
}

func TestCalibrationSparesGoodMail(t *testing.T) {
	t.Parallel()
	var scores []float64
	var bad []bool
	for i := range 10000 { // four good messages in 10,000 look worse than the threshold of spam
		s := -3.0
		if i < 4 {
			s = 4.1 + float64(i)/10
		}
		scores, bad = append(scores, s, 6), append(bad, false, true)
	}
	c := cautious(learn.Calibration{A: 1}, scores, bad)
	over := 0
	for i, s := range scores {
		if !bad[i] && learn.Sigmoid(c.A*s+c.B) > DefaultThresholds.Spam+1e-9 {
			over++
		}
	}
	if c.B >= 0 || over != 2 {
		t.Errorf("moved by %.3f, %d good messages are above spam; two are allowed of 10,000", c.B, over)
	}
	if c := cautious(learn.Calibration{A: 1, B: -3}, scores, bad); c.B != -3 {
		t.Errorf("what is cautious already was moved to %.3f", c.B)
	}
}

func TestCRLF(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"": "", "a": "a", "a\nb": "a\r\nb", "a\r\nb\n": "a\r\nb\r\n", "\n\n": "\r\n\r\n", "a\r\n": "a\r\n"} {
		if got := string(CRLF([]byte(in))); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

func BenchmarkJudge10K(b *testing.B) {
	j := shippedJudge(b)
	data := cleanMail()
	b.ReportAllocs()
	b.SetBytes(int64(len(data)))
	for range b.N {
		j.Judge(data, DefaultThresholds, 0.8)
	}
}

// BenchmarkJudgeMany10K judges 200 messages in turn, plain and HTML, of words that are common and rare as in a language: nothing of
// what was read for one is still at hand for the next.
func BenchmarkJudgeMany10K(b *testing.B) {
	j := shippedJudge(b)
	r := rand.New(rand.NewPCG(1, 2))
	vocabulary := make([]string, 20_000)
	for i := range vocabulary {
		for range 2 + r.IntN(3) {
			vocabulary[i] += []string{"ba", "ten", "or", "mi", "st", "ra", "ne", "lo", "qui", "ver", "a", "e"}[r.IntN(12)]
		}
	}
	mails := make([][]byte, 200)
	for i := range mails {
		var m strings.Builder
		html := i%2 == 0
		fmt.Fprintf(&m, "From: Ann Smith <ann@example.org>\r\nTo: b@example.net\r\nSubject: %s\r\nMessage-ID: <%d@example.org>\r\nMIME-Version: 1.0\r\nContent-Type: text/%s; charset=utf-8\r\n\r\n", vocabulary[i], i,
			map[bool]string{true: "html", false: "plain"}[html])
		for n := 0; m.Len() < 10<<10; n++ {
			switch {
			case n%12 != 11:
				m.WriteString(vocabulary[int(float64(len(vocabulary))*math.Pow(r.Float64(), 4))] + " ")
			case html:
				fmt.Fprintf(&m, "</p>\r\n<p style=\"margin:0\"><a href=\"https://www.example.org/%d\">more</a> ", n)
			default:
				m.WriteString("\r\n")
			}
		}
		mails[i] = []byte(m.String())
	}
	b.ReportAllocs()
	b.SetBytes(10 << 10)
	for i := range b.N {
		j.Judge(mails[i%len(mails)], DefaultThresholds, 2)
	}
}
