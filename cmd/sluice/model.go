package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/cmd/internal/api"
	"sluice/proxy/durable"
)

func (p *program) modelCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "model", Short: "show and change the model of the content filter", Args: none,
		Long: `model shows by what the content filter judges, and what that is worth on this network. With content.learned = "auto" what was
learnt refuses nothing until it has taken 5,000 messages for good, and no more than 0.02 % beside them are kinds of messages
that it would have refused and that nobody has called bad. Those are listed: sluice log --id shows them, sluice model doubt
settles them.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.showModel(cmd.Context(), "GET", "/v1/model", nil) },
	}
	export := &cobra.Command{
		Use: "export FILE", Short: "write the model in use to a file", Args: exactly("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var b bytes.Buffer
			if err := p.client.Fetch(cmd.Context(), "/v1/model/file", &b); err != nil {
				return err
			}
			if err := durable.WriteFile(args[0], b.Bytes(), 0o644); err != nil {
				return fmt.Errorf("could not write the model: %w", err)
			}
			return nil
		},
	}
	now := false
	imported := &cobra.Command{
		Use: "import FILE", Short: "put the model in a file in shadow, beside the one in use", Args: exactly("FILE"),
		Long: `import puts another model in shadow: it judges all mail beside the one in use, and decides about none. sluice model shadow
compares them; sluice model use puts it into use, with what it has proved until then.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := os.ReadFile(args[0])
			if err != nil {
				return fmt.Errorf("could not read the model: %w", err)
			}
			path := "/v1/model/file"
			if now {
				path += "?now=1"
			}
			return p.showModel(cmd.Context(), "PUT", path, bytes.NewReader(b))
		},
	}
	imported.Flags().BoolVar(&now, "now", false, "put it in the place of the one in use at once; it has to prove itself before it refuses anything")
	list := &cobra.Command{
		Use: "list", Short: "list the models: in use, in shadow, before, shipped", Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.listModels(cmd.Context()) },
	}
	drop := false
	shadow := &cobra.Command{
		Use: "shadow", Short: "compare the model in shadow with the one in use, or end the shadow", Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if drop {
				return p.showModel(cmd.Context(), "DELETE", "/v1/model/shadow", nil)
			}
			return p.showShadow(cmd.Context())
		},
	}
	shadow.Flags().BoolVar(&drop, "drop", false, "end the shadow; the model in use stays")
	use := &cobra.Command{
		Use: "use [shadow|shipped]", Short: "put the model in shadow, or the shipped one, into use", ValidArgs: []string{"shadow", "shipped"}, Args: cobra.MatchAll(cobra.MaximumNArgs(1), cobra.OnlyValidArgs),
		Long: `use puts the model in shadow into use with all that it has proved here: where it has proved enough it refuses at once. The
shipped model begins anew. sluice model back undoes it.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			which := "shadow"
			if len(args) > 0 {
				which = args[0]
			}
			return p.showModel(cmd.Context(), "POST", "/v1/model/use?model="+which, nil)
		},
	}
	back := &cobra.Command{
		Use: "back", Short: "go back to the model before the last import, or before the day's first lesson", Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.showModel(cmd.Context(), "POST", "/v1/model/back", nil)
		},
	}
	doubt := &cobra.Command{
		Use: "doubt ID spam|ham", Short: "say whether a message that would have been refused was spam",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 || args[1] != "spam" && args[1] != "ham" {
				return fmt.Errorf("say the ID of a message, and spam or ham: %s", cmd.UseLine())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.showModel(cmd.Context(), "POST", "/v1/model/doubts", api.Verdict{ID: args[0], Bad: args[1] == "spam"})
		},
	}
	cmd.AddCommand(list, shadow, use, export, imported, back, doubt)
	return cmd
}

// showModel makes a request that is answered by the model, and prints it.
func (p *program) showModel(ctx context.Context, method, path string, in any) error {
	var m api.Model
	if err := p.client.Do(ctx, method, path, in, &m); err != nil {
		return err
	}
	if p.screen.json {
		return p.screen.writeJSON(m)
	}
	p.screen.model(&m)
	return nil
}

func (s *screen) model(m *api.Model) {
	built := ""
	if !m.Built.IsZero() {
		built = ", built " + m.Built.Format(time.DateOnly)
	}
	s.say("model      %s%s: %d good and %d bad messages learnt, %s here", plain(m.Name), built, m.Good, m.Bad, count(m.Lessons, "lesson", "lessons"))
	if len(m.From) > 0 {
		s.say("from       %s", plain(strings.Join(m.From, ", ")))
	}
	if m.Shadow != nil {
		s.say("shadow     %s; `sluice model shadow` compares them", plain(m.Shadow.Name))
	}
	if m.Previous != "" {
		s.say("before     %s; `sluice model back` puts it back", plain(m.Previous))
	}
	switch {
	case m.Learned == "always":
		s.say("learned    refuses at once (content.learned is always)")
	case m.Learned == "off":
		s.say("learned    does not look at messages (content.learned is off)")
	case m.Learned == "never":
		s.say("learned    only says what it would do (content.learned is never)")
	case m.Acting:
		s.say("learned    %s", s.paint(green, "refuses: it has proved itself here"))
	default:
		s.say("learned    only says what it would do: it lacks: %s", plain(m.Missing))
	}
	s.say("here       %s taken for good; %s taken for spam that people called good", count(int(m.Taken), "message", "messages"), count(int(m.Wrong), "kind", "kinds"))
	if len(m.Doubts) == 0 {
		return
	}
	s.say("")
	var rows [][]string
	for _, d := range m.Doubts {
		rows = append(rows, []string{d.ID, s.at(d.At), fmt.Sprint(d.Count), fmt.Sprintf("%.4f", d.Probability)})
	}
	s.table([]column{{head: "WOULD HAVE BEEN REFUSED"}, {head: "FIRST"}, {head: "COPIES", right: true}, {head: "PROBABILITY", right: true}}, rows)
}
