package spool

import (
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// crashed makes a spool whose program was killed: nothing is sealed, and its lock is free.
func crashed(t *testing.T, f func(*Spool)) (d *simDisk, seg string) {
	t.Helper()
	d = newSimDisk(1)
	s, err := Open("simulated", Options{disk: d})
	if err != nil {
		t.Fatal(err)
	}
	f(s)
	d.restart(false)
	if err := s.Close(); err == nil {
		t.Error("a spool closed well although its disk was gone")
	}
	names, _ := d.list()
	for _, n := range names {
		if strings.HasSuffix(n, suffixSeg) {
			seg = n
		}
	}
	return d, seg
}

// copyOf gives a disk of its own with the same files.
func copyOf(d *simDisk) *simDisk {
	c := newSimDisk(2)
	for name, n := range d.names {
		c.names[name] = &simInode{data: slices.Clone(n.data), stable: slices.Clone(n.data)}
	}
	return c
}

func TestSegmentTornAtEveryByte(t *testing.T) {
	t.Parallel()
	var ids []ID
	var ends []int
	d, seg := crashed(t, func(s *Spool) {
		for i := range 4 {
			ids = append(ids, commit(t, s, to("a@example.net"), message(40+i))...)
			ends = append(ends, int(s.cur.size))
		}
	})
	size := len(d.names[seg].data)
	for cut := 0; cut <= size; cut++ {
		c := copyOf(d)
		c.names[seg].data = c.names[seg].data[:cut]
		a := &alarms{}
		s, err := Open("simulated", Options{disk: c, Alarm: a.hear})
		if err != nil {
			t.Fatalf("cut at %d of %d: %v", cut, size, err)
		}
		want := ids[:0:0]
		for i, end := range ends {
			if end <= cut {
				want = append(want, ids[i])
			}
		}
		if got := all(s); !slices.Equal(got, want) {
			t.Errorf("cut at %d of %d: deliveries %v, want %v", cut, size, got, want)
		}
		if a.String() != "" {
			t.Errorf("cut at %d: alarm %v", cut, a)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDamageIsFoundAndTheRestIsThere(t *testing.T) {
	t.Parallel()
	var ids []ID
	var starts []int
	d, seg := crashed(t, func(s *Spool) {
		for i := range 3 {
			starts = append(starts, int(s.cur.size))
			ids = append(ids, commit(t, s, to("a@example.net"), message(40+i))...)
		}
	})
	starts = append(starts, len(d.names[seg].data))
	for at := range d.names[seg].data {
		c := copyOf(d)
		c.names[seg].data[at] ^= 0x40
		var rep *Report
		a := &alarms{}
		s, err := Open("simulated", Options{disk: c, Keep: true, Alarm: a.hear})
		if err == nil {
			rep, err = s.Takeover()
		}
		if err != nil {
			t.Fatalf("damage at %d: %v", at, err)
		}
		hit := -1
		for i := range ids {
			if starts[i] <= at && at < starts[i+1] {
				hit = i
			}
		}
		want := slices.Clone(ids)
		if hit >= 0 {
			want = slices.Delete(want, hit, hit+1)
		}
		if got := all(s); !slices.Equal(got, want) {
			t.Errorf("damage at %d: deliveries %v, want %v", at, got, want)
		}
		// What lies before a later record was on disk. The last may as well have been torn.
		if told := len(rep.Damaged) > 0; told != (hit != 2) || told != strings.Contains(a.String(), "damaged") {
			t.Errorf("damage at %d, in record %d: said %v, torn %d, alarm %v", at, hit, rep.Damaged, rep.Torn, a)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if _, still := c.names[seg]; !still && hit != 2 {
			t.Errorf("damage at %d: the file is gone", at)
		}
	}
}

// A record inside a message must not be taken for one of the spool when the record around it is damaged.
func TestForgedRecordIsNone(t *testing.T) {
	t.Parallel()
	var forged []byte
	d, seg := crashed(t, func(s *Spool) { commit(t, s, to("victim@example.net"), message(1)) })
	forged = d.names[seg].data
	d, seg = crashed(t, func(s *Spool) {
		dr, err := s.Create()
		if err != nil {
			t.Fatal(err)
		}
		b := bodyOf(t, "Subject: x\r\n\r\ny\r\n")
		defer b.Release()
		if _, err := dr.Commit(to("a@example.net"), append(forged, "\r\n"...), b); err != nil {
			t.Fatal(err)
		}
		commit(t, s, to("b@example.net"), message(2))
	})
	d.names[seg].data[segHeadSize+30] ^= 1
	s, err := Open("simulated", Options{disk: d})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, id := range all(s) {
		if l, err := s.Look(id); err != nil || l.Envelope.Rcpts[0].Address != "b@example.net" {
			t.Errorf("%v: %+v", err, l)
		}
	}
}

func TestDamagedMessageIsSetAside(t *testing.T) {
	t.Parallel()
	dir, a := t.TempDir(), &alarms{}
	s := open(t, dir, Options{})
	id := commit(t, s, to("a@example.net"), message(500))[0]
	good := commit(t, s, to("a@example.net"), message(501))[0]
	s.Close()
	segs, err := filepath.Glob(filepath.Join(dir, "*"+suffixSeg))
	if err != nil || len(segs) != 1 {
		t.Fatalf("%v, %v", err, segs)
	}
	b, err := os.ReadFile(segs[0])
	if err != nil {
		t.Fatal(err)
	}
	b[strings.Index(string(b), "Subject: message 500")+100] ^= 1
	if err := os.WriteFile(segs[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, Options{Alarm: a.hear})
	l := lease(t, s, id)
	_, err = l.Body()
	mustBe(t, err, ErrDamaged)
	if err := l.SetAside(err); err != nil {
		t.Fatal(err)
	}
	_, err = s.Lease(id)
	mustBe(t, err, ErrHeld)
	if !strings.Contains(a.String(), id.String()) || !strings.Contains(a.String(), "checksum") {
		t.Errorf("alarms: %v", a)
	}
	if l := lease(t, s, good); textOf(t, l) != message(501) {
		t.Error("the other message is another one")
	}
	if err := s.Delete(id); err != nil {
		t.Errorf("it cannot even be deleted: %v", err)
	}
}

func TestNewerFormatIsRefused(t *testing.T) {
	t.Parallel()
	d, seg := crashed(t, func(s *Spool) { commit(t, s, to("a@example.net"), message(1)) })
	var h segHead
	h, _ = parseSegHead(d.names[seg].data)
	h.put(d.names[seg].data)
	d.names[seg].data[8] = version + 1
	b := d.names[seg].data
	binary.LittleEndian.PutUint32(b[44:], crc32.Checksum(b[:44], castagnoli))
	_, err := Open("simulated", Options{disk: d})
	if err == nil || !strings.Contains(err.Error(), "newer version") || !strings.Contains(err.Error(), seg) {
		t.Errorf("got %v", err)
	}
}
