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

// weights fits what the points of another program add to the odds, content held fixed, to a sample of the training split, and
// tells what the test split says of it.
func weights(w io.Writer, all []*letter, program string, only int) error {
	ask := map[string]func([]*letter, string) (map[string]float64, error){"spamassassin": assassinPoints}[program]
	if ask == nil {
		return fmt.Errorf("the program %q is not known; say spamassassin", program)
	}
	odds, err := unseenOdds(all)
	if err != nil {
		return err
	}
	sample := func(split string, each int) (out []opined, err error) {
		ms := append(some(pick(all, func(m *letter) bool { return m.split == split && m.headline && !m.bad }), each),
			some(pick(all, func(m *letter) bool { return m.split == split && m.headline && m.bad }), each)...)
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
	train, err := sample("train", only)
	if err != nil {
		return err
	}
	test, err := sample("test", only*2/3)
	if err != nil {
		return err
	}
	code := map[string]string{"spamassassin": "SPAMASSASSIN"}[program]
	best := fitWeight(train)
	fmt.Fprintf(w, "%s: of %d messages of the training split: %.2f a point, %.1f at most; shipped are %.2f and %.1f\n", code, len(train), best.PerPoint, best.Most,
		content.Weights[code].PerPoint, content.Weights[code].Most)
	for _, x := range []struct {
		name string
		of   content.Weight
	}{{"content alone", content.Weight{}}, {"as fitted", best}, {"0.5 a point, 1.5 at most", content.Weight{PerPoint: 0.5, Most: 1.5}}, {"0.5 a point, 1 at most", content.Weight{PerPoint: 0.5, Most: 1}},
		{"as shipped", content.Weights[code]}} {
		of := func(sample []opined) (rows []scored) {
			for _, o := range sample {
				z := o.odds + x.of.Of(told(o.points))
				rows = append(rows, scored{o.letter, z, learn.Sigmoid(z)})
			}
			return rows
		}
		for name, sample := range map[string][]opined{"train": train, "test": test} {
			s := summarise(of(sample))
			s.print(w, x.name+", "+name)
		}
		printCalibration(w, of(test))
	}
	return nil
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

// fitWeight returns the weight under which the labels are likeliest, both labels counting as in the corpus: two good to one bad.
func fitWeight(sample []opined) (best content.Weight) {
	good, bad := 0.0, 0.0
	for _, o := range sample {
		if o.bad {
			bad++
		} else {
			good++
		}
	}
	top := math.Inf(-1)
	for _, most := range []float64{1, 1.5, 2, 2.5, 3, 4} {
		for per := 0.0; per <= 1.2; per += 0.01 {
			w := content.Weight{PerPoint: per, Most: most}
			sum := 0.0
			for _, o := range sample {
				z := o.odds + w.Of(told(o.points))
				if o.bad {
					sum -= math.Log1p(math.Exp(-z)) / bad
				} else {
					sum -= 2 * math.Log1p(math.Exp(z)) / good
				}
			}
			if sum > top {
				top, best = sum, w
			}
		}
	}
	return best
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
