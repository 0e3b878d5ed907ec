package ruleset

import "fmt"

// Foreign is a policy rule that is not ours.
type Foreign struct {
	Family   int
	Priority uint32
	Text     string
}

// Conflicts names the foreign rules that stand where they disturb ours: before them a rule could route an intercepted
// packet away, between them the host's own traffic would jump over it. The kernel's rule 0, for local addresses, is none.
func Conflicts(first uint32, foreign []Foreign) []string {
	var out []string
	for _, f := range foreign {
		switch {
		case f.Priority == 0 || f.Priority > first+20:
		case f.Priority <= first+10:
			out = append(out, fmt.Sprintf("rule %d (%s) comes before ours and may forward intercepted packets; set intercept.rule_priority below %d", f.Priority, f.Text, f.Priority))
		default:
			out = append(out, fmt.Sprintf("rule %d (%s) stands between ours, so the host's own packets skip it; set intercept.rule_priority so that %d to %d are free", f.Priority, f.Text, first, first+20))
		}
	}
	return out
}
