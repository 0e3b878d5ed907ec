package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Duration is a time span written as "90s", "60m", "1h30m" or in days, "35d".
type Duration time.Duration

// UnmarshalText reads a duration. It may not be negative.
func (d *Duration) UnmarshalText(text []byte) error {
	s := string(text)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			*d = Duration(time.Duration(n) * 24 * time.Hour)
			return nil
		}
	}
	v, err := time.ParseDuration(s)
	if err != nil || v < 0 {
		return fmt.Errorf("%q is not a time span; write it like \"90s\", \"60m\", \"1h30m\" or \"35d\"", s)
	}
	*d = Duration(v)
	return nil
}

// String writes the duration as UnmarshalText reads it, whole days as days.
func (d Duration) String() string {
	const day = 24 * time.Hour
	v := time.Duration(d)
	if v >= 2*day && v%day == 0 {
		return strconv.FormatInt(int64(v/day), 10) + "d"
	}
	s := v.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// D returns the span as the standard library's type.
func (d Duration) D() time.Duration { return time.Duration(d) }

// Size is a number of bytes written as "512", "64KiB", "50MiB" or "2GiB".
type Size int64

var units = []struct {
	suffix string
	shift  int
}{{"GiB", 30}, {"MiB", 20}, {"KiB", 10}, {"B", 0}, {"", 0}}

// UnmarshalText reads a size.
func (z *Size) UnmarshalText(text []byte) error {
	s := string(text)
	for _, u := range units {
		digits, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(digits), 10, 40-u.shift)
		if err != nil {
			break
		}
		*z = Size(n << u.shift)
		return nil
	}
	return fmt.Errorf("%q is not a size; write it like \"64KiB\", \"50MiB\" or \"1GiB\"", s)
}

// String writes the size in the largest unit that divides it.
func (z Size) String() string {
	for _, u := range units {
		if z != 0 && u.suffix != "" && int64(z)%(1<<u.shift) == 0 {
			return strconv.FormatInt(int64(z)>>u.shift, 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(z), 10) + "B"
}

// Prefix is an address prefix; a single address may be written without its length.
type Prefix struct{ netip.Prefix }

// UnmarshalText reads a prefix. Bits behind its length must be zero, so that what is written is what is meant.
func (p *Prefix) UnmarshalText(text []byte) error {
	s := string(text)
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		if a.Is4In6() {
			return fmt.Errorf("%q is an IPv4-mapped address; write %s", s, a.Unmap())
		}
		p.Prefix = netip.PrefixFrom(a, a.BitLen())
		return nil
	}
	v, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return fmt.Errorf("%q is not an address prefix; write it like \"192.0.2.0/24\", \"2001:db8:1::/48\" or \"192.0.2.7\"", s)
	case v.Addr().Is4In6():
		return fmt.Errorf("%q is an IPv4-mapped prefix; write it as IPv4", s)
	case v != v.Masked():
		return fmt.Errorf("%q has bits set behind its length; write %s or the single address %s", s, v.Masked(), v.Addr())
	}
	p.Prefix = v
	return nil
}

// MarshalText writes the prefix as UnmarshalText reads it.
func (p Prefix) MarshalText() ([]byte, error) { return p.Prefix.MarshalText() }
