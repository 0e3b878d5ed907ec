package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/filter/limit"
	"sluice/proxy/durable"
	"sluice/proxy/pool"
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
	kill := func(c *countsFile) { // the kernel closes what a killed process had open
		for _, f := range c.files {
			if err := durable.Release(f); err != nil {
				t.Error(err)
			}
		}
	}
	c := open(0)
	for range 3 {
		c.counts.Settle(key, 0, 5)
		if err := c.save(); err != nil {
			t.Fatal(err)
		}
	}
	torn := c.files[c.seq%2].Name()
	kill(c)
	kill(open(15))
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

func TestCountsAreHandedOver(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key := limit.Key{User: 7, What: limit.Messages, Window: time.Hour}
	open := func() *countsFile {
		c, err := openCounts(dir, limit.NewCounts(0))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.close() }) // where it is closed already, again
		return c
	}
	keep := func(c *countsFile, mine bool) {
		t.Helper()
		if got, err := c.keep(); err != nil || got != mine {
			t.Fatalf("keep: %v, %v; want %v", got, err, mine)
		}
	}
	older := open()
	older.counts.Settle(key, 0, 5)
	keep(older, true)
	newer := open()
	newer.counts.Settle(key, 0, 2)
	keep(newer, false)
	older.counts.Settle(key, 0, 1)
	if err := older.release(); err != nil {
		t.Fatal(err)
	}
	older.counts.Settle(key, 0, 100) // told by a note, never written
	keep(newer, true)
	keep(older, false)
	if err := older.close(); err != nil {
		t.Fatal(err)
	}
	if n, _ := newer.counts.Count(key); n != 8 {
		t.Errorf("the newer counts %d, want 5 + 1 of the older and 2 of its own", n)
	}
	if err := newer.close(); err != nil {
		t.Fatal(err)
	}
	if n, _ := open().counts.Count(key); n != 8 {
		t.Errorf("%d are restored, want 8", n)
	}
}

// TestChildrenHoldNoCounts: a process that is being started has the files of this one until it runs its program; when this one
// closes them the next may write all the same.
func TestChildrenHoldNoCounts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c, err := openCounts(dir, limit.NewCounts(0))
	if err != nil {
		t.Fatal(err)
	}
	var childs [len(c.files)]int
	for i, f := range c.files {
		if childs[i], err = unix.Dup(int(f.Fd())); err != nil {
			t.Fatal(err)
		}
		defer unix.Close(childs[i])
	}
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	next, err := openCounts(dir, limit.NewCounts(0))
	if err != nil {
		t.Fatal(err)
	}
	if mine, err := next.keep(); err != nil || !mine {
		t.Errorf("keep: %v, %v; want true", mine, err)
	}
	if err := next.close(); err != nil {
		t.Fatal(err)
	}
}

// TestChoicesOfAddressesAreKept by a killed process, and are damaged by nothing that stands in their place.
func TestChoicesOfAddressesAreKept(t *testing.T) {
	t.Parallel()
	dir, to, now := t.TempDir(), netip.MustParseAddr("198.51.100.1"), time.Now()
	p, err := pool.New(pool.Address{IP: netip.MustParseAddr("203.0.113.1"), Helo: "a.gw.example"}, pool.Address{IP: netip.MustParseAddr("203.0.113.2"), Helo: "b.gw.example"})
	if err != nil {
		t.Fatal(err)
	}
	k := pool.Key{User: 7, Sender: "a.example"}
	first, _ := p.Default(7, to)
	for n := 0; ; n++ {
		k.Recipient = fmt.Sprintf("d%d.example", n)
		if a, _ := p.Choose(k, to); a.IP != first.IP {
			break
		}
	}
	c, err := openChoices(dir, new(pool.Choices))
	if err != nil {
		t.Fatal(err)
	}
	if !c.choices.Adopt(p, k, to, now) || c.save() != nil {
		t.Fatal("not adopted, or not saved")
	}
	for _, f := range c.files { // as the kernel does with those of a killed process
		if err := durable.Release(f); err != nil {
			t.Error(err)
		}
	}
	if c, err = openChoices(dir, new(pool.Choices)); err != nil {
		t.Fatal(err)
	}
	if a, _ := c.choices.Choose(p, k, to, now); a.IP != first.IP {
		t.Errorf("after a kill the mail leaves from %v, want %v", a.IP, first.IP)
	}
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "addresses.0"), []byte("something else"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err = openChoices(dir, new(pool.Choices)); err != nil {
		t.Fatal(err)
	}
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
}
