package lock

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/filter"
	"sluice/filter/policy"
)

// TestMoreOfTheSame: while mail of a sender was found bad within the window, what is likelier bad than good waits; what is
// good goes on, and so does what others send, what was only forwarded, and what a setting lets go.
func TestMoreOfTheSame(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer func() { w.keeper.Close() }()
		send := func(user uint32, identity, text string, hits ...filter.Hit) *filter.Verdict {
			m, v := mail(user, text), filter.Judge(hits)
			m.Identity, m.Forwarded = identity, strings.HasPrefix(text, "forwarded")
			if strings.HasSuffix(text, "likely") {
				m.Found.Likely = 60
			}
			w.keeper.Judged(m, &v)
			return &v
		}
		unsure := filter.Hit{Check: "learned", Code: "UNSURE", Score: 0.9}
		delivered := filter.Hit{Check: "learned", Code: "SPAM", Class: filter.Spam, Score: 0.99}
		try := func(when, identity string, held bool) {
			t.Helper()
			for text, hits := range map[string][]filter.Hit{"likely": nil, "unsure": {unsure}, "unsure and likely": {unsure}} {
				v := send(1, identity, text, hits...)
				if h := v.Decisive(); v.Refused() != held || held && (h.Code != CodeHeld || h.SMTP != 451 || !strings.Contains(h.Text, "more of it")) {
					t.Errorf("%s, %q: %s is answered %+v; held should be %v", when, identity, text, v, held)
				}
			}
			for text, hits := range map[string][]filter.Hit{"good": nil, "let go, and likely": {delivered}, "forwarded and likely": nil, "forwarded": {unsure}} {
				if v := send(1, identity, text, hits...); v.Refused() {
					t.Errorf("%s, %q: %s is answered %+v", when, identity, text, v)
				}
			}
		}
		try("before", "shop", false)
		w.sendAs(1, "shop", "spam", filter.Spam)
		try("after bad mail", "shop", true)
		try("after another's bad mail", "office", false)
		if v := send(2, "", "likely"); v.Refused() {
			t.Errorf("another user: %+v", v)
		}
		time.Sleep(11 * time.Minute)
		try("after the window", "shop", false)
		w.sendAs(1, "", "spam", filter.Spam)
		try("after bad mail of nobody known", "office", true)
		time.Sleep(11 * time.Minute)
		off := false
		w.table.Override(1, policy.Overrides{LockAutomatic: &off})
		w.sendAs(1, "shop", "spam", filter.Spam)
		try("where nothing is locked by itself", "shop", false)
	})
}
