package bpf

import (
	"bytes"
	"testing"
)

// TestConvert: fields find each other by name, whatever their place, size and number.
func TestConvert(t *testing.T) {
	was := []field{{"a", 0, 4, 1}, {"b", 4, 2, 1}, {"gone", 6, 1, 1}, {"list", 8, 2, 3}, {"wide", 16, 8, 1}}
	is := []field{{"b", 0, 4, 1}, {"new", 4, 4, 1}, {"list", 8, 4, 2}, {"a", 16, 8, 1}, {"wide", 24, 2, 1}}
	from := []byte{1, 2, 3, 4, 5, 6, 7, 0, 8, 9, 10, 11, 12, 13, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8}
	to := bytes.Repeat([]byte{0xee}, 28)
	convert(to, from, moves(is, was))
	want := []byte{
		5, 6, 0, 0, // b, wider
		0, 0, 0, 0, // what the older version did not have
		8, 9, 0, 0, 10, 11, 0, 0, // the first two of three
		1, 2, 3, 4, 0, 0, 0, 0, // a
		0xff, 0xff, 0, 0, // a number that does not fit is the largest that does
	}
	if !bytes.Equal(to, want) {
		t.Errorf("converted\n%v, want\n%v", to, want)
	}
	convert(to, from, moves(is, nil))
	if !bytes.Equal(to, make([]byte, 28)) {
		t.Errorf("without a field in common: %v", to)
	}
}

// TestEveryMapIsDescribed: what shapeOf does not understand could not be carried over.
func TestEveryMapIsDescribed(t *testing.T) {
	spec, err := loadMail()
	if err != nil {
		t.Fatal(err)
	}
	s, err := shapeOf(spec)
	if err != nil {
		t.Fatal(err)
	}
	for name, m := range s.Maps {
		if name != "host_cells" && (len(m.Key) == 0 || len(m.Value) == 0) || !m.same(s.Maps[name]) {
			t.Errorf("map %s is described as %+v", name, m)
		}
	}
	if !s.sound() {
		t.Error("the description is not sound")
	}
	if f, ok := find(s.Maps["config"].Value, "fallback.mode"); !ok || f.Size != 1 {
		t.Errorf("the default's mode is described as %+v", f)
	}
	c := s.Maps["config"]
	c.ValueSize = 8
	s.Maps["config"] = c
	if s.sound() {
		t.Error("fields beyond the end of a value are taken for sound")
	}
}
