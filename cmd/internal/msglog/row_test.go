package msglog

import (
	_ "embed"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
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

// TestIDsOfOtherFlows: digits so many that they would come round to the flow's are not taken for them.
func TestIDsOfOtherFlows(t *testing.T) {
	t.Parallel()
	for id, n := range map[string]int64{"3w5e11264sgsf.1": 0, "3w5e11264sgre.1": 1, "3w5e11264sgsl.1": 0, "1ehvi4vb6cdog.7": 7, "zzzzzzzzzzzzzz.1": 0} {
		r := rec(1)
		for _, f := range []flow.ID{math.MaxUint64, math.MaxUint64 - 37, 5, 6_500_000_000_000_000_000} {
			r.ID, r.Flow.ID = id, f
			want := int64(0)
			if strings.HasPrefix(id, f.String()+".") {
				want = n
			}
			if got := ordinal(id, f); got != want {
				t.Errorf("%q is number %d of flow %s, want %d", id, got, f, want)
			}
			var e encoder
			e.encode(r)
			if got, err := decode(e.row); err != nil || got.ID != id {
				t.Errorf("%q of flow %s came back as %+v, %v", id, f, got, err)
			}
		}
	}
}

// notKept are the fields that the log does without: they are for whoever decides, and for the reply.
var notKept = []string{"Behind", "Group of Hit", "Weighs", "AsSet", "Tag", "Ticket of Verdict"}

// filler makes records out of anything.
type filler struct {
	*testing.T
	*rand.Rand
}

func (f filler) fill(name string, v reflect.Value) {
	switch to := v.Addr().Interface().(type) {
	case *time.Time:
		*to = time.UnixMicro(f.number()/10_000_000 + 42).UTC()
		return
	case *time.Duration:
		*to = time.Duration(f.number()/100_000) * time.Microsecond
		return
	case *netip.Addr:
		*to = f.addr()
		return
	case *netip.AddrPort:
		if a := f.addr(); a.IsValid() {
			*to = netip.AddrPortFrom(a, uint16(f.Uint32()))
		}
		return
	case *netip.Prefix:
		if a := f.addr().WithZone(""); a.IsValid() {
			*to = netip.PrefixFrom(a, f.IntN(a.BitLen()+1))
		}
		return
	case *proxy.Status:
		*to = proxy.Status(f.IntN(int(proxy.Statuses)))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			field := v.Type().Field(i).Name
			if !slices.Contains(notKept, field) && !slices.Contains(notKept, field+" of "+v.Type().Name()) {
				f.fill(field, v.Field(i))
			}
		}
	case reflect.Slice:
		if n := f.IntN(4); n > 0 {
			v.Set(reflect.MakeSlice(v.Type(), n, n))
		}
		for i := range v.Len() {
			f.fill(name, v.Index(i))
		}
	case reflect.String:
		v.SetString(f.text())
	case reflect.Bool:
		v.SetBool(f.IntN(2) == 0)
	case reflect.Int, reflect.Int64:
		v.SetInt(f.number())
	case reflect.Uint8, reflect.Uint32, reflect.Uint64:
		n := uint64(f.number())
		v.SetUint(n >> (64 - v.Type().Bits()))
	case reflect.Float64:
		v.SetFloat(float64(f.IntN(101)) / 100)
	default:
		f.Fatalf("%s is a %s, which this test cannot fill", name, v.Type())
	}
}

func (f filler) number() int64 {
	return []int64{0, 1, -1, 127, 128, math.MaxInt64, math.MinInt64, f.Int64(), -f.Int64()}[f.IntN(9)]
}

func (f filler) text() string {
	s := []string{"", "x", "a@b.example", "ü\u2028\n\x00{", strings.Repeat("0123456789", 13), strings.Repeat("y", 70_000)}[f.IntN(6)]
	return text(s[:min(len(s), 1<<f.IntN(18))]) // it may have been cut in a letter
}

func (f filler) addr() netip.Addr {
	var b [16]byte
	for i := range b {
		b[i] = byte(f.Uint32())
	}
	return []netip.Addr{{}, netip.AddrFrom4([4]byte(b[:4])), netip.AddrFrom16(b), netip.AddrFrom16(b).WithZone("eth0"), netip.AddrFrom16(netip.AddrFrom4([4]byte(b[:4])).As16())}[f.IntN(5)]
}

// TestEveryFieldComesBack: whatever stands in a record, and in fields that it gets one day, but for what the log does without.
func TestEveryFieldComesBack(t *testing.T) {
	t.Parallel()
	f := filler{t, rand.New(rand.NewPCG(4, 2))}
	var e encoder
	for i := range 3000 {
		var r proxy.Record
		f.fill("", reflect.ValueOf(&r).Elem())
		r.Verdict.Cause = f.IntN(len(r.Verdict.Hits)+1) - 1
		if f.IntN(4) == 0 {
			r.Start, r.ID = time.UnixMicro(0).UTC(), r.Flow.ID.String()+".12"
		}
		e.encode(&r)
		row, rest, err := cutRow(append(e.row, '{'))
		if len(row) != len(e.row) || len(rest) != 1 || err != nil {
			t.Fatalf("record %d: %d bytes are cut into %d and %d: %v", i, len(e.row), len(row), len(rest), err)
		}
		got, err := decode(row)
		if err != nil {
			t.Fatalf("record %d: %v", i, err)
		}
		all, want := reflect.ValueOf(got).Elem(), reflect.ValueOf(r)
		for j := range all.NumField() {
			if g, w := all.Field(j).Interface(), want.Field(j).Interface(); !reflect.DeepEqual(g, w) {
				t.Fatalf("record %d: %s came back as\n%.500v, want\n%.500v", i, all.Type().Field(j).Name, g, w)
			}
		}
	}
}

// TestZerosAreNoRow: where the disk never got a part of a row stand zeros, and what is left of it is no record.
func TestZerosAreNoRow(t *testing.T) {
	t.Parallel()
	var e encoder
	for _, r := range kinds() {
		e.encode(r)
		last := len(e.row) - 2 - len(r.Reply) // zeros in the last text cannot be told from it
		for i := rowHead; i < last; i++ {
			b := slices.Clone(e.row)
			clear(b[i:])
			if got, err := decode(b); err == nil && !reflect.DeepEqual(got, r) {
				t.Fatalf("with zeros from byte %d of %d on it is read as %+v", i, len(b), got)
			}
		}
	}
}

// TestStrangersBytesAreFound: by what is shown in their place, before and after the row was sealed by whoever wrote it.
func TestStrangersBytesAreFound(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openAt(t, dir, Options{})
	r := rec(1)
	r.From, r.Identity, r.To[0].Address = "gr\xfc\xdfe@b\xfccher.example", "caf\xe9", "m\xfcller@\xf6l.example"
	l.Put(r)
	shown := find(t, l, Query{})[0]
	look := func(when string) {
		t.Helper()
		for what, q := range map[string]Query{
			"the sender": {Sender: shown.From}, "his domain": {Sender: domainOf(shown.From)}, "the recipient": {Recipient: shown.To[0].Address},
			"that domain": {Recipient: domainOf(shown.To[0].Address)}, "the identity": {Identity: shown.Identity},
		} {
			if n := len(find(t, l, q)); n != 1 {
				t.Errorf("%s: %d records found by %s", when, n, what)
			}
		}
	}
	look("at first")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = openAt(t, dir, Options{})
	defer l.Close()
	sealedAll(t, l)
	look("sealed")
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
