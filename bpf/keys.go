package bpf

import (
	"fmt"
	"math"
	"math/bits"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// maxKeyBits is the part of a net key before the address: family and port.
const maxKeyBits = 32

func family(a netip.Addr) (uint16, [16]byte) {
	var b [16]byte
	if a.Is4() {
		v4 := a.As4()
		copy(b[:], v4[:])
		return uint16(mailFamilyFAMILY_4), b
	}
	return uint16(mailFamilyFAMILY_6), a.As16()
}

// checkPrefix refuses what the kernel would silently read as another prefix.
func checkPrefix(p netip.Prefix) error {
	switch {
	case !p.IsValid():
		return fmt.Errorf("could not use prefix %q: it is not valid", p)
	case p.Masked() != p:
		return fmt.Errorf("could not use prefix %s: bits beyond the length are set; write %s", p, p.Masked())
	case p.Addr().Is4In6() || p.Addr().Zone() != "":
		return fmt.Errorf("could not use prefix %s: write a plain IPv4 or IPv6 prefix", p)
	}
	return nil
}

func netKey(p netip.Prefix, port uint16) mailNetKey {
	f, a := family(p.Addr())
	return mailNetKey{Prefixlen: uint32(maxKeyBits + p.Bits()), Family: f, Port: htons(port), Addr: a}
}

func hostKey(p netip.Prefix) mailHostKey {
	f, a := family(p.Addr())
	return mailHostKey{Family: f, Bits: uint16(p.Bits()), Addr: a}
}

// isHost tells which prefixes stand in the exact table.
func isHost(p netip.Prefix) bool {
	return p.IsSingleIP() || p.Addr().Is6() && p.Bits() == 64
}

// isLong6 tells which prefixes make a hit on a /64 not the last word.
func isLong6(p netip.Prefix) bool {
	return p.Addr().Is6() && p.Bits() > 64 && p.Bits() < 128
}

func keyPrefix(f uint16, addr [16]byte, n int) netip.Prefix {
	if f == uint16(mailFamilyFAMILY_4) {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte(addr[:4])), n)
	}
	return netip.PrefixFrom(netip.AddrFrom16(addr), n)
}

func (k mailNetKey) prefix() netip.Prefix {
	return keyPrefix(k.Family, k.Addr, int(k.Prefixlen)-maxKeyBits)
}

func (k mailHostKey) prefix() netip.Prefix {
	return keyPrefix(k.Family, k.Addr, int(k.Bits))
}

// htons gives the port as the packet has it; the bindings are for little-endian machines only.
func htons(p uint16) uint16 { return bits.ReverseBytes16(p) }

// monotonic is the clock that the programs read, in nanoseconds.
func monotonic() (uint64, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0, fmt.Errorf("could not read the monotonic clock: %w", err)
	}
	return uint64(ts.Nano()), nil
}

// deadline turns a wall-clock time into the programs' clock: 0 for the zero time, 1 for what has passed.
func deadline(t time.Time) (uint64, error) {
	if t.IsZero() {
		return 0, nil
	}
	now, err := monotonic()
	if err != nil {
		return 0, err
	}
	left := min(time.Until(t), math.MaxInt64-time.Duration(now)) // centuries ahead: the end of this clock
	return uint64(max(int64(now)+int64(left), 1)), nil
}

// wallTime is the reverse of deadline, as exact as the two clocks are read together.
func wallTime(ns uint64) (time.Time, error) {
	if ns == 0 {
		return time.Time{}, nil
	}
	now, err := monotonic()
	if err != nil {
		return time.Time{}, err
	}
	return time.Now().Add(time.Duration(int64(ns) - int64(now))), nil
}
