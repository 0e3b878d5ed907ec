package policy

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// perturbed is the default with every setting changed that a user may have of his own.
func perturbed(t *testing.T) Settings {
	t.Helper()
	s := Default()
	var change func(v reflect.Value)
	change = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Struct:
			for i := range v.NumField() {
				change(v.Field(i))
			}
		case reflect.Array:
			for i := range v.Len() {
				change(v.Index(i))
			}
		case reflect.Bool:
			v.SetBool(!v.Bool())
		case reflect.Int, reflect.Int64:
			if v.Type() == reflect.TypeFor[time.Duration]() {
				v.SetInt(v.Int() + int64(7*time.Minute))
			} else {
				v.SetInt(v.Int() + 7)
			}
		case reflect.Uint8:
			v.SetUint(1)
		case reflect.Float64:
			v.SetFloat(v.Float() / 2)
		case reflect.String:
			v.SetString("x")
		}
	}
	change(reflect.ValueOf(&s).Elem())
	s.Limits, s.PerIdentity = &Limits{}, &Limits{}
	change(reflect.ValueOf(s.Limits).Elem())
	change(reflect.ValueOf(s.PerIdentity).Elem())
	s.Sender.Domains = &Domains{".b.example", "a.example"}
	s.Sender.Mailboxes = &Mailboxes{"a@a.example", "b@a.example"}
	s.Identify = &Identify{Method: BySender, Hosts: []string{"a.example"}}
	return s
}

// TestFullSaysEverything: no setting is forgotten by overrides, their flat names, or their JSON.
func TestFullSaysEverything(t *testing.T) {
	t.Parallel()
	want := perturbed(t)
	o := Full(&want)
	base := Default()
	base.PerSecond = want.PerSecond // root's alone
	check := func(what string, o *Overrides) {
		t.Helper()
		if got := o.Apply(base); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: settings are\n%+v\nwant\n%+v", what, got, want)
		}
	}
	check("full", &o)
	text, err := json.Marshal(&o)
	if err != nil {
		t.Fatal(err)
	}
	var read Overrides
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatal(err)
	}
	check("by JSON", &read)
	flat, keys := o.Flat(), Keys()
	if len(flat) != len(keys) {
		t.Errorf("%d of %d settings are said", len(flat), len(keys))
	}
	var again Overrides
	for _, k := range keys {
		if k == "identity.headers" { // there are none, which no text says
			continue
		}
		if err := again.put(k, ptr(flat[k])); err != nil {
			t.Fatalf("%s=%s: %v", k, flat[k], err)
		}
	}
	check("by name", &again)
	def := Default()
	full := Full(&def)
	if rest := full.Beside(&full); !rest.Empty() {
		t.Errorf("beside itself it says %v", rest.Flat())
	}
	for _, k := range keys {
		if err := again.Unset(k); err != nil {
			t.Fatal(err)
		}
	}
	if !again.Empty() {
		t.Errorf("with all taken back it says %v", again.Flat())
	}
}

func TestSettingsByName(t *testing.T) {
	t.Parallel()
	var o Overrides
	for _, c := range []struct{ key, text, want string }{
		{"messages_per_hour", "7", ""},
		{"messages_per_day.action", "reject", ""},
		{"per_identity.messages_per_hour", "3", ""},
		{"delivery", "own", ""},
		{"queued_messages", "0", ""},
		{"per_identity.queued_messages", "3", "is of users, not of their identities"},
		{"lock_automatic", "on", ""},
		{"identity", "sender", ""},
		{"lock_spam_share", "0.5", ""},
		{"messages_per_day", "many", "want a whole number"},
		{"messages_per_day", "-1", "want at least 0"},
		{"messages_per_year", "1", "there is no setting"},
		{"messages_per_day.colour", "red", "there is no setting"},
		{"lock_automatic", "maybe", "want on or off"},
		{"delivery", "pigeon", "use managed, own or auto"},
		{"lock_spam_share", "2", "want 0 to 1"},
		{"identity.headers", "X-A: (", "regular expression"},
		{"per_identity.nothing", "1", "there is no setting"},
		{"limits", "{}", "there is no setting"},
	} {
		try := o
		err := try.Set(c.key, c.text)
		if c.want == "" && err == nil {
			o = try
		}
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s=%s: %v, want %q", c.key, c.text, err, c.want)
		}
	}
	flat := o.Flat()
	if flat["messages_per_hour"] != "7" || flat["messages_per_day.action"] != "reject" || flat["per_identity.messages_per_hour"] != "3" ||
		flat["delivery"] != "own" || flat["lock_automatic"] != "on" || flat["identity"] != "sender" || flat["lock_spam_share"] != "0.5" {
		t.Errorf("flat: %v", flat)
	}
	s := o.Apply(Default())
	if s.Limits.Max[MessagesHour] != 7 || s.Limits.Action[MessagesDay] != RejectOver || s.PerIdentity.Max[MessagesHour] != 3 || s.Delivery != Own {
		t.Errorf("settings: %+v", s)
	}
}

func max1(kind LimitKind, n int64) Overrides {
	return Overrides{Limits: &LimitChanges{kind.String(): {Max: &n}}}
}

