package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/cmd/internal/config"
)

// TestRangesOfAConnector come from the operator's file where there is one; a bad file is refused with what is wrong.
func TestRangesOfAConnector(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "ranges")
	set := &config.Smarthost{Connector: []config.Connector{{Name: "contoso", Service: "microsoft365", RangesFile: file, Tenants: []string{"contoso.example"}}}}
	for text, want := range map[string]string{
		"192.0.2.0/24\n198.51.100.0/24 # new\n": "", "": "it names none", "192.0.2.0/24\nhere": "line 2", "-": "could not read the addresses of the connector contoso",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if text == "-" {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		}
		all, err := connectors(set)
		if want == "" && (err != nil || len(all[0].Ranges) != 2) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %+v, %v; want %q", text, all, err, want)
		}
	}
}
