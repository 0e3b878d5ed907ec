package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// top counts things and names those that come most often.
type top[K comparable] struct {
	n     map[K]int
	total int
}

func newTop[K comparable]() *top[K] { return &top[K]{n: map[K]int{}} }

func (t *top[K]) add(k K, n int) {
	t.n[k] += n
	t.total += n
}

// keys returns the most frequent ones, at most so many. Equal ones come in the order of their texts.
func (t *top[K]) keys(most int) []K {
	all := slices.SortedFunc(maps.Keys(t.n), func(a, b K) int {
		if c := cmp.Compare(t.n[b], t.n[a]); c != 0 || len(t.n) > 10_000 {
			return c
		}
		return strings.Compare(fmt.Sprint(a), fmt.Sprint(b))
	})
	return all[:min(most, len(all))]
}

// text names the most frequent ones with their counts.
func (t *top[K]) text(most int) string {
	var parts []string
	for _, k := range t.keys(most) {
		parts = append(parts, fmt.Sprintf("%v %d", k, t.n[k]))
	}
	if more := len(t.n) - most; more > 0 {
		parts = append(parts, fmt.Sprintf("%d more", more))
	}
	return strings.Join(parts, ", ")
}
