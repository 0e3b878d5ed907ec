package main

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"testing"

	"sluice/cmd/internal/config"
)

// TestLearntByAnotherVersion: what another version of the filter learnt stops no start and is not lost; what is damaged stops it.
func TestLearntByAnotherVersion(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var log bytes.Buffer
	open := func() (*schoolFile, error) {
		return openSchool(dir, &config.Content{Lessons: 10}, slog.New(slog.NewTextHandler(&log, nil)))
	}
	f, err := open()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := f.Save(&b); err != nil {
		t.Fatal(err)
	}
	old := regexp.MustCompile(`"features":[0-9]+`).ReplaceAll(b.Bytes(), []byte(`"features":999`))
	if err := os.WriteFile(f.path, old, 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := open()
	if err != nil || again.Judge().Model().Info().Name != f.Judge().Model().Info().Name {
		t.Fatalf("with another version's model: %v", err)
	}
	if kept, err := os.ReadFile(f.path + ".old"); err != nil || !bytes.Equal(kept, old) {
		t.Errorf("it was not set aside whole: %v", err)
	}
	if _, err := os.Stat(f.path); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(log.String(), "learned.model.old") {
		t.Errorf("stat %v, log %s", err, log.String())
	}
	if err := os.WriteFile(f.path, bytes.Replace(b.Bytes(), []byte("sluice"), []byte("slvice"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open(); err == nil || !strings.Contains(err.Error(), "; ") {
		t.Errorf("with a damaged file: %v", err)
	}
}
