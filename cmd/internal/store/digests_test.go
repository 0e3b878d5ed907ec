package store

import (
	"path/filepath"
	"testing"
	"time"

	"sluice/filter/campaign"
)

func TestDigests(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "s.db"))
	d := campaign.Digest{Hash: "9f", Why: "worm", By: "ann", Since: time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)}
	act := Act{Who: "ann", What: "digest listed", Subject: d.Hash}
	for range 2 { // the same again replaces it
		if err := s.PutDigest(d, act); err != nil {
			t.Fatal(err)
		}
		d.Until = d.Since.Add(time.Hour)
	}
	all, err := s.Digests()
	if err != nil || len(all) != 1 || all[0] != d {
		t.Fatalf("%+v, %v", all, err)
	}
	if err := s.RemoveDigest("9f", Act{Who: "ann", What: "digest removed", Subject: "9f"}); err != nil {
		t.Fatal(err)
	}
	if all, err := s.Digests(); err != nil || len(all) != 0 {
		t.Errorf("%+v, %v", all, err)
	}
	if acts, err := s.Acts(9); err != nil || len(acts) != 3 || acts[0].What != "digest removed" {
		t.Errorf("%+v, %v", acts, err)
	}
}
