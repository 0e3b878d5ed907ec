package main

import (
	"bytes"
	"strings"
	"testing"

	"sluice/filter/content/view"
)

// TestEveryTemplateWrites: each template makes mails that differ, can be read, and have no slot left open.
func TestEveryTemplateWrites(t *testing.T) {
	t.Parallel()
	ts, err := templates()
	if err != nil {
		t.Fatal(err)
	}
	good, bad := 0, 0
	w, again := newWriter(), newWriter()
	var r view.Reader
	for i := range ts {
		if ts[i].bad {
			bad++
		} else {
			good++
		}
		subjects := map[string]bool{}
		for range perKind {
			m := w.mail(&ts[i])
			if !bytes.Equal(m, again.mail(&ts[i])) {
				t.Fatalf("%s: two writers wrote different mails", ts[i].name)
			}
			v := r.Read(m)
			if len(v.Subject) == 0 || !strings.Contains(v.From.Addr, "@") || len(v.Text) < 20 {
				t.Errorf("%s: subject %q, from %+v, text %q", ts[i].name, v.Subject, v.From, v.Text)
			}
			if bytes.ContainsAny(v.Text, "{}|") || bytes.ContainsAny(v.Subject, "{}|") {
				t.Errorf("%s left a slot open: %q %q", ts[i].name, v.Subject, v.Text)
			}
			subjects[string(v.Text)] = true
		}
		if len(subjects) < perKind/2 {
			t.Errorf("%s: %d different texts", ts[i].name, len(subjects))
		}
	}
	if good < 30 || bad < 30 {
		t.Errorf("%d good and %d bad templates", good, bad)
	}
}
