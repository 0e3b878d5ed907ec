package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sluice/bpf"
	"sluice/intercept/ruleset"
)

// StandingLocks reads the locks of a table that an earlier process left, which may be newer than any file. A lock comes
// back in the pieces that the table has of it. Without a table there are none and the answer is false.
func StandingLocks(now time.Time) (locks []bpf.Lock, stands bool, err error) {
	if stands, err = Stands(); err != nil || !stands {
		return nil, false, err
	}
	for _, family := range []int{4, 6} {
		ids, err := readRuns(fmt.Sprint("lockid", family), family)
		if err != nil {
			return nil, true, err
		}
		chains, err := readRuns(fmt.Sprint("lock", family), family)
		if err != nil {
			return nil, true, err
		}
		cut, err := readRuns(fmt.Sprint("cut", family), family)
		if err != nil {
			return nil, true, err
		}
		for _, r := range ids {
			l := bpf.Lock{ID: r.user(), KeepFlows: !slices.ContainsFunc(cut, r.startsWith)}
			if i := slices.IndexFunc(chains, r.startsWith); i >= 0 {
				l.Budget = budgetOf(chains[i].chain)
			}
			if r.left > 0 {
				l.Until = now.Add(r.left)
			}
			for _, p := range ruleset.Prefixes(r.first, r.last) {
				l.Prefix = p
				locks = append(locks, l)
			}
		}
	}
	return locks, true, nil
}

// budgetOf reads the budget out of the name of a lock's chain, like explain_10_4.
func budgetOf(chain string) uint16 {
	rest, explained := strings.CutPrefix(chain, "explain_")
	number, _, _ := strings.Cut(rest, "_")
	n, err := strconv.ParseUint(number, 10, 16)
	if !explained || err != nil {
		return 0
	}
	return uint16(n)
}

// standing is an interval that the kernel holds.
type standing struct {
	first, last netip.Addr
	chain       string
	value       []byte
	left        time.Duration // 0: for good
}

func (r standing) startsWith(o standing) bool { return r.first == o.first }

func (r standing) user() uint32 {
	if len(r.value) != 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(r.value)
}

// readRuns reads the intervals of a set: the kernel has each as two elements, the first address and the one behind it.
func readRuns(set string, family int) ([]standing, error) {
	type edge struct {
		standing
		end bool
	}
	var edges []edge
	err := query(unix.NFT_MSG_GETSETELEM, func(b *batch) {
		b.attribute(unix.NFTA_SET_ELEM_LIST_TABLE, ruleset.FilterTable+"\x00")
		b.attribute(unix.NFTA_SET_ELEM_LIST_SET, set+"\x00")
	}, func(a attrs) {
		attrs(a.get(listElements)).all(func(_ uint16, item []byte) bool {
			e := attrs(item)
			addr, ok := netip.AddrFromSlice(attrs(e.get(unix.NFTA_SET_ELEM_KEY)).get(dataValue))
			if !ok {
				return true
			}
			data := attrs(e.get(unix.NFTA_SET_ELEM_DATA))
			edges = append(edges, edge{standing{
				first: addr, value: slices.Clone(data.get(dataValue)), chain: text(attrs(data.get(dataVerdict)).get(verdictChain)),
				left: time.Duration(e.number(unix.NFTA_SET_ELEM_EXPIRATION)) * time.Millisecond,
			}, e.number(unix.NFTA_SET_ELEM_FLAGS)&unix.NFT_SET_ELEM_INTERVAL_END != 0})
			return true
		})
	})
	if err != nil {
		return nil, fmt.Errorf("could not read the nftables set %s: %w", set, err)
	}
	slices.SortFunc(edges, func(a, b edge) int {
		if c := a.first.Compare(b.first); c != 0 || a.end == b.end {
			return c
		}
		if a.end {
			return -1
		}
		return 1
	})
	var out []standing
	for i, e := range edges {
		if e.end {
			continue
		}
		e.last = ruleset.LastOf(everything(family))
		if i+1 < len(edges) {
			e.last = edges[i+1].first.Prev()
		}
		out = append(out, e.standing)
	}
	return out, nil
}
