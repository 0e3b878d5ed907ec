package probe

import (
	"strings"
	"testing"
)

func TestEcho(t *testing.T) {
	t.Parallel()
	const nonce = "00112233445566778899aabb"
	arg := strings.TrimPrefix(Noop(nonce), "NOOP ")
	echo, ok := Echo([]byte(arg))
	if !ok || strings.Contains(echo, nonce) || !strings.HasPrefix(echo, "sluice-probe ") {
		t.Errorf("echo is %q, %v", echo, ok)
	}
	other, _ := Echo([]byte(strings.Replace(arg, "0011", "0012", 1)))
	if other == echo {
		t.Error("two probes have one echo")
	}
	for _, bad := range []string{"", "x", "sluice-probe", "sluice-probe ", "sluice-probe 0011", "sluice-probe " + strings.Repeat("g", 24),
		"sluice-probe " + strings.Repeat("0", 66), "sluice-probe 00112233445566778899aabb x"} {
		if echo, ok := Echo([]byte(bad)); ok {
			t.Errorf("%q is answered with %q", bad, echo)
		}
	}
}
