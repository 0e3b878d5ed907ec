package demo

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// report prints the demo as it goes and remembers whether all of it was true.
type report struct {
	out    io.Writer
	start  time.Time
	failed []string
	colour bool
}

func newReport(out io.Writer) *report {
	r := &report{out: out, start: time.Now()}
	if f, ok := out.(*os.File); ok && os.Getenv("NO_COLOR") == "" {
		info, err := f.Stat()
		r.colour = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return r
}

func (r *report) chapter(title string) {
	fmt.Fprintf(r.out, "\n%s  %s\n", r.paint("1", title), r.paint("2", fmt.Sprintf("(%.0f s)", time.Since(r.start).Seconds())))
}

func (r *report) say(format string, args ...any) { fmt.Fprintf(r.out, "    "+format+"\n", args...) }

// quote shows what a program printed or a server said.
func (r *report) quote(text string) {
	for line := range strings.Lines(strings.TrimRight(text, "\n")) {
		fmt.Fprintf(r.out, "      %s %s\n", r.paint("2", "│"), strings.TrimRight(line, "\r\n"))
	}
}

// check states one fact that must hold. The detail says what was seen.
func (r *report) check(ok bool, fact, detail string, args ...any) {
	mark := r.paint("32", "✓")
	if !ok {
		mark = r.paint("31", "✗")
		r.failed = append(r.failed, fact)
	}
	line := fmt.Sprintf("  %s %s", mark, fact)
	if seen := fmt.Sprintf(detail, args...); seen != "" {
		line += r.paint("2", "  — "+seen)
	}
	fmt.Fprintln(r.out, line)
}

// end says what the whole comes to.
func (r *report) end() error {
	fmt.Fprintln(r.out)
	if len(r.failed) > 0 {
		return fmt.Errorf("%d of the demo's facts did not hold:\n  %s", len(r.failed), strings.Join(r.failed, "\n  "))
	}
	fmt.Fprintf(r.out, "%s All of it was true, in %.0f s.\n", r.paint("32", "✓"), time.Since(r.start).Seconds())
	return nil
}

func (r *report) paint(code, text string) string {
	if !r.colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}
