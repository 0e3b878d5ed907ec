package kernel

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
	"time"
)

// TestFrames: what the generator sends is what a router forwards.
func TestFrames(t *testing.T) {
	for _, k := range kinds() {
		b := k.frame()
		if len(b) != frameSize {
			t.Fatalf("%s: %d bytes", k, len(b))
		}
		if k.v6 {
			if got := int(binary.BigEndian.Uint16(b[18:])); got != frameSize-14-40 || b[14]>>4 != 6 {
				t.Errorf("%s: version %d, %d bytes", k, b[14]>>4, got)
			}
			continue
		}
		if s := fold(headerSum(b) + uint32(binary.BigEndian.Uint16(b[24:]))); s != 0xffff {
			t.Errorf("%s: header sums up to %#x", k, s)
		}
	}
	if a, b := bulkHost(false, 1<<17-1), bulkHost(true, 70000); a.String() != "198.19.255.255/32" || b.String() != "2001:db8:8001:1170::/64" {
		t.Errorf("bulk hosts are %v and %v", a, b)
	}
}

// TestTargets: what is missed is named, what was not measured is not promised.
func TestTargets(t *testing.T) {
	r := &Result{
		Users:   []int{1, 100, 1000},
		Alone:   []Cost{{"UDP", 1, false, 11}, {"TCP 443, IPv6", 1000, false, 13}},
		InSitu:  []Cost{{"SYN to 25, passed", 100, false, 100}, {"SYN to 25, passed", 100, true, 120}, {"SYN to 25, passed", 1000, false, 250}, {"SYN to 25, passed", 1000, true, 400}},
		Streams: streams(2000, 2020, 2100),
		Forwards: []Forward{{empty, "UDP", 1000, 1}, {empty, "TCP 443", 1000, 1}, {rulesAlone, "TCP 443", 1090, 0.92},
			{"sluice, 1000 users", "UDP", 1010, 0.99}, {"sluice, 1000 users", "TCP 443", 1100, 0.91}, {byRules, "TCP 443", 1100, 0.91}},
		Interfaces: 20,
		Many:       []Forward{{"sluice, 1000 users, 1", "UDP", 1000, 0.7}, {"sluice, 1000 users, 20", "UDP", 1100, 0.7}},
		Memory:     []Memory{{"source_hosts", 1000, 1 << 20, 0.1}},
	}
	err := r.Missed()
	if err == nil {
		t.Fatal("nothing is missed")
	}
	for name, missed := range map[string]bool{
		"no mail": true, "every source different: SYN": true,
		"forwarding UDP alone, beside an empty": false, "forwarding TCP 443 alone, beside an empty": true, "forwarding TCP 443 alone, beside policy": false,
		"UDP, 64 bytes through sluice, 1000 users, beside": false, "UDP, 64 bytes through sluice, 1000 users, with the guard": true,
		"forwarding UDP with 20": true, "100 k": false, "tracked": false,
	} {
		if strings.Contains(err.Error(), name) != missed {
			t.Errorf("missed: %v; %q among them: want %v", err, name, missed)
		}
	}
	var out bytes.Buffer
	if err := r.Write(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| UDP | 11 |", "1010 (0.99)", "| UDP, 64 bytes (64 bytes) | sluice, 1000 users | 2020 | 32320 | 0.990 (0.990–0.990) | 0.990 (0.990–0.990) | 100 % |", "| source_hosts | 1 k | 1.0 | 1048 | 0.10 |", "**missed**", "kept"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the report has no %q:\n%s", want, out.String())
		}
	}
}

// streams are what three ways took for a packet, in two rounds.
func streams(plainly, ours, withGuard time.Duration) (list []Stream) {
	rounds := func(ns time.Duration) []sample { s := sample{1, 64, ns, ns}; return []sample{s, s} }
	for way, ns := range map[string]time.Duration{plain: plainly, "sluice, 1000 users": ours, "sluice, 1000 users" + guarded: withGuard} {
		list = append(list, stream(way, "UDP, 64 bytes", rounds(ns), rounds(plainly)))
	}
	return list
}

// TestMedian: the bounds hold what a hundred throws of a coin would.
func TestMedian(t *testing.T) {
	var list []float64
	for i := range 100 {
		list = append(list, float64(100-i))
	}
	for n, want := range map[int]Middle{1: {100, 100, 100}, 2: {99.5, 99, 100}, 100: {50.5, 41, 60}} {
		if got := median(list[:n]); got != want {
			t.Errorf("of %d: %v, want %v", n, got, want)
		}
	}
}
