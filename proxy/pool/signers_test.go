package pool

import (
	"fmt"
	"testing"
	"time"
)

func TestSigners(t *testing.T) {
	t.Parallel()
	var s Signers
	now := time.Now()
	if s.Has(1, "a.example", now) {
		t.Error("nobody was seen yet")
	}
	s.Learn(1, "A.example", true, now)
	if !s.Has(1, "a.EXAMPLE", now) || s.Has(2, "a.example", now) || s.Has(1, "b.example", now) {
		t.Error("what was learnt is of one user and one domain")
	}
	if s.Has(1, "a.example", now.Add(signedLife)) {
		t.Error("it holds for seven days")
	}
	s.Learn(1, "a.example", false, now)
	if s.Has(1, "a.example", now) || len(s.users) != 0 {
		t.Error("a message without a signature ends it")
	}
}

// TestSignersAreBounded: one user with many domains takes no room from others, and what is old makes room.
func TestSignersAreBounded(t *testing.T) {
	t.Parallel()
	var s Signers
	now := time.Now()
	for i := range 2 * signersUser {
		s.Learn(1, fmt.Sprint(i, ".example"), true, now)
	}
	if len(s.m) != signersUser {
		t.Errorf("one user has %d domains", len(s.m))
	}
	for u := range uint32(2 * signersRoom) {
		s.Learn(u+2, "a.example", true, now)
	}
	if n := len(s.m); n > signersRoom || n < signersRoom*7/8 {
		t.Errorf("%d are remembered", n)
	}
	for i := range signersRoom {
		s.Learn(uint32(i+2), "late.example", true, now.Add(signedLife))
	}
	// Whatever is old goes before anything that is new.
	for i := range signersRoom {
		if !s.Has(uint32(i+2), "late.example", now.Add(signedLife)) {
			t.Fatalf("user %d was forgotten where there was something old to forget", i+2)
		}
	}
	if s.Has(3, "a.example", now.Add(signedLife)) || len(s.m) != signersRoom {
		t.Errorf("what is old does not make room: %d are remembered", len(s.m))
	}
}
