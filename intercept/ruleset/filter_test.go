package ruleset

import "testing"

func TestFilter(t *testing.T) {
	t.Parallel()
	plain := Filter{Mark: 0x01000000, JudgedMark: 0x02000000, Port: 10025, Ports: []FilterPort{{Port: 25}}, Default: "intercept", Rates: []int{0}}
	golden(t, "filter-sets.nft", plain.Sets())
	golden(t, "filter-rules.nft", plain.Rules())
	full := Filter{
		Mark: 0x100, JudgedMark: 0x200, Port: 2000, Default: "reject", ReversePath: true, Budgets: []int{3, 10}, PerSecond: 100, Rates: []int{0, 100, 2000},
		Ports: []FilterPort{{Port: 25}, {Port: 2525}, {465, "pass"}, {587, "reject"}},
	}
	golden(t, "filter-full-sets.nft", full.Sets())
	golden(t, "filter-full-rules.nft", full.Rules())
}
