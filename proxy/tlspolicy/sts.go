package tlspolicy

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Mode is what a domain wants done where its MTA-STS policy is not met (RFC 8461 5).
type Mode string

// The modes.
const (
	ModeNone    Mode = "none"    // nothing: there is no policy any more
	ModeTesting Mode = "testing" // mail goes on, and it is told
	ModeEnforce Mode = "enforce" // no mail goes that way
)

// STS is a domain's MTA-STS policy (RFC 8461 3.2).
type STS struct {
	Mode   Mode
	MX     []string      // names of hosts; "*.example.org" is any with one label more
	MaxAge time.Duration // how long it may be kept
}

// Bounds of what a domain may publish.
const (
	mostPolicy   = 64 << 10               // bytes (RFC 8461 3.3)
	mostPatterns = 1000                   // names of hosts
	mostAge      = 31557600 * time.Second // a year (RFC 8461 3.2)
	stsVersion   = "STSv1"
)

// ErrNoSTS: the domain announces no policy.
var ErrNoSTS = errors.New("no MTA-STS record")

// ParseSTSRecord reads the texts at _mta-sts.<domain> and returns the policy's id. The error is ErrNoSTS where there is
// no record, and something else where there are several or it cannot be read: then there is no policy either
// (RFC 8461 3.1).
func ParseSTSRecord(texts []string) (id string, err error) {
	var record string
	n := 0
	for _, t := range texts {
		if rest, ok := strings.CutPrefix(t, "v="+stsVersion); ok && strings.HasPrefix(strings.TrimLeft(rest, " \t"), ";") {
			record, n = rest, n+1
		}
	}
	switch {
	case n == 0:
		return "", ErrNoSTS
	case n > 1:
		return "", errors.New("there are several MTA-STS records")
	}
	for field := range strings.SplitSeq(record, ";") {
		k, v, _ := strings.Cut(strings.Trim(field, " \t"), "=")
		if k == "id" && id == "" {
			id = v
		}
	}
	if len(id) == 0 || len(id) > 32 || strings.ContainsFunc(id, notAlphanumeric) {
		return "", errors.New("the MTA-STS record has no id of 1 to 32 letters and digits")
	}
	return id, nil
}

func notAlphanumeric(r rune) bool {
	return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
}

// ParseSTS reads the policy's file. What it does not know it passes over; of a key that comes twice the first counts,
// but for mx (RFC 8461 3.2).
func ParseSTS(file []byte) (*STS, error) {
	if len(file) > mostPolicy {
		return nil, fmt.Errorf("the policy has more than %d bytes", mostPolicy)
	}
	p := &STS{MaxAge: -1}
	version := ""
	for line := range bytes.SplitSeq(file, []byte("\n")) {
		k, v, ok := strings.Cut(strings.TrimSuffix(string(line), "\r"), ":")
		if !ok {
			continue
		}
		v = strings.Trim(v, " \t")
		switch strings.Trim(k, " \t") {
		case "version":
			if version == "" {
				version = v
			}
		case "mode":
			if p.Mode == "" {
				p.Mode = Mode(v)
			}
		case "max_age":
			if p.MaxAge < 0 {
				n, err := strconv.ParseUint(v, 10, 32)
				if err != nil || len(v) > 10 {
					return nil, fmt.Errorf("its max_age %q is no number of seconds", clean(v))
				}
				p.MaxAge = min(time.Duration(n)*time.Second, mostAge)
			}
		case "mx":
			if err := p.add(v); err != nil {
				return nil, err
			}
		}
	}
	switch {
	case version != stsVersion:
		return nil, fmt.Errorf("its version is %q, not %s", clean(version), stsVersion)
	case p.Mode != ModeNone && p.Mode != ModeTesting && p.Mode != ModeEnforce:
		return nil, fmt.Errorf("its mode %q is not known", clean(string(p.Mode)))
	case p.MaxAge < 0:
		return nil, errors.New("it has no max_age")
	case len(p.MX) == 0 && p.Mode != ModeNone:
		return nil, errors.New("it names no mx")
	}
	return p, nil
}

// add takes one name of a host, or pattern.
func (p *STS) add(name string) error {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if bare := strings.TrimPrefix(name, "*."); !hostName(bare) {
		return fmt.Errorf("its mx %q is no name of a host", clean(name))
	}
	if len(p.MX) >= mostPatterns {
		return fmt.Errorf("it has more than %d mx", mostPatterns)
	}
	p.MX = append(p.MX, name)
	return nil
}

// Lists tells whether the policy names a mail exchanger (RFC 8461 4.1).
func (p *STS) Lists(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return slices.ContainsFunc(p.MX, func(pattern string) bool {
		below, any := strings.CutPrefix(pattern, "*.")
		if !any {
			return host == pattern
		}
		label, rest, ok := strings.Cut(host, ".")
		return ok && label != "" && rest == below
	})
}

// hostName tells whether s can be the name of a host on the internet: labels of letters, digits, hyphens and, since some
// have it, underscores.
func hostName(s string) bool {
	if len(s) == 0 || len(s) > 253 {
		return false
	}
	n := 0
	for label := range strings.SplitSeq(s, ".") {
		if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		if strings.ContainsFunc(label, func(r rune) bool { return notAlphanumeric(r) && r != '-' && r != '_' }) {
			return false
		}
		n++
	}
	return n > 0
}
