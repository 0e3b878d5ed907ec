package proxy

import (
	"errors"
	"testing"

	"sluice/proxy/smtp"
)

func TestBodiesLeaveRoomOnTheFileSystem(t *testing.T) {
	t.Parallel()
	room := true
	s, err := spillTo(t.TempDir(), func() bool { return room })
	must(t, err)
	defer s.Close()
	b := smtp.NewBody(&smtp.DataOptions{MaxMemory: 1, OpenSpill: func() (smtp.Spill, error) { return s, nil }})
	defer b.Release()
	line := []byte("0123456789abcde\r\n")
	for range 10_000 {
		must(t, b.Append(line))
	}
	room = false
	for range 10_000 {
		if err = b.Append(line); err != nil {
			break
		}
	}
	if !errors.Is(err, smtp.ErrSpill) || !errors.Is(err, errNoRoom) {
		t.Errorf("got %v, want %v", err, errNoRoom)
	}
	if !hasRoom("/nowhere/at/all") {
		t.Error("no room where it is not known")
	}
}
