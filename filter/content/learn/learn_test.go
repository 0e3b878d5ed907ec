package learn

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"sluice/filter/content/view"
)

// features reads a message and returns what it is made of.
func features(t testing.TB, text string) *Features {
	t.Helper()
	f := NewFeatures()
	f.Extract(new(view.Reader).Read([]byte("From: Ann <a@example.org>\nSubject: hello\n\n" + text)))
	return f
}

// corpus makes examples of which the label hangs on some words, amid many that say nothing.
func corpus(t testing.TB, n int, first uint64) []Example {
	r := rand.New(rand.NewPCG(first, 1))
	var es []Example
	for i := range n {
		bad := i%2 == 1
		var words []string
		for range 30 {
			words = append(words, fmt.Sprintf("word%c%c", 'a'+r.IntN(26), 'a'+r.IntN(26)))
		}
		if bad {
			words[r.IntN(30)], words[r.IntN(30)] = "jackpot", "winner"
		} else {
			words[r.IntN(30)], words[r.IntN(30)] = "minutes", "agenda"
		}
		e := features(t, strings.Join(words, " ")).Example(bad, 0, 1)
		e.Group = i
		es = append(es, e)
	}
	return es
}

func accuracy(m *Model, es []Example) float64 {
	right := 0
	for i := range es {
		if m.Probability(m.ScoreExample(&es[i])) > 0.5 == es[i].Bad {
			right++
		}
	}
	return float64(right) / float64(len(es))
}

func TestLearnsWhatTellsApart(t *testing.T) {
	t.Parallel()
	train, test := corpus(t, 400, 1), corpus(t, 200, 2)
	m := NewModel("test")
	if a := accuracy(m, test); a != 0.5 {
		t.Errorf("a model that knows nothing is right in %.2f of the cases", a)
	}
	m.Train(train, 1)
	if a := accuracy(m, test); a < 0.97 {
		t.Errorf("the model is right in %.2f of the cases, want at least 0.97", a)
	}
	if i := m.Info(); i.Good != 200 || i.Bad != 200 {
		t.Errorf("the model counts %d good and %d bad", i.Good, i.Bad)
	}
}

func TestShuffledLabelsTeachNothing(t *testing.T) {
	t.Parallel()
	train, test := corpus(t, 400, 3), corpus(t, 400, 4)
	r := rand.New(rand.NewPCG(9, 9))
	for i := range train {
		train[i].Bad = r.IntN(2) == 0
	}
	m := NewModel("test")
	m.Train(train, 1)
	if a := accuracy(m, test); a < 0.3 || a > 0.7 {
		t.Errorf("from labels drawn by lot the model is right in %.2f of the cases", a)
	}
}

