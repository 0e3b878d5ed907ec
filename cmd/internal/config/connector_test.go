package config

import (
	"net/netip"
	"strings"
	"testing"
)

// TestPublishedRanges: the files that come with the program can be read, and tell the services apart.
func TestPublishedRanges(t *testing.T) {
	t.Parallel()
	for service, sends := range map[string]string{"microsoft365": "40.92.0.1", "google": "209.85.220.41"} {
		all, err := publishedRanges(service)
		if err != nil {
			t.Fatal(service, err)
		}
		for other, a := range map[string]string{service: sends, "a stranger": "203.0.113.9"} {
			has := false
			for _, p := range all {
				has = has || p.Contains(netip.MustParseAddr(a))
			}
			if has != (other == service) {
				t.Errorf("%s has %s: %t", service, a, has)
			}
		}
	}
	if all, err := publishedRanges("other"); err != nil || len(all) != 0 {
		t.Errorf("of another service: %v %v", all, err)
	}
}

func TestParseRanges(t *testing.T) {
	t.Parallel()
	all, err := ParseRanges("# of today\n\n192.0.2.0/24 # one\r\n 2001:db8::/32\n")
	if err != nil || len(all) != 2 || all[1].String() != "2001:db8::/32" {
		t.Errorf("%v %v", all, err)
	}
	for _, bad := range []string{"192.0.2.1", "192.0.2.1/24", "x", "192.0.2.0/24 198.51.100.0/24"} {
		if _, err := ParseRanges("203.0.113.0/24\n" + bad); err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
