package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"sluice/filter/content"
	"sluice/filter/content/learn"
)

// opined is a message with what its content says, by a model that did not see it, and what another program says.
type opined struct {
	*letter
	odds, points float64
}

// programs are those whose points can be fitted, and how many messages of either label each is asked about: 0 for all.
var programs = []struct {
	code string
	most func(each int) int
	ask  func(ms []*letter, dir string) (map[string]float64, error)
}{
	{"SPAMASSASSIN", func(each int) int { return each }, assassinPoints},
	{"RSPAMD", func(int) int { return math.MaxInt }, rspamdPoints},
}

// weights fits what the points of other programs add to the odds, content held fixed, to the training split, and tells what
// the test split says of it. A program that is not there is said so.
func weights(w io.Writer, all []*letter, each int) error {
	odds, err := unseenOdds(all)
	if err != nil {
		return err
	}
	for _, p := range programs {
		train, err := sample(all, "train", p.most(each), odds, p.ask)
		if err != nil {
			fmt.Fprintf(w, "%s: not measured: %v\n", p.code, err)
			continue
		}
		test, err := sample(all, "test", p.most(each*2/3), odds, p.ask)
		if err != nil {
			return err
		}
		printWeights(w, p.code, train, test)
	}
	return nil
}

// sample has a program judge messages of a split, at most so many of either label, spread over it.
func sample(all []*letter, split string, most int, odds map[*letter]float64, ask func([]*letter, string) (map[string]float64, error)) (out []opined, err error) {
	of := func(bad bool) []*letter {
		return some(pick(all, func(m *letter) bool { return m.split == split && m.headline && m.bad == bad }), most)
	}
	ms := append(of(false), of(true)...)
	dir, err := os.MkdirTemp("", "weights")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) //nolint // what is left is in the folder for temporary files
	points, err := ask(ms, dir)
	for _, m := range ms {
		if p, ok := points[m.file]; ok {
			out = append(out, opined{m, odds[m], p})
		}
	}
	return out, err
}

// printWeights prints what weights are worth: the shipped one, the one that fits best, and the one that does so among those under
// which no good message more is called spam.
func printWeights(w io.Writer, code string, train, test []opined) {
	shipped := content.Weights[code]
	called := calledSpam(train, content.Weight{})
	free := fitWeight(train, func(content.Weight) bool { return true })
	sparing := fitWeight(train, func(w content.Weight) bool { return calledSpam(train, w) <= called })
	fmt.Fprintf(w, "%s: fitted to %d messages of the training split, measured on %d of the test split\n", code, len(train), len(test))
	for _, x := range []struct {
		name string
		of   content.Weight
	}{{"content alone", content.Weight{}}, {"as shipped", shipped}, {"as fitted, sparing good mail", sparing}, {"as fitted", free}} {
		for _, split := range []struct {
			name   string
			sample []opined
		}{{"train", train}, {"test", test}} {
			var rows []scored
			for _, o := range split.sample {
				z := o.odds + x.of.Of(told(o.points))
				rows = append(rows, scored{o.letter, z, learn.Sigmoid(z)})
			}
			s := summarise(rows)
			s.print(w, fmt.Sprintf("%s (%.2f a point, %.1f at most), %s", x.name, x.of.PerPoint, x.of.Most, split.name))
			fmt.Fprintf(w, "%-34s %.4f bits of surprise a message, two good to one bad\n", "", surprise(split.sample, x.of))
			if split.name == "test" {
				printCalibration(w, rows)
			}
		}
	}
}

// some returns at most n of all, spread over them.
func some(all []*letter, n int) (out []*letter) {
	for i := range min(n, len(all)) {
		out = append(out, all[i*len(all)/min(n, len(all))])
	}
	return out
}

// unseenOdds are what the shipped model says of each message, as one that did not see it would: of those that it learnt, by
// cross-validation.
func unseenOdds(all []*letter) (map[*letter]float64, error) {
	j := content.NewJudge(learn.NewModel(""))
	prepare(all, j)
	m, err := shippable(all, j)
	if err != nil {
		return nil, err
	}
	c := m.Calibration()
	odds := map[*letter]float64{}
	for _, l := range all {
		odds[l] = c.A*m.ScoreExample(&l.example) + c.B
	}
	learnt := pick(all, func(l *letter) bool { return l.split == "train" && free[l.source] })
	for i, z := range learn.CrossValidate(examplesOf(learnt, func(*letter) bool { return true }), 7) {
		odds[learnt[i]] = c.A*z + c.B
	}
	return odds, nil
}

// fitWeight returns the weight, of those that are allowed, under which the labels surprise least.
func fitWeight(sample []opined, allowed func(content.Weight) bool) (best content.Weight) {
	least := math.Inf(1)
	for most := 0.25; most <= 4; most += 0.25 {
		for per := 0.0; per <= 1.2; per += 0.02 {
			w := content.Weight{PerPoint: per, Most: most}
			if s := surprise(sample, w); s < least && allowed(w) {
				least, best = s, w
			}
		}
	}
	return best
}

// calledSpam counts the good messages that are called spam.
func calledSpam(sample []opined, w content.Weight) (n int) {
	for _, o := range sample {
		if !o.bad && learn.Sigmoid(o.odds+w.Of(told(o.points))) >= content.DefaultThresholds.Spam {
			n++
		}
	}
	return n
}

// surprise is the mean cross entropy of the labels in bits, both labels counting as in the corpus: two good to one bad.
func surprise(sample []opined, w content.Weight) float64 {
	var sum, n [2]float64
	for _, o := range sample {
		z := o.odds + w.Of(told(o.points))
		k := 0
		if o.bad {
			k, z = 1, -z
		}
		sum[k] += math.Log1p(math.Exp(z)) / math.Ln2
		n[k]++
	}
	return (2*sum[0]/max(1, n[0]) + sum[1]/max(1, n[1])) / 3
}

// told are the points of an opinion that is told: from one on.
func told(p float64) float64 {
	if p < 1 {
		return 0
	}
	return p
}

// assassin scores files named on its standard input, one process for all of them, with the rules that need no network.
const assassin = `use Mail::SpamAssassin;
my $sa = Mail::SpamAssassin->new({local_tests_only => 1, dont_copy_prefs => 1, userprefs_filename => "/dev/null"});
while (my $f = <STDIN>) {
  chomp $f;
  open(my $in, "<", $f) or die "$f: $!";
  my $text = do { local $/; <$in> };
  my $mail = $sa->parse($text);
  my $said = $sa->check($mail);
  print $f, "\t", $said->get_score(), "\n";
  $said->finish(); $mail->finish();
}
`

func assassinPoints(ms []*letter, dir string) (map[string]float64, error) {
	var names bytes.Buffer
	for _, m := range ms {
		p := filepath.Join(dir, m.file)
		if err := os.WriteFile(p, m.data, 0o600); err != nil {
			return nil, err
		}
		fmt.Fprintln(&names, p)
	}
	cmd := exec.Command("perl", "-e", assassin)
	cmd.Stdin = &names
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("could not ask SpamAssassin: %w; install the package spamassassin", err)
	}
	all := map[string]float64{}
	for sc := bufio.NewScanner(bytes.NewReader(out)); sc.Scan(); {
		name, score, _ := strings.Cut(sc.Text(), "\t")
		if v, err := strconv.ParseFloat(score, 64); err == nil {
			all[filepath.Base(name)] = v
		}
	}
	return all, nil
}
