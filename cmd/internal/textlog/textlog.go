// Package textlog makes the text log of a program that writes to the journal or to a terminal.
package textlog

import (
	"io"
	"log/slog"
	"os"
)

// New writes text lines to w; under the journal without the time, which the journal has itself.
func New(w io.Writer, level slog.Level) *slog.Logger {
	under := os.Getenv("JOURNAL_STREAM") != ""
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if under && len(groups) == 0 && a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}
