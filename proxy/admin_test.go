package proxy

import (
	"testing"
	"time"
)

// TestAdminBudgetIsHandedOver: what another process let go on counts here.
func TestAdminBudgetIsHandedOver(t *testing.T) {
	t.Parallel()
	var s Server
	s.SpendAdmin(7, adminPerHour-1)
	now := time.Now()
	if !s.admin.take(7, now) || s.admin.take(7, now) {
		t.Error("of a budget that lacks one, not exactly one is left")
	}
	if !s.admin.take(8, now) {
		t.Error("another user's budget is used up")
	}
	if got := s.AdminSpent(); got[7] != adminPerHour || got[8] != 1 {
		t.Errorf("spent: %v", got)
	}
}
