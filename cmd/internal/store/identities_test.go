package store

import (
	"path/filepath"
	"testing"
	"time"

	"sluice/filter/identity"
)

func TestIdentitiesAreKept(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "x.db"))
	at := time.Now().UTC().Truncate(time.Microsecond)
	a := identity.Entry{User: 1, Name: "a", First: at, Last: at, Messages: 9, Recipients: 20, Refused: 2, Bad: 1, Code: "SPAM"}
	old := identity.Entry{User: 2, Name: "old", First: at.Add(-time.Hour), Last: at.Add(-time.Hour), Messages: 1}
	put := func(all ...identity.Entry) {
		t.Helper()
		if err := s.PutIdentities(all); err != nil {
			t.Fatal(err)
		}
	}
	read := func(since time.Time) (all []identity.Entry) {
		t.Helper()
		if err := s.EachIdentity(since, func(e identity.Entry) { all = append(all, e) }); err != nil {
			t.Fatal(err)
		}
		return all
	}
	put(a, old)
	if all := read(at.Add(-2 * time.Hour)); len(all) != 2 || all[0] != a || all[1] != old {
		t.Errorf("kept are %+v", all)
	}
	less := a
	less.Messages, less.Last = 3, at.Add(time.Minute) // another process that knew less
	put(less)
	if all := read(at.Add(-time.Minute)); len(all) != 1 || all[0].Messages != 9 || !all[0].Last.Equal(less.Last) {
		t.Errorf("behind another process: %+v", all)
	}
	anew := identity.Entry{User: 1, Name: "a", First: at, Last: at, Messages: 1, Reset: at}
	put(anew)
	if all := read(at.Add(-time.Minute)); len(all) != 1 || all[0].Messages != 1 || all[0].Bad != 0 || !all[0].Reset.Equal(at) {
		t.Errorf("behind a reset: %+v", all)
	}
}
