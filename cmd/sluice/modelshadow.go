package main

import (
	"context"
	"fmt"

	"sluice/cmd/internal/api"
	"sluice/filter/content/shipped"
)

// showShadow compares the model in shadow with the one in use.
func (p *program) showShadow(ctx context.Context) error {
	var m api.Model
	if err := p.client.Do(ctx, "GET", "/v1/model", nil, &m); err != nil {
		return err
	}
	if p.screen.json {
		return p.screen.writeJSON(m.Shadow)
	}
	if m.Shadow == nil {
		p.screen.say("no model is in shadow; `sluice model import FILE` puts one there")
		return nil
	}
	p.screen.shadow(&m)
	return nil
}

func (s *screen) shadow(m *api.Model) {
	x := m.Shadow
	s.say("in use     %s", plain(m.Name))
	s.say("shadow     %s: %d good and %d bad messages learnt, %s here, since %s", plain(x.Name), x.Good, x.Bad, count(x.Lessons, "lesson", "lessons"), s.at(x.Since))
	s.say("judged     %s beside the one in use", count(int(x.Judged), "message", "messages"))
	s.say("spam       %d by both, %d by it alone, %d by the one in use alone", x.Both, x.Alone, x.MissedBy)
	if x.Ready {
		s.say("ready      %s", s.paint(green, "it may refuse as soon as it is in use: sluice model use"))
	} else {
		s.say("ready      not yet: it lacks: %s", plain(x.Missing))
	}
	if len(x.Doubts) == 0 {
		return
	}
	s.say("")
	var rows [][]string
	for _, d := range x.Doubts {
		rows = append(rows, []string{d.ID, s.at(d.At), fmt.Sprint(d.Count), fmt.Sprintf("%.4f", d.Probability)})
	}
	s.table([]column{{head: "IT WOULD HAVE REFUSED"}, {head: "FIRST"}, {head: "COPIES", right: true}, {head: "PROBABILITY", right: true}}, rows)
}

// listedModel is one line of the list of models.
type listedModel struct {
	Place string `json:"place"` // use, shadow, before, shipped
	Name  string `json:"name"`
}

// listModels lists the models that there are to use.
func (p *program) listModels(ctx context.Context) error {
	var m api.Model
	if err := p.client.Do(ctx, "GET", "/v1/model", nil, &m); err != nil {
		return err
	}
	brought, err := shipped.Model()
	if err != nil {
		return err
	}
	all := []listedModel{{"use", m.Name}}
	if m.Shadow != nil {
		all = append(all, listedModel{"shadow", m.Shadow.Name})
	}
	if m.Previous != "" {
		all = append(all, listedModel{"before", m.Previous})
	}
	all = append(all, listedModel{"shipped", brought.Info().Name})
	if p.screen.json {
		return p.screen.writeJSON(all)
	}
	var rows [][]string
	for _, l := range all {
		rows = append(rows, []string{l.Place, plain(l.Name)})
	}
	p.screen.table([]column{{head: "PLACE"}, {head: "MODEL"}}, rows)
	return nil
}