func TestGroupsInherit(t *testing.T) {
	t.Parallel()
	tab := NewTable(Default())
	budget := func(n int64) LimitChanges { return LimitChanges{"recipients_per_hour": {Max: &n}} }
	tab.Group([]Group{
		{ID: 10, Kind: Plan, Name: "basic", Settings: max1(MessagesDay, 100), Budget: budget(1000)},
		{ID: 11, Kind: Account, Name: "reseller", Plan: 10, Settings: max1(MessagesWeek, 500)},
		{ID: 12, Kind: Account, Name: "house", Parent: 11, Settings: max1(MessagesDay, 50), Budget: budget(200)},
		{ID: 1, Kind: Network, Budget: budget(100_000)},
	}, map[uint32]uint32{1: 12, 2: 12, 3: 11})
	custom := Default()
	custom.Limits = DefaultLimits()
	custom.Limits.Max[MessagesHour], custom.PerSecond = 9, 77
	tab.Configure(map[uint32]Settings{2: custom})
	day := func(user uint32) int64 { return tab.Settings(user).Limits.Max[MessagesDay] }
	if day(1) != 50 || day(2) != 50 || day(3) != 100 || day(4) != 0 {
		t.Errorf("messages per day: %d, %d, %d, %d", day(1), day(2), day(3), day(4))
	}
	if l := tab.Settings(2).Limits; l.Max[MessagesHour] != 9 || l.Max[MessagesWeek] != 500 || tab.Settings(2).PerSecond != 77 {
		t.Errorf("the configured user of an account has %+v", l)
	}
	var names []string
	for _, b := range *tab.Settings(1).Budgets {
		names = append(names, b.Scope.String()+" "+b.Name)
	}
	if want := []string{"account house", "plan basic", "network "}; !slices.Equal(names, want) {
		t.Errorf("budgets are %q, want %q", names, want)
	}
	if b := tab.Settings(99).Budgets; b == nil || len(*b) != 1 || (*b)[0].Scope != OfNetwork {
		t.Errorf("somebody without an account shares %+v", b)
	}
	tab.Override(1, max1(MessagesDay, 60))
	tab.Lift(1, max1(MessagesDay, 70))
	if day(1) != 70 {
		t.Errorf("while lifted: %d", day(1))
	}
	var places []string
	for _, l := range tab.Explain(1) {
		places = append(places, l.Name)
	}
	if want := []string{"default", "plan basic", "account reseller", "account house", "run time", "for a time"}; !slices.Equal(places, want) {
		t.Errorf("places are %q, want %q", places, want)
	}
	tab.Lift(1, Overrides{})
	tab.Override(1, Overrides{})
	if tab.Join(1, 0); day(1) != 0 || tab.Settings(1).Budgets == nil {
		t.Errorf("behind leaving: %d", day(1))
	}
}

func TestACircleOfAccountsEnds(t *testing.T) {
	t.Parallel()
	tab := NewTable(Default())
	tab.Group([]Group{{ID: 1, Kind: Account, Name: "a", Parent: 2, Settings: max1(MessagesDay, 5)}, {ID: 2, Kind: Account, Name: "b", Parent: 1}}, map[uint32]uint32{7: 1})
	if tab.Settings(7).Limits.Max[MessagesDay] != 5 {
		t.Error("the nearest does not count")
	}
}

// BenchmarkOverrideOne is a change of one user among 100,000 with settings of their own.
func BenchmarkOverrideOne(b *testing.B) {
	tab, all := NewTable(Default()), map[uint32]Overrides{}
	for i := range uint32(100_000) {
		all[i+1] = max1(MessagesDay, int64(i))
	}
	tab.OverrideAll(all)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		tab.Override(uint32(i%100_000)+1, max1(MessagesDay, int64(i)))
	}
}

// BenchmarkDefaultOfMany is a change of the default with 100,000 users who have settings of their own.
func BenchmarkDefaultOfMany(b *testing.B) {
	tab, all := NewTable(Default()), map[uint32]Overrides{}
	for i := range uint32(100_000) {
		all[i+1] = max1(MessagesDay, int64(i))
	}
	tab.OverrideAll(all)
	b.ResetTimer()
	for range b.N {
		tab.SetDefault(Default())
	}
}

// TestLongestLock: whoever is to be locked for longest is found, whatever says so (LCK2).
func TestLongestLock(t *testing.T) {
	t.Parallel()
	table := NewTable(Default())
	if l := table.LongestLock(); l != time.Hour {
		t.Errorf("by default %v", l)
	}
	long := Default()
	long.Lock.Time = 2 * time.Hour
	table.Configure(map[uint32]Settings{1: long})
	if l := table.LongestLock(); l != 2*time.Hour {
		t.Errorf("by the configuration %v", l)
	}
	minutes, more := 180, 240
	table.Override(2, Overrides{LockMinutes: &minutes})
	if l := table.LongestLock(); l != 3*time.Hour {
		t.Errorf("by a user's setting %v", l)
	}
	table.Group([]Group{{ID: 1, Kind: Plan, Name: "p", Settings: Overrides{LockMinutes: &more}}}, nil)
	if l := table.LongestLock(); l != 4*time.Hour {
		t.Errorf("by a plan %v", l)
	}
}
