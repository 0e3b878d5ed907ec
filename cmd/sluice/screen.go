package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// screen prints tables and blocks for people.
type screen struct {
	out    io.Writer
	json   bool
	colour bool
	width  int // columns of the terminal; 0 where it is none: nothing is cut
	now    func() time.Time
	zone   *time.Location
}

const (
	red    = "31"
	green  = "32"
	yellow = "33"
	faint  = "2"
	bold   = "1"
)

// column is a column of a table.
type column struct {
	head  string
	right bool                     // figures stand at the right
	cut   bool                     // gives way first on a narrow terminal
	style func(text string) string // colour by content, nil for none
}

// table prints rows under their heads, aligned. On a terminal no line is longer than it is wide.
func (s *screen) table(cols []column, rows [][]string) {
	widths := make([]int, len(cols))
	for i, c := range cols {
		widths[i] = utf8.RuneCountInString(c.head)
	}
	for _, r := range rows {
		for i := range r {
			r[i] = plain(r[i])
			widths[i] = max(widths[i], utf8.RuneCountInString(r[i]))
		}
	}
	s.shrink(cols, widths)
	heads := make([]string, len(cols))
	for i, c := range cols {
		heads[i] = c.head
	}
	s.row(cols, widths, heads, true)
	for _, r := range rows {
		s.row(cols, widths, r, false)
	}
}

// shrink takes columns from those that give way until a line fits, the widest first.
func (s *screen) shrink(cols []column, widths []int) {
	const least = 8
	total := 2 * (len(cols) - 1)
	for _, w := range widths {
		total += w
	}
	for s.width > 0 && total > s.width {
		widest := -1
		for i, c := range cols {
			if c.cut && widths[i] > least && (widest < 0 || widths[i] > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			return
		}
		widths[widest]--
		total--
	}
}

func (s *screen) row(cols []column, widths []int, cells []string, head bool) {
	var b strings.Builder
	for i, c := range cols {
		text := shorten(cells[i], widths[i])
		pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text))
		styled := text
		switch {
		case head:
			styled = s.paint(bold, text)
		case c.style != nil:
			styled = s.paint(c.style(cells[i]), text)
		}
		if c.right {
			styled = pad + styled
		} else if i < len(cols)-1 {
			styled += pad
		}
		if i > 0 {
			b.WriteString("  ")
		}
		b.WriteString(styled)
	}
	fmt.Fprintln(s.out, strings.TrimRight(b.String(), " "))
}

// pairs prints a block of names and values, aligned. An empty name goes on with the value above; pairs without a value
// are left out.
func (s *screen) pairs(pairs ...[2]string) {
	w := 0
	for _, p := range pairs {
		w = max(w, utf8.RuneCountInString(p[0]))
	}
	for _, p := range pairs {
		if p[1] == "" {
			continue
		}
		name := p[0] + strings.Repeat(" ", w-utf8.RuneCountInString(p[0]))
		text := strings.ReplaceAll(p[1], "\n", "\n"+strings.Repeat(" ", w+2))
		fmt.Fprintf(s.out, "%s  %s\n", s.paint(bold, name), text)
	}
}

func (s *screen) say(format string, args ...any) { fmt.Fprintf(s.out, format+"\n", args...) }

func (s *screen) paint(code, text string) string {
	if !s.colour || code == "" || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (s *screen) writeJSON(v any) error {
	e := json.NewEncoder(s.out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// plain makes text safe for a terminal: what strangers sent must not move the cursor.
func plain(text string) string {
	if !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if unicode.IsPrint(r) && r != utf8.RuneError {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, "\\x%02x", r)
		}
	}
	return b.String()
}

func shorten(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	return string([]rune(text)[:width-1]) + "…"
}

// ago tells how long ago t was, or how long it is until then.
func (s *screen) ago(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return span(s.now().Sub(t).Abs())
}

// at tells a moment, without the day where it is today.
func (s *screen) at(t time.Time) string {
	t, now := t.In(s.zone), s.now().In(s.zone)
	if t.YearDay() == now.YearDay() && t.Year() == now.Year() {
		return t.Format("15:04:05")
	}
	return t.Format("2006-01-02 15:04:05")
}

// span tells a duration in its two largest units.
func span(d time.Duration) string {
	if d > time.Second {
		d = d.Round(time.Second)
	}
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return two(int(d.Minutes()), "min", int(d.Seconds())%60, "s")
	case d < 48*time.Hour:
		return two(int(d.Hours()), "h", int(d.Minutes())%60, "min")
	}
	return two(int(d.Hours())/24, "d", int(d.Hours())%24, "h")
}

func two(a int, ua string, b int, ub string) string {
	if b == 0 {
		return fmt.Sprintf("%d %s", a, ua)
	}
	return fmt.Sprintf("%d %s %d %s", a, ua, b, ub)
}

// size tells a number of bytes.
func size(n int64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}

// count tells a number with its noun.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// statusStyle colours the statuses of messages.
func statusStyle(status string) string {
	switch status {
	case "delivered":
		return green
	case "refused", "ambiguous", "lost":
		return red
	case "deferred", "withheld", "queued", "quarantined", "discarded":
		return yellow
	}
	return faint
}
