package acme

import (
	"context"
	"log/slog"

	"go.uber.org/zap/zapcore"
)

// core writes what the library notes into our log: a note of it is a detail of ours, and no error of it is more than a warning,
// since each comes back as the cause of a failed order.
type core struct{ to *slog.Logger }

func level(l zapcore.Level) slog.Level {
	if l >= zapcore.WarnLevel {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// Enabled tells whether our log takes what has this level.
func (c core) Enabled(l zapcore.Level) bool { return c.to.Enabled(context.Background(), level(l)) }

// With is the same with some fields for each entry.
func (c core) With(fields []zapcore.Field) zapcore.Core {
	return core{c.to.With(attributes(fields)...)}
}

// Check has the entry written where it is wanted.
func (c core) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

// Write writes an entry.
func (c core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	c.to.Log(context.Background(), level(e.Level), "acme: "+e.Message, attributes(fields)...)
	return nil
}

// Sync has nothing to do: our log keeps nothing back.
func (core) Sync() error { return nil }

// attributes are the fields by their names.
func attributes(fields []zapcore.Field) []any {
	m := zapcore.NewMapObjectEncoder()
	names := make([]string, 0, len(fields))
	for _, f := range fields {
		f.AddTo(m)
		names = append(names, f.Key)
	}
	var as []any
	for _, n := range names {
		if v, ok := m.Fields[n]; ok {
			as = append(as, slog.Any(n, v))
		}
	}
	return as
}
