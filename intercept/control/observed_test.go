package control

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// observers serves a socket and gives the reports that come.
func observers(t *testing.T, allow bool) (path string, reports chan ObservedReport) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "o.sock")
	l, err := Listen(path, os.Getgid())
	if err != nil {
		t.Fatal(err)
	}
	reports = make(chan ObservedReport, 8)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- ServeObserved(ctx, l, func(Peer) bool { return allow }, t.Logf, func(r ObservedReport) { reports <- r })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return path, reports
}

func TestReportsArrive(t *testing.T) {
	path, reports := observers(t, true)
	c, err := DialObserved(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	at := time.Unix(1700000000, 0).UTC()
	o := Observed{Client: netip.MustParseAddrPort("192.0.2.10:40000"), Target: netip.MustParseAddrPort("198.51.100.25:25"), Start: at, End: at,
		Messages: []ObservedMessage{{Start: at, End: at, From: "a@b.example", To: []ObservedRecipient{{"c@d.example", 250, "ok"}}, Code: 250, Whole: true}}}
	want := ObservedReport{V: ObservedVersion, Observed: &o, Seen: 3, Loss: ObservedLoss{Kernel: 1}}
	if err := Report(c, want, time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if got := <-reports; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}

	o.Messages[0].Body = make([]byte, MaxPacket)
	if err := Report(c, want, time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if got := <-reports; got.Observed.Truncated || len(got.Observed.Messages) != 1 || got.Observed.Messages[0].Body != nil || len(got.Observed.Messages[0].To) != 1 {
		t.Errorf("a record with a large body came as %+v", got.Observed)
	}
	o.Messages[0].From = strings.Repeat("x", MaxPacket)
	if err := Report(c, want, time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if got := <-reports; !got.Observed.Truncated || len(got.Observed.Messages) != 0 || got.Observed.Client != o.Client {
		t.Errorf("a record that is too large came as %+v", got.Observed)
	}
}

func TestStrangersReportNothing(t *testing.T) {
	path, reports := observers(t, false)
	c, err := DialObserved(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = c.Write([]byte(`{"v":2,"seen":1,"loss":{"kernel":0,"flows":0,"records":0}}`)) // it may be cut off already
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("the connection stays open: %d, %v", n, err)
	}
	if len(reports) != 0 {
		t.Error("a stranger's report was taken")
	}
}

func TestObserverThatBreaksTheProtocolIsCutOff(t *testing.T) {
	for _, bad := range []string{"x", `{"v":9,"seen":0,"loss":{"kernel":0,"flows":0,"records":0}}`, `{"v":2,"seen":"x"}`} {
		path, _ := observers(t, true)
		c, err := DialObserved(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte(bad)); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("%s: the connection stays open: %d, %v", bad, n, err)
		}
		c.Close()
	}
}
