package nft

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"sluice/bpf"
	"sluice/intercept/ruleset"
)

// The attributes of counters that package unix lacks.
const (
	objTable       = 1 // NFTA_OBJ_TABLE
	objName        = 2
	objType        = 3
	objData        = 4
	objectCounter  = 1 // NFT_OBJECT_COUNTER
	counterPackets = 2 // NFTA_COUNTER_PACKETS
	exprData       = 2 // NFTA_EXPR_DATA
	listElements   = 3 // NFTA_SET_ELEM_LIST_ELEMENTS
)

// Counters gives the packets by the reason that decided about them, since the table was made.
func (f *Filter) Counters() (map[string]uint64, error) {
	prefix := ruleset.FilterCounter("")
	got := make(map[string]uint64)
	err := query(unix.NFT_MSG_GETOBJ, func(b *batch) {
		b.attribute(objTable, ruleset.FilterTable+"\x00")
		b.number32(objType, objectCounter)
	}, func(a attrs) {
		name, ours := strings.CutPrefix(text(a.get(objName)), prefix)
		if ours && text(a.get(objTable)) == ruleset.FilterTable {
			got[name] = attrs(a.get(objData)).number(counterPackets)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("could not read the nftables counters: %w", err)
	}
	return got, nil
}

func text(b []byte) string { return string(bytes.TrimRight(b, "\x00")) }

// UserCounters gives the counters of every user seen, added up over his addresses.
func (f *Filter) UserCounters() (map[uint32]bpf.UserCounters, error) {
	all := make(map[uint32]bpf.UserCounters)
	for _, reason := range ruleset.UserCounters {
		for _, family := range []int{4, 6} {
			err := f.tally(fmt.Sprintf("by%d_%s", family, reason), func(a netip.Addr, n uint64) {
				u := f.userOf(a)
				c := all[u]
				*counterOf(&c, reason) += n
				all[u] = c
			})
			if err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

func counterOf(c *bpf.UserCounters, reason string) *uint64 {
	return map[string]*uint64{
		"syn": &c.SYN, "intercepted": &c.Intercepted, "passed": &c.Passed, "rejected": &c.Rejected, "dropped": &c.Dropped,
		"explained": &c.Explained, "lock_reset": &c.LockReset, "failed_open": &c.FailedOpen, "failed_closed": &c.FailedClosed,
		"spoofed": &c.Spoofed, "unparsed": &c.Unparsed, "lock_cut": &c.LockCut, "syn_limited": &c.SYNLimited,
	}[reason]
}

// userOf finds the user of an address, of IPv6 the first in its /64.
func (f *Filter) userOf(a netip.Addr) uint32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	for bits := a.BitLen(); bits >= 0; bits-- {
		if s, ok := f.state.sources[netip.PrefixFrom(a, bits).Masked()]; ok {
			return s.User
		}
	}
	return 0
}

// tally reads the elements of a set with their counters.
func (f *Filter) tally(set string, each func(netip.Addr, uint64)) error {
	err := query(unix.NFT_MSG_GETSETELEM, func(b *batch) {
		b.attribute(unix.NFTA_SET_ELEM_LIST_TABLE, ruleset.FilterTable+"\x00")
		b.attribute(unix.NFTA_SET_ELEM_LIST_SET, set+"\x00")
	}, func(a attrs) {
		attrs(a.get(listElements)).all(func(_ uint16, item []byte) bool {
			e := attrs(item)
			addr, ok := netip.AddrFromSlice(attrs(e.get(unix.NFTA_SET_ELEM_KEY)).get(dataValue))
			if ok {
				each(addr, e.counted())
			}
			return true
		})
	})
	if err != nil {
		return fmt.Errorf("could not read the nftables set %s: %w", set, err)
	}
	return nil
}

// counted is the packets of an element's counter; the kernel has two places for it.
func (a attrs) counted() uint64 {
	expr := a.get(setElemExpr)
	if expr == nil {
		expr = attrs(a.get(setElemExprs)).get(unix.NFTA_LIST_ELEM)
	}
	return attrs(attrs(expr).get(exprData)).number(counterPackets)
}