func TestSameExamplesSameModel(t *testing.T) {
	t.Parallel()
	var files [2]bytes.Buffer
	for i := range files {
		m := NewModel("test")
		m.Train(corpus(t, 60, 5), 1)
		if err := m.Save(&files[i]); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(files[0].Bytes(), files[1].Bytes()) {
		t.Error("two trainings with the same examples made different models")
	}
}

func TestLearnAndUnlearn(t *testing.T) {
	t.Parallel()
	m := NewModel("test")
	m.Train(corpus(t, 100, 6), 1)
	f := features(t, "quite another text about herring and tides")
	before := m.Score(f, 0)
	steps := m.Learn(f, 0, true)
	if after := m.Score(f, 0); steps <= 0 || after <= before || Sigmoid(after) < 0.6 {
		t.Errorf("learning moved the score from %.3f to %.3f by %.3f", before, after, steps)
	}
	if again := m.Learn(f, 0, true); again >= steps {
		t.Errorf("what is known moved the model by %.3f, the first time %.3f", again, steps)
	} else {
		m.Unlearn(f, again, true)
	}
	m.Unlearn(f, steps, true)
	if after := m.Score(f, 0); math.Abs(after-before) > 1e-3 {
		t.Errorf("unlearning left the score at %.4f, it was %.4f", after, before)
	}
	if i := m.Info(); i.Bad != 50 {
		t.Errorf("the model counts %d bad, want 50", i.Bad)
	}
}

func TestFilesComeBack(t *testing.T) {
	t.Parallel()
	m := NewModel("test")
	es := corpus(t, 100, 7)
	m.Train(es, 1)
	m.Calibrate(Calibration{1.5, -0.25})
	var whole, small bytes.Buffer
	if err := m.Save(&whole); err != nil {
		t.Fatal(err)
	}
	if err := m.SaveSmall(&small); err != nil {
		t.Fatal(err)
	}
	if small.Len() > whole.Len()*9/10 {
		t.Errorf("the small file has %d bytes, the whole one %d", small.Len(), whole.Len())
	}
	for name, c := range map[string]struct {
		file  []byte
		apart float64
	}{"whole": {whole.Bytes(), 0}, "small": {small.Bytes(), 0.05}} {
		n, err := Load(bytes.NewReader(c.file))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if n.Calibration() != m.Calibration() || n.Info().Name != "test" || n.Info().Bad != 50 {
			t.Errorf("%s came back as %+v %+v", name, n.Info(), n.Calibration())
		}
		for i := range es {
			if a, b := m.ScoreExample(&es[i]), n.ScoreExample(&es[i]); math.Abs(a-b) > c.apart {
				t.Fatalf("%s: score %.4f came back as %.4f", name, a, b)
			}
		}
	}
}

func TestDamagedFilesAreRefused(t *testing.T) {
	t.Parallel()
	m := NewModel("test")
	m.Train(corpus(t, 40, 8), 1)
	var b bytes.Buffer
	if err := m.Save(&b); err != nil {
		t.Fatal(err)
	}
	good := b.Bytes()
	flip := func(at int) []byte {
		c := bytes.Clone(good)
		c[at] ^= 0x55
		return c
	}
	for name, file := range map[string][]byte{
		"empty": nil, "not a model": []byte("From: x\n\n"), "cut in the header": good[:40], "cut": good[:len(good)-20], "another version": flip(13),
		"damaged weights": flip(len(good) / 2), "damaged at the end": flip(len(good) - 8),
		"no end of header": append([]byte(magic), bytes.Repeat([]byte("x"), maxHeader+10)...),
		"other features":   bytes.Replace(good, fmt.Appendf(nil, `"features":%d`, featureVersion), []byte(`"features":999`), 1),
		"absurd figures":   bytes.Replace(good, []byte(`"a":1`), []byte(`"a":0`), 1),
		"bomb":             append([]byte(magic+"{}\n"), bytes.Repeat([]byte{0}, 1000)...),
	} {
		if _, err := Load(bytes.NewReader(file)); err == nil {
			t.Errorf("%s was read as a model", name)
		} else if !strings.Contains(err.Error(), "; ") {
			t.Errorf("%s: the error names no remedy: %v", name, err)
		} else if errors.Is(err, ErrOtherVersion) != (name == "other features") {
			t.Errorf("%s: it is told for another version's: %v", name, err)
		}
	}
}

func TestCalibrationFits(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(4, 4))
	var scores []float64
	var bad []bool
	for range 20000 {
		z := r.NormFloat64() * 3
		scores = append(scores, z)
		bad = append(bad, r.Float64() < Sigmoid(0.5*z-1))
	}
	if c := Fit(scores, bad); math.Abs(c.A-0.5) > 0.05 || math.Abs(c.B+1) > 0.1 {
		t.Errorf("fitted %+v, want 0.5 and -1", c)
	}
	if c := Fit([]float64{1, 2}, []bool{true, true}); c != (Calibration{A: 1}) {
		t.Errorf("from one kind alone it fitted %+v", c)
	}
}

func TestReasonsNameWords(t *testing.T) {
	t.Parallel()
	m := NewModel("test")
	m.Train(corpus(t, 200, 10), 1)
	f := NewFeatures()
	f.ExtractNamed(new(view.Reader).Read([]byte("Subject: hello\n\nthe jackpot goes to the winner")))
	var all []string
	for _, r := range m.Reasons(f, 4) {
		all = append(all, r.What)
	}
	if s := strings.Join(all, "; "); !strings.Contains(s, `text "jackpot"`) || !strings.Contains(s, `text "winner"`) {
		t.Errorf("reasons are %s", s)
	}
}

