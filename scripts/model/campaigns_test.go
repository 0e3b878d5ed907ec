package main

import (
	"math/rand/v2"
	"strings"
	"testing"

	"sluice/filter/content"
	"sluice/filter/content/shipped"
)

// TestBurstsOfMadeUpMail: of each made-up template a burst of one account, as the corpus's clusters are replayed by
// `make bench-campaign`: bad ones are held on day one, good ones pass.
func TestBurstsOfMadeUpMail(t *testing.T) {
	t.Parallel()
	m, err := shipped.Model()
	if err != nil {
		t.Fatal(err)
	}
	ts, err := templates()
	if err != nil {
		t.Fatal(err)
	}
	j, w := content.NewJudge(m), newWriter()
	var good []*letter
	for i := range ts {
		if !ts[i].bad {
			good = append(good, &letter{data: content.CRLF(w.mail(&ts[i]))})
		}
	}
	held, bad := 0, 0
	for i := range ts {
		var burst []*letter
		mail := string(content.CRLF(w.mail(&ts[i])))
		for range 12 {
			burst = append(burst, &letter{data: []byte(strings.Replace(mail, "Subject: ", "Subject: "+w.slot("n")+" "+w.slot("last")+", ", 1))})
		}
		passed := newStage(j, false).replay(burst, good, rand.New(rand.NewPCG(1, 2)))
		switch {
		case !ts[i].bad && passed != burstLength:
			t.Errorf("of a good burst (%s) only %d of %d copies passed", ts[i].name, passed, burstLength)
		case ts[i].bad:
			bad++
			if passed <= burstLength/3 {
				held++
			}
		}
	}
	if bad == 0 || held*4 < bad*3 {
		t.Errorf("%d of %d bad bursts were held", held, bad)
	}
}
