//go:build labtest

package lab

import (
	"strings"
	"testing"
)

// TestRollout goes all the way from a gateway that does nothing to enforcement and back, one command a step.
func TestRollout(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	config := strings.Replace(GatewayConfig, "[intercept]\n", "[intercept]\ndefault_mode = \"pass\"\n", 1)
	g := startGatewayWith(t, l, strings.Replace(config, "default_fail = \"closed\"\n", "", 1))
	stage := func(want string) {
		t.Helper()
		var ro struct{ Targets []struct{ Stage string } }
		if err := sluiceJSON(ctx, g, &ro, "rollout"); err != nil {
			t.Fatal(err)
		}
		if len(ro.Targets) == 0 || ro.Targets[0].Stage != want {
			t.Errorf("the roll-out is at %+v, want %s", ro.Targets, want)
		}
	}
	stage("off")
	meets(ctx, t, l, "alice", "destination")
	for _, want := range []string{"observe", "shadow"} {
		if out := sluice(t, g, "rollout", "forward", "all"); !strings.Contains(out, want) {
			t.Errorf("forward: %s", out)
		}
		stage(want)
		meets(ctx, t, l, "alice", "destination")
	}

	// In shadow alice sends through a relay; the gate knows, and what stands before enforcement is asked once.
	if _, err := l.SinkAt(HostInternet, "smarthost", routerV4.String()+":25"); err != nil {
		t.Fatal(err)
	}
	for range 6 {
		gateMail(ctx, t, l, "alice", "a@alice.example", routerV4.String()+":25", "relayed@sink.example", "Subject: x\r\n\r\nx\r\n")
	}
	var gate struct{ Verdict string }
	for i := 0; gate.Verdict != "stop"; i++ { // the DNS is asked in the background
		if err := sluiceJSON(ctx, g, &gate, "gate"); err != nil {
			t.Fatal(err)
		}
		if i == 50 {
			t.Fatalf("the gate does not see the relay:\n%s", sluice(t, g, "gate"))
		}
	}
	refusedWith(ctx, t, g, "stop: relay", "rollout", "forward", "all", "--fail", "closed")
	refusedWith(ctx, t, g, "--force needs --reason", "rollout", "forward", "all", "--force")
	force := []string{"rollout", "forward", "all", "--force", "--reason", "the relay is known"}
	refusedWith(ctx, t, g, "--fail open forwards them", force...)
	stage("shadow")
	meets(ctx, t, l, "alice", "destination")
	sluice(t, g, append(force, "--fail", "closed")...)
	if out := sluice(t, g, "users", "show", "alice"); !strings.Contains(out, "when the proxy is dead: closed") {
		t.Errorf("after the answer: %s", out)
	}
	for _, want := range []string{"canary 5%", "canary 25%", "enforce"} {
		sluice(t, g, force...)
		stage(want)
	}
	for _, host := range []string{"alice", "bob", "mallory", "dave"} {
		meets(ctx, t, l, host, "gateway")
	}

	// The answer holds in the kernel: with the proxy dead nothing goes past it.
	if err := g.RestartIntercept(ctx); err != nil {
		t.Fatal(err)
	}
	if err := g.Sluiced.Kill(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if got := met(ctx, l, "bob", sink6); got == "destination" {
			t.Error("with the proxy dead bob meets the destination")
		}
	}
	if err := g.StartSluiced(ctx); err != nil {
		t.Fatal(err)
	}
	stage("enforce")

	// Back asks nothing, for one user or for all.
	sluice(t, g, "rollout", "back", "bob")
	if out := sluice(t, g, "mode", "show", "192.0.2.20"); !strings.Contains(out, "canary 25%") {
		t.Errorf("bob: %s", out)
	}
	meets(ctx, t, l, "alice", "gateway")
	for _, want := range []string{"canary 25%", "canary 5%", "canary 1%", "shadow", "observe", "off"} {
		sluice(t, g, "rollout", "back", "all")
		stage(want)
	}
	for _, host := range []string{"alice", "mallory", "dave"} {
		meets(ctx, t, l, host, "destination")
	}
	refusedWith(ctx, t, g, "off already", "rollout", "back", "all")
}
