package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"sluice/filter/limit"
)

func TestCountsAreKeptByAKilledProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key := limit.Key{User: 7, What: limit.Messages, Window: time.Hour}
	open := func(want int) *countsFile {
		t.Helper()
		c, err := openCounts(dir, limit.NewCounts(0))
		if err != nil {
			t.Fatal(err)
		}
		if n, _ := c.counts.Count(key); n != want {
			t.Fatalf("%d are restored, want %d", n, want)
		}
		return c
	}
	c := open(0)
	for range 3 {
		c.counts.Settle(key, 0, 5)
		if err := c.save(); err != nil {
			t.Fatal(err)
		}
	}
	torn := c.files[c.seq%2].Name()
	open(15) // the first was not closed, as if it had been killed
	if err := os.Truncate(torn, 30); err != nil {
		t.Fatal(err)
	}
	c = open(10) // and now in the midst of its last write
	c.counts.Settle(key, 0, 1)
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	c = open(11)
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(filepath.Join(dir, "counts.0")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v %v", st.Mode(), err)
	}
}