// TestTracesOfCollectionAreNotRead: two mails that differ only in what collecting and transport leave behind, or in what
// names one host or one day, have the same features.
func TestTracesOfCollectionAreNotRead(t *testing.T) {
	t.Parallel()
	const body = "\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nSubject: the minutes\n\nHello, the meeting of 12.03.2002 began at 10:45.\n"
	same := features2("From: Ann <ann@a.example>\nTo: rcpt-1@example.net\nDate: Mon, 1 Jan 2001 10:00:00 +0000\nMessage-ID: <1@a.example>" + body)
	for name, other := range map[string]string{
		"received":     "Received: from trap.example by corpus.example\nFrom: Ann <ann@a.example>\nTo: x@y.example" + body,
		"filters":      "X-Spam-Status: Yes, score=12\nX-Spam-Flag: YES\nX-MS-Exchange-Organization-SCL: 9\nAuthentication-Results: x; spf=fail\nFrom: Ann <ann@a.example>\nTo: x@y.example" + body,
		"dates":        "From: Ann <ann@a.example>\nTo: x@y.example\nDate: Fri, 5 May 2023 01:02:03 -0700" + body,
		"names of ids": "Message-ID: <abc@mail.corpus.example>\nDelivered-To: trap@corpus.example\nReturn-Path: <x@y.example>\nFrom: Ann <ann@a.example>\nTo: x@y.example" + body,
		"hosts":        "From: Ann <bob@b.example>\nTo: x@y.example" + body,
		"line ends":    strings.ReplaceAll("From: Ann <ann@a.example>\nTo: x@y.example"+body, "\n", "\r\n"),
		"years":        strings.ReplaceAll("From: Ann <ann@a.example>\nTo: x@y.example"+body, "2002", "2025"),
		"header order": "Subject: the minutes\nMIME-Version: 1.0\nTo: x@y.example\nContent-Type: text/plain; charset=utf-8\nFrom: Ann <ann@a.example>\n\nHello, the meeting of 12.03.2002 began at 10:45.\n",
	} {
		if got := features2(other); got != same {
			t.Errorf("%s: the features differ", name)
		}
	}
	if features2("From: Ann <ann@a.example>"+strings.Replace(body, "meeting", "jackpot", 1)) == same {
		t.Error("another text has the same features")
	}
}

func features2(mail string) string {
	f := NewFeatures()
	f.Extract(new(view.Reader).Read([]byte(mail)))
	sum := [views]uint64{}
	for v := range f.ids {
		for _, id := range f.ids[v] {
			sum[v] += uint64(id)*2654435761 ^ uint64(id)<<20
		}
	}
	return fmt.Sprint(sum, len(f.ids[0]), len(f.ids[1]))
}

func FuzzLoad(f *testing.F) {
	m := NewModel("x")
	m.weights[0][5], m.weights[1][1<<slotBits-1] = 1, -2
	var b bytes.Buffer
	if err := m.Save(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, err := Load(bytes.NewReader(data)); err == nil {
			if s := m.Score(features(t, "x"), 0); math.IsNaN(s) || math.IsInf(s, 0) {
				t.Errorf("score %v", s)
			}
		}
	})
}

func BenchmarkExtract10K(b *testing.B) {
	v := new(view.Reader).Read([]byte("Subject: minutes\n\n" + strings.Repeat("The committee met on Tuesday; costs were as said before, and nobody objected to the plan.\n", 115)))
	f := NewFeatures()
	b.ReportAllocs()
	for range b.N {
		f.Extract(v)
	}
}

// TestLetters: eight bytes at once are counted as one by one.
func TestLetters(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(9, 1))
	for range 20_000 {
		s := make([]byte, r.IntN(30))
		up, low := 0, 0
		for i := range s {
			s[i] = byte(r.Uint32())
			if r.IntN(2) > 0 {
				s[i] = "@AZ[`az{"[r.IntN(8)] | s[i]&0x80
			}
			if s[i] >= 'A' && s[i] <= 'Z' {
				up++
			} else if s[i] >= 'a' && s[i] <= 'z' {
				low++
			}
		}
		if u, l := letters(s); u != up || l != low {
			t.Fatalf("%q has %d capital and %d small letters, want %d and %d", s, u, l, up, low)
		}
	}
}
