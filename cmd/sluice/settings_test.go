package main

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"sluice/cmd/internal/api"
)

func TestSettingsFiles(t *testing.T) {
	t.Parallel()
	rows := []api.SettingRow{
		{User: "192.0.2.0/29", Key: "delivery", Value: "own"},
		{User: "alice", Key: "messages_per_day", Value: "5000"},
		{User: "alice", Key: "messages_per_day.text", Value: `your "plan", \ and more = #`},
	}
	var b bytes.Buffer
	if err := writeSettings(&b, "csv", rows); err != nil {
		t.Fatal(err)
	}
	if got, err := csvRows(&b); err != nil || !reflect.DeepEqual(got, rows) {
		t.Errorf("by CSV: %+v, %v", got, err)
	}
	b.Reset()
	if err := writeSettings(&b, "toml", rows); err != nil {
		t.Fatal(err)
	}
	if got, err := tomlRows(b.Bytes()); err != nil || !reflect.DeepEqual(got, rows) {
		t.Errorf("by TOML: %+v, %v", got, err)
	}
	if got, err := tomlRows([]byte("[alice]\nmessages_per_day = 5\nlock_automatic = true\n")); err != nil || got[0].Value != "true" || got[1].Value != "5" {
		t.Errorf("with plain values: %+v, %v", got, err)
	}
	for text, want := range map[string]string{"[alice.x]\na = 1\n": "keys with dots are quoted", "[alice\n": "toml"} {
		if _, err := tomlRows([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := csvRows(strings.NewReader("alice,5\n")); err == nil {
		t.Error("a row of two columns was taken")
	}
	if err := writeSettings(&b, "yaml", rows); err == nil {
		t.Error("an unknown format was taken")
	}
}
