package store

import (
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"sluice/filter/policy"
)

func TestGroupsAndMembers(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "x.db"))
	act := Act{Who: "root", What: "test", Subject: "x"}
	n := int64(7)
	put := func(g policy.Group) policy.Group {
		t.Helper()
		g, err := s.PutGroup(g, act)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	var o policy.Overrides
	if err := o.Set("messages_per_day", "9"); err != nil {
		t.Fatal(err)
	}
	plan := put(policy.Group{Kind: policy.Plan, Name: "basic", Settings: o, Budget: policy.LimitChanges{"recipients_per_day": {Max: &n}}})
	house := put(policy.Group{Kind: policy.Account, Name: "house", Plan: plan.ID})
	if again := put(house); again.ID != house.ID {
		t.Errorf("the same account has the ids %d and %d", house.ID, again.ID)
	}
	if err := s.Join(3, house.ID, act); err != nil {
		t.Fatal(err)
	}
	all, members, err := s.Groups()
	if err != nil || len(all) != 2 || members[3] != house.ID || !reflect.DeepEqual(all[1], plan) {
		t.Errorf("%+v, %v, %v", all, members, err)
	}
	for what, id := range map[string]uint32{"1 users": house.ID, "1 accounts": plan.ID} {
		if err := s.RemoveGroup(id, act); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("removed while %s belong to it: %v", what, err)
		}
	}
	if err := s.Join(3, 0, act); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveGroup(house.ID, act); err != nil {
		t.Error(err)
	}
	if err := s.RemoveGroup(house.ID, act); err == nil {
		t.Error("removed twice")
	}
	now := time.Now().UTC().Truncate(time.Microsecond)
	for user, until := range map[uint32]time.Time{1: now.Add(time.Hour), 2: now.Add(-time.Hour)} {
		if err := s.PutLift(Lift{User: user, Settings: o, Until: until, Reason: "sale", By: "root"}, act); err != nil {
			t.Fatal(err)
		}
	}
	lifts, err := s.Lifts()
	if err != nil || len(lifts) != 1 || lifts[0].User != 1 || !lifts[0].Until.Equal(now.Add(time.Hour)) || lifts[0].Settings.Flat()["messages_per_day"] != "9" {
		t.Errorf("%+v, %v", lifts, err)
	}
	copied := filepath.Join(t.TempDir(), "copy.db")
	if err := s.Backup(copied); err != nil {
		t.Fatal(err)
	}
	if err := s.Backup(copied); err == nil {
		t.Error("a backup replaced another")
	}
	if all, _, err := open(t, copied).Groups(); err != nil || len(all) != 1 {
		t.Errorf("the copy has %+v, %v", all, err)
	}
}
