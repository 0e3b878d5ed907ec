package msglog

import (
	_ "embed"
	"encoding/binary"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"sluice/intercept/flow"
	"sluice/proxy"
)

// linesOfOld is what an earlier version wrote of kinds.
//
//go:embed testdata/lines.json
var linesOfOld []byte

// old are the records in linesOfOld.
func old() []*proxy.Record {
	all := kinds()
	moved := time.Date(2026, 11, 22, 10, 0, 0, 123456000, time.UTC).Sub(t0)
	for _, r := range all {
		r.Start = r.Start.Add(moved)
		if !r.Flow.Start.IsZero() {
			r.Flow.Start = r.Flow.Start.Add(moved)
		}
	}
	return all
}

// TestLinesOfEarlierVersions: what they kept when they were killed, and their segments, finished or not, are read and sealed.
func TestLinesOfEarlierVersions(t *testing.T) {
	t.Parallel()
	t.Run("kept", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		kept := append(binary.NativeEndian.AppendUint64(nil, uint64(len(linesOfOld))), linesOfOld...)
		if err := os.WriteFile(filepath.Join(dir, "dead"+keepSuffix), kept, 0o600); err != nil {
			t.Fatal(err)
		}
		l := openAt(t, dir, Options{Keep: 100 * 365 * 24 * time.Hour})
		defer l.Close()
		same(t, find(t, l, Query{}), old())
	})
	t.Run("segment", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		all := old()
		first, last := all[0].Start.UnixMicro(), all[0].Start.UnixMicro()
		var e encoder
		for _, r := range all {
			first, last = min(first, r.Start.UnixMicro()), max(last, r.Start.UnixMicro())
			e.addKeys(r)
		}
		s, err := createSegment(dir, all[0].Start)
		if err != nil {
			t.Fatal(err)
		}
		b := &block{payload: linesOfOld, keys: e.keys, count: len(all), first: first, last: last}
		if _, err := s.append(b); err != nil {
			t.Fatal(err)
		}
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
		l := openAt(t, dir, Options{})
		defer l.Close()
		same(t, find(t, l, Query{}), all)
		same(t, find(t, l, Query{Ticket: "4k7m-2qxb"}), all[1:2])
		sealedAll(t, l)
		same(t, find(t, l, Query{}), all)
		same(t, find(t, l, Query{Ticket: "4k7m-2qxb"}), all[1:2])
	})
}

// TestIDs: an id comes back as it was, made of its flow's or not.
func TestIDs(t *testing.T) {
	t.Parallel()
	f := flow.ID(1295) // "zz"
	for id, n := range map[string]int64{
		"zz.1": 1, "zz.999999999": 999999999, "zz": 0, "": 0, "zz.": 0, "zz.0": 0, "zz.01": 0, "zz.1.2": 0, "zz.1a": 0, "0zz.1": 0, "Zz.1": 0, "yz.1": 0, ".1": 0,
		"zz.1234567890": 0,
	} {
		if got := ordinal(id, f); got != n {
			t.Errorf("%q is number %d of its flow, want %d", id, got, n)
		}
		r := rec(1)
		r.ID, r.Flow.ID = id, f
		var e encoder
		e.encode(r)
		if got, err := decode(e.row); err != nil || got.ID != id {
			t.Errorf("%q came back as %+v, %v", id, got, err)
		}
	}
}

// TestFieldsToCome: a reader passes over fields that it does not know.
func TestFieldsToCome(t *testing.T) {
	t.Parallel()
	var e encoder
	e.encode(rec(1))
	e.row = row(e.row).value(0x7f, "what a later version writes").number(0xff, 12345)
	binary.LittleEndian.PutUint32(e.row[1:], uint32(len(e.row)-rowHead))
	got, err := decode(e.row)
	if err != nil || !reflect.DeepEqual(got, rec(1)) {
		t.Errorf("came back as %+v, %v", got, err)
	}
}
