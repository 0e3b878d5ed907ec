package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"sluice/filter/content"
	"sluice/filter/content/learn"
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
	if err := replaceFile(o.model, out.Bytes()); err != nil {
		return err
	}
	if p.screen.json {
		return p.screen.writeJSON(m.Info())
	}
	p.screen.say("%s: %d good and %d bad messages learnt, %d bytes", plain(o.model), good, bad, out.Len())
	return nil
}

// replaceFile writes a file whole or not at all.
func replaceFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return fmt.Errorf("could not write the model: %w", err)
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("could not write the model: %w", err), os.Remove(f.Name()))
	}
	return nil
}

func (p *program) trainCommand() *cobra.Command {
	var o offline
	cmd := &cobra.Command{
		Use: "train --offline", Short: "build a model from good and bad mail, without a gateway",
		Long: `train --offline builds a model of the content filter from mail of your own: files, folders with all below them, or
mailboxes. The same messages make the same model. sluice classify --model judges by it.`,
		Example: "  sluice train --offline --ham good/ --spam bad/ --model own.model",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !o.on {
				return usageError{errors.New("say --offline, with --ham, --spam and --model")}
			}
			return p.trainOffline(cmd.Context(), &o, cmd.InOrStdin())
		},
	}
	cmd.Flags().BoolVar(&o.on, "offline", false, "build a model here, without a gateway")
	cmd.Flags().StringArrayVar(&o.ham, "ham", nil, "`PATH` of good mail; may be given several times")
	cmd.Flags().StringArrayVar(&o.spam, "spam", nil, "`PATH` of bad mail; may be given several times")
	cmd.Flags().StringVar(&o.model, "model", "", "`FILE` to write")
	cmd.Flags().BoolVar(&o.small, "small", false, "rounded weights: half the size")
	return cmd
}
