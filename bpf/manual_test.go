package bpf

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestManualHasEveryCounter: the manual says of each counter what its enumerator in sluice.h says.
func TestManualHasEveryCounter(t *testing.T) {
	header, err := os.ReadFile("sluice.h")
	if err != nil {
		t.Fatal(err)
	}
	manual, err := os.ReadFile("../deploy/man/sluice-intercept.8")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(header), "enum reason {")
	list, _, _ = strings.Cut(list, "REASON_MAX")
	all := regexp.MustCompile(`REASON_(\w+)[^/]*/\* (.*?) \*/`).FindAllStringSubmatch(list, -1)
	if len(all) != len(reasons) {
		t.Fatalf("%d reasons with a comment in sluice.h, %d names", len(all), len(reasons))
	}
	for i, m := range all {
		name := strings.ToLower(m[1])
		if name != reasons[i] {
			t.Errorf("reason %d is %s in sluice.h and %s in counters.go", i, name, reasons[i])
		}
		if want := ".TP\n.B " + name + "\n" + strings.ReplaceAll(m[2], "-", `\-`) + "\n"; !strings.Contains(string(manual), want) {
			t.Errorf("deploy/man/sluice-intercept.8 lacks, under COUNTERS:\n%s", want)
		}
	}
}
