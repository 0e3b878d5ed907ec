package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"sluice/cmd/internal/api"
	"sluice/filter/content"
	"sluice/filter/content/learn"
	"sluice/proxy/durable"
)

// leastMails is how many messages of each kind make a model that is worth a look.
const leastMails = 20

// offline are the flags of training without a gateway.
type offline struct {
	on        bool
	ham, spam []string
	model     string
	small     bool
}

// trainOffline builds a model of two folders.
func (p *program) trainOffline(ctx context.Context, o *offline, stdin io.Reader) error {
	if len(o.ham) == 0 || len(o.spam) == 0 || o.model == "" {
		return usageError{errors.New("--offline wants --ham, --spam and --model")}
	}
	j := content.NewJudge(learn.NewModel(""))
	var es []learn.Example
	read := func(paths []string, bad bool) (n int, err error) {
		err = eachMail(paths, stdin, func(_ string, data []byte) error {
			es = append(es, j.Example(content.CRLF(data), bad, 1))
			n++
			return ctx.Err()
		})
		if err == nil && n < leastMails {
			err = fmt.Errorf("%v holds %d messages, and less than %d of a kind teach nothing; give more", paths, n, leastMails)
		}
		return n, err
	}
	good, err := read(o.ham, false)
	if err != nil {
		return err
	}
	bad, err := read(o.spam, true)
	if err != nil {
		return err
	}
	name := filepath.Base(o.model)
	m := content.Build(name, time.Now().UTC().Truncate(time.Second), nil, es)
	var out bytes.Buffer
	save := m.Save
	if o.small {
		save = m.SaveSmall
	}
	if err := save(&out); err != nil {
		return err
	}
	if err := durable.WriteFile(o.model, out.Bytes(), 0o644); err != nil {
		return fmt.Errorf("could not write the model: %w", err)
	}
	if p.screen.json {
		return p.screen.writeJSON(m.Info())
	}
	p.screen.say("%s: %d good and %d bad messages learnt, %d bytes", plain(o.model), good, bad, out.Len())
	return nil
}

func (p *program) trainCommand() *cobra.Command {
	var o offline
	source := ""
	cmd := &cobra.Command{
		Use: "train spam|ham PATH...", Short: "teach the content filter messages, or build a model from own mail",
		Long: `train teaches the running gateway's content filter that messages are spam, or ham (good mail): files, folders with all
below them, mailboxes (mbox), or - for the standard input. It learns at once. Each source of reports has a budget a day.

train --offline needs no gateway: it builds a model of good and bad mail and writes it to a file. The same messages make the
same model. sluice classify --model judges by it, and sluice model import brings it to a gateway.`,
		Example: "  sluice train spam reported.eml\n  sluice train ham --source desk released/\n  sluice train --offline --ham good/ --spam bad/ --model own.model",
		Args: func(cmd *cobra.Command, args []string) error {
			if o.on && len(args) > 0 {
				return fmt.Errorf("%q is too much: with --offline, --ham and --spam name the mail", args[0])
			}
			if !o.on && (len(args) < 2 || args[0] != "spam" && args[0] != "ham") {
				return fmt.Errorf("say spam or ham, and a PATH: %s", cmd.UseLine())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.on {
				return p.trainOffline(cmd.Context(), &o, cmd.InOrStdin())
			}
			path := "/v1/model/train?" + url.Values{"class": {args[0]}, "source": {source}}.Encode()
			return p.teach(cmd.Context(), path, args[1:], cmd.InOrStdin(), "learnt as "+args[0])
		},
	}
	cmd.Flags().BoolVar(&o.on, "offline", false, "build a model here, without a gateway")
	cmd.Flags().StringArrayVar(&o.ham, "ham", nil, "with --offline: `PATH` of good mail; may be given several times")
	cmd.Flags().StringArrayVar(&o.spam, "spam", nil, "with --offline: `PATH` of bad mail; may be given several times")
	cmd.Flags().StringVar(&o.model, "model", "", "with --offline: `FILE` to write")
	cmd.Flags().BoolVar(&o.small, "small", false, "with --offline: rounded weights, half the size")
	cmd.Flags().StringVar(&source, "source", "", "`NAME` of who says so, where it is not you: its budget is charged")
	return cmd
}

func (p *program) untrainCommand() *cobra.Command {
	return &cobra.Command{
		Use: "untrain PATH...", Short: "take back what the content filter has learnt of messages",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return fmt.Errorf("PATH is missing: %s", cmd.UseLine())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.teach(cmd.Context(), "/v1/model/untrain", args, cmd.InOrStdin(), "unlearnt")
		},
	}
}

// teach sends messages to the gateway one by one. Those that it knows already, or not at all, are counted and passed over.
func (p *program) teach(ctx context.Context, path string, paths []string, stdin io.Reader, done string) error {
	n, moved, passed := 0, 0, 0
	err := eachMail(paths, stdin, func(_ string, data []byte) error {
		var l api.Lesson
		err := p.client.Do(ctx, "POST", path, bytes.NewReader(data), &l)
		var problem *api.Problem
		if errors.As(err, &problem) && (problem.Code == "known" || problem.Code == "not-learnt") {
			passed++
			return nil
		}
		if err != nil {
			return err
		}
		if n++; l.Steps != 0 {
			moved++
		}
		return nil
	})
	if n+passed > 0 && !p.screen.json {
		p.screen.say("%s %s, %d of them changed the model; %d passed over", count(n, "message", "messages"), done, moved, passed)
	}
	if err == nil && p.screen.json {
		err = p.screen.writeJSON(map[string]int{"done": n, "changed": moved, "passed_over": passed})
	}
	return err
}
