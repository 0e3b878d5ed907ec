package policy

import "testing"

// TestHourly: whatever bounds more than an hour, or is only reported, is no limit of an hour alone.
func TestHourly(t *testing.T) {
	t.Parallel()
	if !new(Limits).Hourly() || !DefaultLimits().Hourly() {
		t.Error("no limits, and the usual ones, are not those of an hour alone")
	}
	alone := map[LimitKind]bool{MessagesHour: true, RecipientsHour: true, InvalidHour: true, InvalidShare: true, FailedHour: true, NullHour: true, QueuedMessages: true}
	for k := range LimitKinds {
		l := DefaultLimits()
		if l.Max[k] = 1; l.Hourly() != alone[k] {
			t.Errorf("with %s: %t", k, l.Hourly())
		}
		beside := k == NullHour || k == QueuedMessages
		if l.Shadow[k] = true; l.Hourly() != beside {
			t.Errorf("with %s that is only reported: %t", k, l.Hourly())
		}
	}
}
