package textlog

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

func TestTimeStandsOnlyWhereTheJournalHasNone(t *testing.T) {
	for _, stream := range []string{"", "8:1234"} {
		t.Setenv("JOURNAL_STREAM", stream)
		var b bytes.Buffer
		log := New(&b, slog.LevelInfo)
		log.Info("ready", "version", "1", slog.Group("of", "time", "kept"))
		log.Debug("not wanted")
		got := b.String()
		if strings.Contains(got, " of.time=kept\n") && strings.HasPrefix(got, "time=") == (stream == "") && strings.Count(got, "\n") == 1 {
			continue
		}
		t.Errorf("with JOURNAL_STREAM=%q: %q", stream, got)
	}
}
