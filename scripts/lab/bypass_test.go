//go:build labtest

package lab

import (
	"strings"
	"testing"
	"time"
)

// TestBypass: one command lets mail go around the proxy, while it lives and when it is dead; another ends it.
func TestBypass(t *testing.T) { onEachPath(t, bypassBy) }

func bypassBy(t *testing.T, path string) {
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, by(path, GatewayConfig))
	const to4, to6 = "198.51.100.20:25", "[2001:db8:100::20]:25"
	greeted := func(host, to, want string) {
		t.Helper()
		if got, err := greetingAt(ctx, l, host, "", to); !strings.HasPrefix(got, "220 "+want) {
			t.Errorf("%s is greeted %q at %s, %v; want %s", host, got, to, err, want)
		}
	}
	bypass := func(args ...string) string {
		t.Helper()
		return sluice(t, g, append(append([]string{"bypass"}, args...), "--config", g.Config)...)
	}
	open, err := l.Hello(ctx, "bob", "", to4)
	if err != nil {
		t.Fatal(err)
	}
	bypass("on", "--prefix", "192.0.2.20", "--for", "10m", "--reason", "bob cannot send")
	greeted("bob", to4, "mx.sink.example")
	greeted("bob", to6, "gw.example")
	greeted("alice", to4, "gw.example")
	if _, r, err := open.Send("a@bob.example", []string{"open@sink.example"}, []byte("Subject: open\r\n\r\nopen\r\n")); err != nil || r.Code != 250 {
		t.Errorf("a session from before the bypass: %v %v", r, err)
	}
	var st struct {
		Helper struct {
			Bypasses []struct {
				Prefix, Reason string
				Until          time.Time
			}
		}
	}
	if err := sluiceJSON(ctx, g, &st, "status"); err != nil {
		t.Fatal(err)
	}
	if b := st.Helper.Bypasses; len(b) != 1 || b[0].Prefix != "192.0.2.20/32" || b[0].Reason != "bob cannot send" || b[0].Until.Before(time.Now()) {
		t.Errorf("status shows %+v", b)
	}
	if out := sluice(t, g, "status"); !strings.HasPrefix(out, "BYPASS: new connections of 192.0.2.20/32 ") {
		t.Errorf("status begins %.100q", out)
	}

	if err := g.Sluiced.Kill(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	bypass("on", "--reason", "sluiced is dead")
	t.Log("in force after", time.Since(began), "with the start of the command")
	greeted("alice", to4, "mx.sink.example")
	greeted("alice", to6, "mx.sink.example")
	if err := g.Intercept.Kill(); err != nil {
		t.Fatal(err)
	}
	bypass("off", "--prefix", "192.0.2.20/32") // by what is left in the kernel
	greeted("bob", to4, "mx.sink.example")
	if err := g.StartIntercept(ctx); err != nil {
		t.Fatal(err)
	}
	if err := g.StartSluiced(ctx); err != nil {
		t.Fatal(err)
	}
	if out := bypass("status"); strings.Count(out, "\n") != 1 || !strings.Contains(out, "every source") || !strings.Contains(out, "sluiced is dead") {
		t.Errorf("after both are back: %s", out)
	}
	greeted("alice", to4, "mx.sink.example")
	bypass("off")
	for _, host := range []string{"alice", "bob"} {
		served(t, l, host, "", to4)
		greeted(host, to6, "gw.example")
	}
}
