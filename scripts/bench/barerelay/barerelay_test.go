package barerelay_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"sluice/scripts/bench/barerelay"
	"sluice/scripts/bench/load"
	"sluice/scripts/bench/sink"
)

// listen opens a plain loopback listener; MPTCP stays off as in the lab.
func listen(t *testing.T) net.Listener {
	t.Helper()
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// serve runs a server until the test ends.
func serve(t *testing.T, l net.Listener, run func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- run() }()
	t.Cleanup(func() {
		l.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func startSink(t *testing.T) (net.Listener, *sink.Tracker) {
	l, tracker := listen(t), new(sink.Tracker)
	serve(t, l, func() error { return sink.Serve(l, tracker, true) })
	return l, tracker
}

func startRelay(t *testing.T, to net.Addr) net.Listener {
	l := listen(t)
	onward := func(net.Conn) string { return to.String() }
	serve(t, l, func() error { return barerelay.Serve(context.Background(), l, onward) })
	return l
}

func target(l net.Listener) []netip.AddrPort {
	return []netip.AddrPort{l.Addr().(*net.TCPAddr).AddrPort()}
}

func TestMessagesArriveWhole(t *testing.T) {
	t.Parallel()
	cases := []load.Config{
		{Sessions: 1, PerConn: 100, Size: 10 << 10, Count: 250},
		{Sessions: 20, PerConn: 100, Size: 10 << 10, Count: 1000},
		{Sessions: 20, PerConn: 1, Size: 10 << 10, Count: 300},
		{Sessions: 10, PerConn: 10, Size: 10 << 10, Count: 500, Pipeline: true},
		{Sessions: 4, PerConn: 2, Size: 1 << 20, Count: 16},
		{Sessions: 2, PerConn: 40, Size: 16<<10 + 1, Count: 80},
		{Sessions: 3, PerConn: 7, Size: 512, Duration: 200 * time.Millisecond},
	}
	for i, cfg := range cases {
		for _, relayed := range []bool{false, true} {
			t.Run(fmt.Sprintf("case %d relayed %v", i, relayed), func(t *testing.T) {
				t.Parallel()
				cfg, l, run := cfg, net.Listener(nil), uint32(7)
				l, tracker := startSink(t)
				if relayed {
					l = startRelay(t, l.Addr())
				}
				cfg.Targets, cfg.Run = target(l), run
				cfg.Sources = []netip.Addr{netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.3")}
				tracker.Begin(run)
				expectAll(t, cfg, tracker)
			})
		}
	}
}

func expectAll(t *testing.T, cfg load.Config, tracker *sink.Tracker) {
	t.Helper()
	r, err := load.Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Faults) > 0 || len(r.Unacked) > 0 {
		t.Errorf("faults %v, unacked %v", r.Faults, r.Unacked)
	}
	if r.Messages == 0 || r.Messages != r.Attempted || (cfg.Count > 0 && r.Messages != cfg.Count) {
		t.Errorf("%d of %d attempted messages taken, want %d", r.Messages, r.Attempted, cfg.Count)
	}
	l := r.Latency
	if l.P50 <= 0 || l.P50 > l.P95 || l.P95 > l.P99 || l.P99 > l.Max || r.Session.P50 < l.P50 || r.Rate <= 0 {
		t.Errorf("latencies do not fit: %+v, session %+v, rate %v", l, r.Session, r.Rate)
	}
	got := tracker.Report(uint32(r.Attempted))
	if got.Received != r.Messages || got.Damaged+got.Doubled+got.Stray+len(got.Missing) > 0 {
		t.Errorf("sink reports %+v, want %d messages and nothing else", got, r.Messages)
	}
}

// TestTrackerNamesWhatIsMissing proves that loss, doubles and strays would be seen.
func TestTrackerNamesWhatIsMissing(t *testing.T) {
	t.Parallel()
	var tracker sink.Tracker
	tracker.Begin(3)
	for _, place := range []uint64{0, 1, 3, 3, 200} {
		tracker.Received(3<<32 | place)
	}
	tracker.Received(2<<32 | 4)
	tracker.Damaged()
	r := tracker.Report(6)
	if r.Received != 4 || r.Doubled != 1 || r.Stray != 1 || r.Damaged != 1 || !slices.Equal(r.Missing, []uint32{2, 4, 5}) {
		t.Errorf("report is %+v", r)
	}
	tracker.Begin(4)
	if r := tracker.Report(2); r.Received != 0 || !slices.Equal(r.Missing, []uint32{0, 1}) {
		t.Errorf("report after Begin is %+v", r)
	}
}

// TestLoadCountsRefusals runs against a server that refuses every recipient.
func TestLoadCountsRefusals(t *testing.T) {
	t.Parallel()
	l := listen(t)
	serve(t, l, func() error { return refuse(l) })
	cfg := load.Config{Targets: target(l), Sessions: 1, PerConn: 5, Size: 512, Count: 2}
	r, err := load.Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	f := r.Faults["RCPT: 550 5.7.1"]
	if r.Messages != 0 || f.Count != 2 || f.Sample != "RCPT: 550 5.7.1 No" || !slices.Equal(r.Unacked, []uint32{0, 1}) {
		t.Errorf("result is %+v", r)
	}
}

// refuse answers each session's lines by rote.
func refuse(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return nil
		}
		buf := make([]byte, 1024)
		for _, reply := range []string{"220 a\r\n", "250-a\r\n250 b\r\n", "250 ok\r\n", "550 5.7.1 No\r\n"} {
			if _, err := io.WriteString(c, reply); err != nil {
				break
			}
			if _, err := c.Read(buf); err != nil {
				break
			}
		}
		c.Close()
	}
}

func TestBadConfigIsRefused(t *testing.T) {
	t.Parallel()
	any := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")}
	for _, cfg := range []load.Config{
		{Sessions: 1, PerConn: 1, Size: 1000, Count: 1},
		{Targets: any, PerConn: 1, Size: 1000, Count: 1},
		{Targets: any, Sessions: 1, PerConn: 1, Size: 1000},
		{Targets: any, Sessions: 1, PerConn: 1, Size: 1, Count: 1},
	} {
		if _, err := load.Run(t.Context(), cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}
