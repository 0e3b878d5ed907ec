package pool

import "maps"

// makeRoom deletes from a map what is old, and only where that leaves more than seven eighths of most whatever comes first,
// which is learnt again.
func makeRoom[K comparable, V any](m map[K]V, most int, old func(V) bool) {
	maps.DeleteFunc(m, func(_ K, v V) bool { return old(v) })
	for k := range m { // map order is as good as random
		if len(m) <= most*7/8 {
			return
		}
		delete(m, k)
	}
}
