package store

import (
	"errors"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"sluice/filter/policy"
	"sluice/filter/sender"
)

func TestAddresses(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "x.db"))
	now := time.Now().UTC().Truncate(time.Microsecond)
	act := Act{Who: "root", What: "test"}
	e := sender.Entry{Block: true, Pattern: "x.example", Scope: policy.OfNetwork, Reason: "spam", By: "root", Since: now}
	put := func(e sender.Entry) sender.Entry {
		t.Helper()
		e, err := s.PutAddress(e, act)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	put(e)
	e.Block, e.Skips = false, []string{"content", "rate"}
	e = put(e) // in its place
	over := e
	over.Pattern, over.Until = "over.example", now.Add(-time.Minute)
	put(over)
	all, err := s.Addresses()
	if e.ID = all[0].ID; err != nil || len(all) != 1 || !reflect.DeepEqual(all[0], e) {
		t.Errorf("%+v, %v, want %+v", all, err, e)
	}
	if err := s.RemoveAddress(e.ID, act); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveAddress(e.ID, act); !errors.Is(err, ErrNoEntry) {
		t.Errorf("removed twice: %v", err)
	}
}
