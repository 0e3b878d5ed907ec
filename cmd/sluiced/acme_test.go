package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/cmd/internal/config"
)

// TestTheAccountsSecret is read as authorities write it, with or without padding, and nothing else is taken for one.
func TestTheAccountsSecret(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "secret")
	for text, want := range map[string]string{"zWND-_Q\n": "zWND-_Q", "  zWND-_Q=\n\n": "zWND-_Q", "": "!", "two words": "!", "a+b/": "!"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := acmeKey(&config.ACME{Key: file})
		switch {
		case want == "!":
			if err == nil || !strings.Contains(err.Error(), "tls.acme.account_key_file") {
				t.Errorf("%q: %q, %v", text, got, err)
			}
		case got != want || err != nil:
			t.Errorf("%q: %q, %v, want %q", text, got, err, want)
		}
	}
	if _, err := acmeKey(&config.ACME{Key: file + "x"}); err == nil {
		t.Error("a file that is not there is taken")
	}
	if got, err := acmeKey(&config.ACME{}); got != "" || err != nil {
		t.Errorf("without a file: %q, %v", got, err)
	}
}
