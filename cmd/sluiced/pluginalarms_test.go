package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/filter/scanner"
)

// webhook is a server that hears of events, and the configuration that tells it.
func webhook(t *testing.T) (config string, told chan event) {
	t.Helper()
	told = make(chan event, 10)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var e event
		if err := json.NewDecoder(r.Body).Decode(&e); err == nil {
			told <- e
		}
	}))
	t.Cleanup(hook.Close)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("0123456789abcdef"), 0o600); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("\n[[webhook]]\nname = \"panel\"\nurl = %q\nsecret_file = %q\n", hook.URL, secret), told
}

// pinged is a clamd that answers pings and knows nothing else, at an address.
func pinged(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.ReadFull(c, make([]byte, len("zPING\x00")))
			_, _ = io.WriteString(c, "PONG\x00")
			c.Close()
		}
	}()
	return l
}

// TestDeadPluginIsTold: a program of the operator's hears of a plug-in that does not answer and that it does again; of one that comes
// and goes once an hour at most, and then as it is.
func TestDeadPluginIsTold(t *testing.T) {
	t.Parallel()
	hook, told := webhook(t)
	clamd := pinged(t, "127.77.0.1:0") // nobody else takes its port while it is away
	address := clamd.Addr().String()
	clamd.Close()
	g := newGateway(t, user+hook+fmt.Sprintf("[[plugin]]\nname = \"av\"\nkind = \"clamd\"\naddress = [%q]\n", address))
	g.start()
	defer g.end()
	d := g.daemon
	become := func(s scanner.State) {
		for d.plugins.Figures()[0].Instances[0].State != s {
			d.plugins.Look(t.Context())
			time.Sleep(time.Millisecond)
		}
	}
	die := func() {
		clamd.Close()
		become(scanner.Dead)
	}
	heard := func(state string) (e event) {
		t.Helper()
		select {
		case e = <-told:
			if e.Type != "alarm" || e.Plugin != "av" || e.Address != address || e.State != state || e.Gateway == "" || (e.Error != "" && e.Then != "") != (state == "dead") {
				t.Errorf("told: %+v, want that it is %s", e, state)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("nobody is told that it is %s", state)
		}
		return e
	}
	revive := func() {
		clamd = pinged(t, address)
		become(scanner.Alive)
	}
	die()
	heard("dead")
	revive()
	heard("alive")
	die()
	revive()
	die()
	d.tellOfPlugins(time.Now())
	later := time.Now().Add(pluginAgain)
	d.tellOfPlugins(later)
	if e := heard("dead"); !e.Time.Equal(later) {
		t.Errorf("told at %v of one that comes and goes, want %v", e.Time, later)
	}
	if n := strings.Count(g.log.String(), "a plug-in does not answer"); n != 3 {
		t.Errorf("the log tells it %d times, want 3", n)
	}
}

// pluginIn is a plug-in with one instance in a state.
func pluginIn(s scanner.State) func() []scanner.Figures {
	return func() []scanner.Figures {
		return []scanner.Figures{{Name: "av", Then: "451", Instances: []scanner.Instance{{Address: "127.0.0.1:1", State: s}}}}
	}
}

// TestOnlyAnAnswerIsAlive: one that was told to be dead is told to be alive once it has answered, not where its settings changed or
// the process is another since; and its death is not told again by that.
func TestOnlyAnAnswerIsAlive(t *testing.T) {
	t.Parallel()
	now := time.Now()
	path := filepath.Join(t.TempDir(), "told")
	a := &pluginAlarms{path: path}
	for i, step := range []struct {
		state   scanner.State
		restart bool
		later   time.Duration
		want    string
	}{
		{scanner.Unknown, false, 0, ""}, {scanner.Failing, false, 0, ""}, {scanner.Dead, false, 0, "dead"},
		{scanner.Unknown, false, 0, ""}, {scanner.Failing, false, 0, ""}, {scanner.Dead, false, 2 * pluginAgain, ""}, // it is told
		{scanner.Unknown, true, 0, ""}, {scanner.Dead, true, 2 * pluginAgain, ""}, {scanner.Alive, true, 0, "alive"},
		{scanner.Dead, true, 0, "dead"}, {scanner.Alive, false, 0, "alive"}, {scanner.Dead, true, pluginAgain / 2, ""}, {scanner.Alive, true, 0, ""},
		{scanner.Dead, false, pluginAgain, "dead"},
	} {
		if now = now.Add(step.later); step.restart {
			a = &pluginAlarms{path: path}
		}
		told := ""
		if err := a.tell(pluginIn(step.state), now, func(e event) { told += e.State }); err != nil {
			t.Fatal(err)
		}
		if told != step.want {
			t.Errorf("step %d, %s: told is %q, want %q", i, step.state, told, step.want)
		}
	}
	if err := os.WriteFile(path, []byte("[{"), 0o600); err != nil {
		t.Fatal(err)
	}
	a, told := &pluginAlarms{path: path}, 0
	if err := a.tell(pluginIn(scanner.Dead), now, func(event) { told++ }); err == nil || told != 1 {
		t.Errorf("with a damaged file: %v, %d told", err, told)
	}
}

// TestPluginsAreToldInOrder: who saw a plug-in alive tells it after those who saw it dead before.
func TestPluginsAreToldInOrder(t *testing.T) {
	t.Parallel()
	var a pluginAlarms
	told := make(chan string, 4)
	post := func(e event) { told <- e.State }
	var both sync.WaitGroup
	looked, later := make(chan struct{}), make(chan struct{})
	both.Go(func() {
		_ = a.tell(func() []scanner.Figures { // which keeps nothing
			close(looked)
			<-later
			return pluginIn(scanner.Dead)()
		}, time.Now(), post)
	})
	<-looked
	both.Go(func() {
		_ = a.tell(pluginIn(scanner.Alive), time.Now(), post)
	})
	close(later)
	both.Wait()
	close(told)
	var order []string
	for s := range told {
		order = append(order, s)
	}
	if !slices.Equal(order, []string{"dead", "alive"}) {
		t.Errorf("told: %q, want that it is dead and then alive", order)
	}
}
