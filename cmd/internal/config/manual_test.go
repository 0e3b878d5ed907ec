package config

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// TestManual holds deploy/man/sluice.toml.5 equal to the tags of the struct.
func TestManual(t *testing.T) {
	golden(t, "../../../deploy/man/sluice.toml.5", manual())
}

// manual writes the page of the configuration file.
func manual() []byte {
	var b bytes.Buffer
	b.WriteString(`.\" Made from the keys' own descriptions; run ` + "`make generate`" + `.
.TH SLUICE.TOML 5
.SH NAME
sluice.toml \- configuration of sluiced and sluice\-intercept
.SH DESCRIPTION
.I /etc/sluice/sluice.toml
is a TOML file that both programs read. Keys that are left out have the default told here. Unknown keys are errors.
A single address may stand for a prefix. A time span is written like "90s", "60m", "1h30m" or "35d", a size like "64KiB",
"50MiB" or "1GiB".
.PP
.B sluiced \-check
says what is wrong with a file, by line and key, with a remedy. After a change,
.B systemctl reload sluice\-intercept sluiced
puts it in force as a whole, or not at all. Keys of [store], [dns], [log], [api] and [template] and the time\-outs
and tls_roots of [delivery] take effect with the next restart.
`)
	last := ""
	for _, k := range Keys() {
		if k.Table != last {
			fmt.Fprintf(&b, ".SH %s\n%s\n", escape(k.Table), escape(k.Intro))
			last = k.Table
		}
		if k.Name != "" {
			fmt.Fprintf(&b, ".TP\n.BR %s \" (%s)\"\n%s\n", escape(k.Name), escape(strings.ReplaceAll(k.facts(), `"`, "")), escape(k.Doc))
		}
	}
	b.WriteString(".SH SEE ALSO\n.BR sluiced (8),\n.BR sluice\\-intercept (8),\n.BR sluice (8)\n")
	return b.Bytes()
}

// escape writes text as troff shows it; a line that begins like a macro would not be shown.
func escape(text string) string {
	text = strings.ReplaceAll(strings.ReplaceAll(text, `\`, `\\`), "-", `\-`)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		return `\&` + text
	}
	return text
}
