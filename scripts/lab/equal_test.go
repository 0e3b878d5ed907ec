//go:build labtest

package lab

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// decision is what the log says that enforcement would have done with one message, and what was read of it.
type decision struct {
	would string // code and public code
	read  string // recipients and the destination's last word
	torn  bool   // and that parts were lost
}

// outcome is what the log of one lab says, by sender, and how many pieces its observer says it lost.
type outcome struct {
	decisions map[string]decision
	lost      int
}

// replayLimits make every kind of refusal common.
const replayLimits = `
[limits]
messages_per_hour = %d
recipients_per_hour = %d
recipients_per_message = 9
message_size = "1MiB"
`

// decisions replays the sessions on a lab of their own whose customers are all in one mode, by one data path, and reads
// the log.
func decisions(ctx context.Context, t *testing.T, mode, path string, plans [][][]letterPlan, messages int) outcome {
	t.Helper()
	l := ForTest(t, Options{Customers: replayUsers()})
	config := strings.Replace(GatewayConfig, `name = "{{.Name}}"`, `name = "{{.Name}}"
mode = "`+mode+`"`, 1)
	config = strings.Replace(config, "[intercept]", "[intercept]\npath = \""+path+"\"", 1)
	config = strings.Replace(config, "automatic = true", "automatic = true\nspam_count = 1\nspam_share = 0.01", 1)
	g := startGatewayWith(t, l, config+fmt.Sprintf(replayLimits, messages*6/10, messages*9/10))
	if mode == "observe" {
		if _, err := g.StartObserve(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Sink("sink").Script("rcpt@bad*: reply 550 5.1.1 no such user", "rcpt@later*: reply 451 4.2.0 later"); err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{}
	var wg sync.WaitGroup
	for i, c := range l.Customers() {
		for _, s := range plans[i] {
			for _, letter := range s {
				want[letter.from] = true
			}
		}
		wg.Go(func() {
			replay(ctx, t, l, c, plans[i], func() {
				if mode == "shadow" { // nobody there waits for a verdict, and each counts for the next
					left(ctx, t, g, c.Name)
				}
			})
		})
	}
	if wg.Wait(); t.Failed() {
		t.FailNow()
	}
	for got := map[string]decision{}; ; {
		var all []struct {
			From, Would, Remote, Note string
			To                        []struct {
				Address string
				Code    int
			}
		}
		if err := sluiceJSON(ctx, g, &all, "log", "--limit", "100000"); err != nil {
			t.Fatal(err)
		}
		for _, m := range all {
			from := strings.TrimSuffix(strings.TrimPrefix(m.From, "FROM:<"), ">")
			if !want[from] {
				continue
			}
			d := decision{torn: strings.HasPrefix(m.Note, "parts were lost")}
			if m.Note != "no message was sent" { // an observer tells the last reply, whatever it answered
				d.read = m.Remote
			}
			for _, to := range m.To {
				d.read += fmt.Sprintf(" %s=%d", to.Address, to.Code)
			}
			if d.would, _, _ = strings.Cut(m.Would, "]"); m.Would != "" {
				d.would += "]"
			}
			got[from] = d
		}
		if len(got) == len(want) {
			return outcome{got, observerLost(ctx, t, g)}
		}
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			for from := range want {
				if _, ok := got[from]; !ok {
					t.Logf("%s is not in the log of %s", from, mode)
				}
			}
			return outcome{decisions: got}
		}
	}
}

// observerLost is how many pieces the observer says it lost.
func observerLost(ctx context.Context, t *testing.T, g *Gateway) int {
	t.Helper()
	var r struct {
		Observer struct {
			LostPieces int `json:"lost_pieces"`
		}
	}
	if err := sluiceJSON(ctx, g, &r, "observe"); err != nil {
		t.Error(err)
	}
	return r.Observer.LostPieces
}

// TestObserveDecidesLikeShadow: the same traffic of the same users, once through the proxy in shadow and once past it and
// only observed, brings the same decisions: limits, senders, locks, and what the beginning of a message tells.
func TestObserveDecidesLikeShadow(t *testing.T) {
	t.Parallel()
	each := 48
	if n, err := strconv.Atoi(os.Getenv("SLUICE_SOAK_MESSAGES")); err == nil && n > 0 {
		each = n / len(replayUsers())
	}
	const seed = 20
	var plans [][][]letterPlan
	for i := range replayUsers() {
		plans = append(plans, replayPlan(seed, i, each))
	}
	by := map[string]*outcome{"shadow by tcx": {}, "observe by tcx": {}, "observe by clsact": {}, "observe by nftables": {}}
	t.Run("replay", func(t *testing.T) {
		for name, got := range by {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				ctx := testContext(t)
				mode, path, _ := strings.Cut(name, " by ")
				*got = decisions(ctx, t, mode, path, plans, each)
			})
		}
	})
	if t.Failed() {
		return
	}
	shadow := by["shadow by tcx"].decisions
	if len(shadow) < 8*each {
		t.Errorf("%d messages in shadow, want at least %d", len(shadow), 8*each)
	}
	kinds := map[string]int{}
	for _, d := range shadow {
		kinds[d.would]++
	}
	t.Logf("by decision: %v", kinds)
	for _, code := range []string{"RATE-MSG", "RATE-RCPT", "RCPT-MAX", "SENDER-SYNTAX", "SIZE", "GTUBE", "LOCKED"} {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(kinds)), func(k string) bool { return strings.Contains(k, "["+code+"]") }) {
			t.Errorf("no decision %s in the whole replay: %v", code, kinds)
		}
	}
	for name, observed := range by {
		if strings.HasPrefix(name, "observe") {
			compare(t, name, shadow, *observed)
		}
	}
}

// compare holds that at most one in a thousand messages was decided, or read, otherwise; of a few hundred one may be, since a
// message at the edge of a window is in it or not by the moment. On a machine that has no time for
// the observer, pieces are lost: he must count them, and the few messages that they belong to must say so.
func compare(t *testing.T, name string, shadow map[string]decision, by outcome) {
	differ, unread, torn, observed := 0, 0, 0, by.decisions
	for from, s := range shadow {
		o, ok := observed[from]
		if o.torn && by.lost > 0 {
			torn++
			continue
		}
		if !ok || o.would != s.would {
			if differ++; differ <= 10 {
				t.Logf("%s: %s: %q in shadow, %q observed (%v)", name, from, s.would, o.would, ok)
			}
		}
		if o.read != s.read {
			if unread++; unread <= 10 {
				t.Logf("%s: %s: read as\n%s\nin shadow, as\n%s\nobserved (torn: %v, %d pieces lost)", name, from, s.read, o.read, o.torn, by.lost)
			}
		}
	}
	t.Logf("%s: of %d messages %d are decided and %d read otherwise than in shadow, %d have parts missing", name, len(shadow), differ, unread, torn)
	few := max(1000, len(shadow))
	if len(observed) != len(shadow) || differ*1000 > few || unread*1000 > few || torn*100 > len(shadow) {
		t.Errorf("%s: of %d messages %d are there, %d decided and %d read otherwise: more than 1 in 1000; %d have parts missing", name, len(shadow), len(observed), differ, unread, torn)
	}
}
