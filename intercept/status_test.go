package intercept

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"sluice/intercept/control"
)

// TestStatusFitsInAPacket on a gateway with a VLAN device for each of four thousand customers.
func TestStatusFitsInAPacket(t *testing.T) {
	t.Parallel()
	st := &control.Status{Problems: slices.Repeat([]string{strings.Repeat("p", 400)}, 60)}
	for i := range 4000 {
		st.Interfaces = append(st.Interfaces, control.Interface{Name: fmt.Sprintf("customer%d.1", i), Index: i, Role: "customer", Path: "tcx", Kind: "ethernet"})
	}
	for range control.MaxBypasses {
		st.Bypasses = append(st.Bypasses, control.Bypass{Prefix: prefix("2001:db8:1111:2222:3333::/80"), Reason: strings.Repeat("r", control.MaxReason), By: "uid 0, pid 123456"})
	}
	st.Interfaces[3999].Path, st.Interfaces[3999].Error = "", strings.Repeat("e", 300)
	fit(st)
	b, err := json.Marshal(control.Reply{Status: st})
	if err != nil || len(b) > control.MaxPacket {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if len(st.Interfaces) == 0 || st.Interfaces[0].Error == "" {
		t.Error("the interface with a problem does not come first")
	}
	if n := len(st.Problems); n < 2 || st.Problems[n-1] != "20 more problems are not shown" || st.Problems[n-2] != "3850 more interfaces are not shown" {
		t.Errorf("nothing tells what is missing: %q", st.Problems[max(n-2, 0):])
	}
}
