package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"sluice/filter"
	"sluice/filter/content"
	"sluice/filter/content/learn"
	"sluice/filter/content/shipped"
	"sluice/filter/message"
)

// classified is what `sluice classify` prints about one message.
type classified struct {
	Path         string          `json:"path"`
	Class        string          `json:"class"` // clean, unsure, spam, phish or virus
	Probability  float64         `json:"probability"`
	Hits         []classifiedHit `json:"hits"`
	Microseconds float64         `json:"microseconds"`
}

type classifiedHit struct {
	Code     string  `json:"code"`
	Points   float64 `json:"points"`
	Text     string  `json:"text"`
	Evidence string  `json:"evidence"`
}

func (p *program) classifyCommand() *cobra.Command {
	file := ""
	t := content.DefaultThresholds
	cmd := &cobra.Command{
		Use: "classify PATH...", Short: "judge messages by their content, without a gateway",
		Long: `classify judges messages as the gateway's content filter would, and needs no running gateway.
A PATH is a file, a folder with all below it, a mailbox (mbox), or - for the standard input. With --json each message is
one JSON object on a line: path, class (clean, unsure, spam, phish, virus), probability that it is bad, hits with their
points (logarithm of odds) and evidence, and the microseconds that the judgement took.`,
		Example: "  sluice classify message.eml\n  sluice classify --json --model own.model Maildir/\n  cat mbox | sluice classify -",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return fmt.Errorf("PATH is missing: %s", cmd.UseLine())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if !(t.Unsure > 0 && t.Unsure <= t.Spam && t.Spam <= 1) {
				return usageError{fmt.Errorf("--unsure %g and --spam %g make no sense: both lie between 0 and 1, unsure not above spam", t.Unsure, t.Spam)}
			}
			m, err := openModel(file)
			if err != nil {
				return err
			}
			c := classifier{judge: content.NewJudge(m), marks: content.NewMarks(), thresholds: t}
			e := json.NewEncoder(p.screen.out)
			e.SetEscapeHTML(false)
			return eachMail(args, cmd.InOrStdin(), func(path string, data []byte) error {
				r := c.classify(cmd.Context(), path, content.CRLF(data))
				if p.screen.json {
					return e.Encode(r)
				}
				p.screen.classified(r)
				return cmd.Context().Err()
			})
		},
	}
	cmd.Flags().StringVar(&file, "model", "", "judge by the model in this `FILE` instead of the one that the program brings")
	cmd.Flags().Float64Var(&t.Unsure, "unsure", t.Unsure, "`probability` from which a message is unsure")
	cmd.Flags().Float64Var(&t.Spam, "spam", t.Spam, "`probability` from which a message is spam")
	return cmd
}

// openModel reads a model's file, or the shipped model where there is none.
func openModel(file string) (*learn.Model, error) {
	if file == "" {
		return shipped.Model()
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("could not read the model: %w", err)
	}
	m, err := learn.Load(f)
	if err != nil {
		err = fmt.Errorf("could not read the model %s: %w", file, err)
	}
	return m, errors.Join(err, f.Close())
}

// classifier judges as the gateway does: agreed texts first, then rules and what was learnt.
type classifier struct {
	judge      *content.Judge
	marks      *content.Marks
	thresholds content.Thresholds
}

func (c *classifier) classify(ctx context.Context, path string, data []byte) *classified {
	began := time.Now()
	marks := c.marks.Check(ctx, filter.Data, &message.Message{Data: data}, nil)
	o := c.judge.Judge(data, c.thresholds, c.thresholds.Unsure)
	r := &classified{Path: path, Class: o.Name(c.thresholds), Probability: o.Probability, Microseconds: float64(time.Since(began).Nanoseconds()) / 1000}
	worst := filter.Clean
	for i := range marks {
		if worst = max(worst, marks[i].Class); worst != filter.Clean {
			r.Class, r.Probability = worst.String(), 1
		}
	}
	r.Hits = []classifiedHit{}
	for _, h := range o.Hits(c.judge.Model().Info().Name, marks) {
		r.Hits = append(r.Hits, classifiedHit{h.Code, h.Points, h.Text, h.Evidence})
	}
	return r
}

// classified prints one line, and what speaks against the message below it.
func (s *screen) classified(r *classified) {
	style := green
	switch r.Class {
	case "clean":
	case "unsure":
		style = yellow
	default:
		style = red
	}
	s.say("%s %.4f  %s", s.paint(style, fmt.Sprintf("%-6s", r.Class)), r.Probability, plain(r.Path))
	for _, h := range r.Hits {
		s.say("       %+5.1f  %s: %s", h.Points, h.Code, plain(h.Evidence))
	}
}
