package tlspolicy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestSTSRecords(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		texts []string
		id    string
		err   string
	}{
		{[]string{"v=STSv1; id=20160831085700Z;"}, "20160831085700Z", ""},
		{[]string{"v=STSv1;id=1"}, "1", ""},
		{[]string{"v=STSv1 ; other=x ; id=a1 ; more=y"}, "a1", ""},
		{[]string{"v=spf1 -all", "v=STSv1; id=1;"}, "1", ""},
		{[]string{"v=STSv1; id=1; id=2"}, "1", ""},
		{nil, "", ErrNoSTS.Error()},
		{[]string{"v=STSv2; id=1;"}, "", ErrNoSTS.Error()},
		{[]string{"v=STSv10; id=1;"}, "", ErrNoSTS.Error()},
		{[]string{"V=STSv1; id=1;"}, "", ErrNoSTS.Error()},
		{[]string{"v=STSv1"}, "", ErrNoSTS.Error()},
		{[]string{"v=STSv1; id=1;", "v=STSv1; id=2;"}, "", "several"},
		{[]string{"v=STSv1;"}, "", "no id"},
		{[]string{"v=STSv1; id=;"}, "", "no id"},
		{[]string{"v=STSv1; id=a-b;"}, "", "no id"},
		{[]string{"v=STSv1; id=" + strings.Repeat("a", 33)}, "", "no id"},
	} {
		id, err := ParseSTSRecord(c.texts)
		told(t, fmt.Sprint(c.texts), err, c.err)
		if id != c.id {
			t.Errorf("%q: id %q, want %q", c.texts, id, c.id)
		}
	}
}

func TestSTSPolicies(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		file string
		want STS
		err  string
	}{
		{sts("enforce", "604800", "mail.a.example", "*.a.example"), STS{ModeEnforce, []string{"mail.a.example", "*.a.example"}, 7 * 24 * time.Hour}, ""},
		{"version: STSv1\nmode: testing\nmax_age: 1\nmx: MX.a.example.\n", STS{ModeTesting, []string{"mx.a.example"}, time.Second}, ""},
		{"mode:none\nversion:STSv1\nmax_age:86400", STS{ModeNone, nil, 24 * time.Hour}, ""},
		{sts("enforce", "4294967295", "a.example"), STS{ModeEnforce, []string{"a.example"}, mostAge}, ""},
		{sts("enforce", "5", "a.example") + "future: thing\r\nmode: none\r\nmax_age: 99\r\nno colon\r\n", STS{ModeEnforce, []string{"a.example"}, 5 * time.Second}, ""},
		{"", STS{}, "version"},
		{strings.Replace(sts("enforce", "5", "a.example"), "STSv1", "STSv2", 1), STS{}, "version"},
		{sts("Enforce", "5", "a.example"), STS{}, "mode"},
		{"version: STSv1\nmode: enforce\nmx: a.example\n", STS{}, "no max_age"},
		{sts("enforce", "-5", "a.example"), STS{}, "max_age"},
		{sts("enforce", "99999999999", "a.example"), STS{}, "max_age"},
		{sts("enforce", "5"), STS{}, "no mx"},
		{sts("enforce", "5", "a b.example"), STS{}, "no name"},
		{sts("enforce", "5", "mail.*.example"), STS{}, "no name"},
		{sts("enforce", "5", "*"), STS{}, "no name"},
		{sts("enforce", "5", "a.example") + strings.Repeat("x", mostPolicy), STS{}, "more than"},
		{sts("enforce", "5", slices.Repeat([]string{"a.example"}, mostPatterns+1)...), STS{}, "more than"},
	} {
		p, err := ParseSTS([]byte(c.file))
		name := c.file[:min(len(c.file), 60)]
		told(t, fmt.Sprintf("%q", name), err, c.err)
		if err == nil && fmt.Sprint(*p) != fmt.Sprint(c.want) {
			t.Errorf("%q: %v, want %v", name, *p, c.want)
		}
	}
}

func TestSTSNames(t *testing.T) {
	t.Parallel()
	p := &STS{MX: []string{"mx.a.example", "*.b.example"}}
	for host, want := range map[string]bool{
		"mx.a.example": true, "MX.A.Example.": true, "x.mx.a.example": false, "a.example": false,
		"one.b.example": true, "b.example": false, "two.one.b.example": false, ".b.example": false, "oneb.example": false, "": false,
	} {
		if p.Lists(host) != want {
			t.Errorf("%q: %v", host, !want)
		}
	}
}

func FuzzSTSRecord(f *testing.F) {
	f.Add("v=STSv1; id=20160831085700Z;", "v=spf1")
	f.Add("v=STSv1;;;id==;", "v=STSv1")
	f.Fuzz(func(t *testing.T, a, b string) {
		id, err := ParseSTSRecord([]string{a, b})
		if (err == nil) != (id != "") || len(id) > 32 || strings.ContainsFunc(id, notAlphanumeric) {
			t.Errorf("id %q, %v", id, err)
		}
		if err == nil && !strings.HasPrefix(a, "v=STSv1") && !strings.HasPrefix(b, "v=STSv1") {
			t.Error("an id without a record")
		}
		if errors.Is(err, ErrNoSTS) && strings.HasPrefix(a, "v=STSv1;") {
			t.Error("a record is passed over")
		}
	})
}

func FuzzSTSPolicy(f *testing.F) {
	f.Add([]byte(sts("enforce", "604800", "mail.a.example", "*.a.example")))
	f.Add([]byte("version:STSv1\nmode:none\nmax_age:0"))
	f.Add([]byte("version: STSv1\r\n\r\n: \nmx:\nmode: testing\nmax_age: 31557600\nmx: *.x"))
	f.Fuzz(func(t *testing.T, file []byte) {
		p, err := ParseSTS(file)
		if err != nil {
			if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' }) {
				t.Errorf("%q would break a line of the log", err)
			}
			return
		}
		if p.MaxAge < 0 || p.MaxAge > mostAge || len(p.MX) > mostPatterns || p.Mode == "" {
			t.Errorf("%+v", p)
		}
		for _, mx := range p.MX {
			if bare, any := strings.CutPrefix(mx, "*."); !hostName(bare) || !any && !p.Lists(mx) || any && !p.Lists("x."+bare) && len(bare) < 250 {
				t.Errorf("pattern %q", mx)
			}
		}
		again, err := ParseSTS([]byte(sts(string(p.Mode), fmt.Sprint(int(p.MaxAge.Seconds())), p.MX...)))
		if err != nil || fmt.Sprint(again) != fmt.Sprint(p) {
			t.Errorf("%v reads as %v, %v", p, again, err)
		}
	})
}
