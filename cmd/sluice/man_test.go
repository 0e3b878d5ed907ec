package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

//go:generate go test -run TestManual -update

var update = flag.Bool("update", false, "write the golden files and the manual anew")

// TestManual holds deploy/man/sluice.8 equal to what the commands say of themselves.
func TestManual(t *testing.T) {
	p := &program{screen: &screen{}, socket: defaultSocket}
	t.Setenv("SLUICE_SOCKET", "")
	t.Setenv("SLUICE_CONFIG", "")
	golden(t, "../../deploy/man/sluice.8", manual(p.root()))
}

// manual writes the page of a command with all its subcommands.
func manual(root *cobra.Command) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, ".\\\" Made from the command's own help; run `make generate`.\n.TH SLUICE 8\n.SH NAME\nsluice \\- %s\n", roff(root.Short))
	b.WriteString(".SH SYNOPSIS\n.B sluice\n.RI [ options ] \" command \" [ arguments ]\n.SH DESCRIPTION\n")
	paragraphs(&b, root.Long)
	b.WriteString(".SH OPTIONS\n")
	options(&b, root.PersistentFlags())
	b.WriteString(".SH COMMANDS\n")
	for _, c := range root.Commands() {
		commands(&b, c)
	}
	b.WriteString(".SH FILES\n.TP\n.I /run/sluice/api.sock\nsocket of the API\n.TP\n.I /etc/sluice/sluice.toml\nconfiguration, which \\fBsluice doctor\\fR compares the host with\n" +
		".SH ENVIRONMENT\n.TP\n.B SLUICE_SOCKET\nsocket of the API\n.TP\n.B SLUICE_CONFIG\nconfiguration, where \\-\\-config says none\n.TP\n.B SLUICE_TOKEN\ntoken that says what may be done (sluice token)\n.TP\n.B NO_COLOR\nno colours\n.SH SEE ALSO\n.BR sluiced (8),\n.BR sluice-intercept (8),\n.BR sluice-observe (8),\n.BR sluice.toml (5)\n")
	return b.Bytes()
}

func commands(b *bytes.Buffer, c *cobra.Command) {
	if c.Hidden || c.Name() == "help" || c.Name() == "completion" {
		return
	}
	if c.Runnable() {
		fmt.Fprintf(b, ".SS %s\n", roff(strings.TrimSuffix(c.UseLine(), " [flags]")))
		long := c.Long
		if long == "" {
			long = strings.ToUpper(c.Short[:1]) + c.Short[1:] + "."
		}
		paragraphs(b, long)
		options(b, c.LocalNonPersistentFlags())
		if c.Example != "" {
			fmt.Fprintf(b, ".PP\n.nf\n.RS\n%s\n.RE\n.fi\n", roff(c.Example))
		}
	}
	for _, sub := range c.Commands() {
		commands(b, sub)
	}
}

func paragraphs(b *bytes.Buffer, text string) {
	for i, p := range strings.Split(text, "\n\n") {
		if i > 0 {
			b.WriteString(".PP\n")
		}
		fmt.Fprintf(b, "%s\n", roff(p))
	}
}

func options(b *bytes.Buffer, fs *pflag.FlagSet) {
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Name == "help" || f.Hidden {
			return
		}
		name, usage := pflag.UnquoteUsage(f)
		flags := "\\-\\-" + roff(f.Name)
		if f.Shorthand != "" {
			flags = "\\-" + f.Shorthand + ", " + flags
		}
		if !slices.Contains([]string{"", "false", "[]", "0"}, f.DefValue) {
			usage += " (" + f.DefValue + " unless told)"
		}
		fmt.Fprintf(b, ".TP\n.BI \"%s \" %s\n%s\n", flags, roff(name), roff(usage))
	})
}

// roff escapes what troff would take for its own.
func roff(text string) string {
	text = strings.ReplaceAll(text, `\`, `\\`)
	text = strings.ReplaceAll(text, "-", `\-`)
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") || strings.HasPrefix(l, "'") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}

func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not current (run `make generate` and look at the difference); got\n%s", file, got)
	}
}
