package kernel

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// Write prints the tables as they stand in the documentation.
func (r *Result) Write(w io.Writer) error {
	var b strings.Builder
	b.WriteString("The program alone: nanoseconds per packet above an empty program, the same packet again and again\n\n")
	r.writeCosts(&b, r.Alone)
	b.WriteString("\nAmong forwarded packets: nanoseconds per packet above an empty program, by the kernel's statistics\n\n")
	r.writeCosts(&b, r.InSitu)
	b.WriteString("\nForwarding: nanoseconds per packet through the gateway, and throughput as a ratio to plain forwarding\n\n")
	writeForwards(&b, r.Forwards)
	fmt.Fprintf(&b, "\nThe same with 1 and with %d customer interfaces\n\n", r.Interfaces)
	writeForwards(&b, r.Many)
	b.WriteString("\nStreams of real sockets, sender, gateway and receiver on one processor: medians, and the bounds of the median's 95 %. With 0.98 is\n" +
		"compared the CPU time of a packet, plain forwarding's by that of the way: what one processor can forward is its inverse, and what\n" +
		"others do on the machine moves it least. Bytes per second by the clock stand beside it.\n\n")
	writeStreams(&b, r.Streams)
	b.WriteString("\nConnections: set up, one byte read, reset\n\n| way | connections/s | ratio | CPU µs, both ends and all between |\n|---|---:|---:|---:|\n")
	for _, c := range r.Connects {
		fmt.Fprintf(&b, "| %s | %.0f | %.2f | %.0f |\n", c.Way, c.Rate, c.Ratio, c.CPU)
	}
	fmt.Fprintf(&b, "\nEntries of connection tracking in Sluice's gateways: %d\n", r.Tracked)
	b.WriteString("\nMemory\n\n| table | users | MiB | bytes per user | filled in s |\n|---|---:|---:|---:|---:|\n")
	for _, m := range r.Memory {
		fill := "–"
		if m.Table == "source_hosts" {
			fill = fmt.Sprintf("%.2f", m.Fill)
		}
		fmt.Fprintf(&b, "| %s | %s | %.1f | %d | %s |\n", m.Table, count(m.Users), float64(m.Bytes)/(1<<20), m.Bytes/uint64(m.Users), fill)
	}
	b.WriteString("\nTargets\n\n| target | measured | |\n|---|---|---|\n")
	for _, t := range r.Targets() {
		verdict := "kept"
		if !t.Kept {
			verdict = "**missed**"
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", t.Name, t.Measured, verdict)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func count(n int) string {
	switch {
	case n >= 1_000_000 && n%1_000_000 == 0:
		return strconv.Itoa(n/1_000_000) + " M"
	case n >= 1000 && n%1000 == 0:
		return strconv.Itoa(n/1000) + " k"
	}
	return strconv.Itoa(n)
}

// writeCosts has a line for each kind and a column for each number of users.
func (r *Result) writeCosts(b *strings.Builder, list []Cost) {
	b.WriteString("| packet |")
	for _, n := range r.Users {
		fmt.Fprintf(b, " %s |", count(n))
	}
	b.WriteString("\n|---|" + strings.Repeat("---:|", len(r.Users)) + "\n")
	for _, k := range kinds() {
		for _, cold := range []bool{false, true} {
			line, any := "| "+k.String(), false
			if cold {
				line += ", every source different"
			}
			for _, n := range r.Users {
				c, ok := find(list, k.String(), n, cold)
				any = any || ok
				if ok {
					line += fmt.Sprintf(" | %.0f", c.NS)
				} else {
					line += " | "
				}
			}
			if any {
				b.WriteString(line + " |\n")
			}
		}
	}
}

func find(list []Cost, kind string, users int, cold bool) (Cost, bool) {
	i := slices.IndexFunc(list, func(c Cost) bool { return c.Kind == kind && c.Users == users && c.Cold == cold })
	if i < 0 {
		return Cost{}, false
	}
	return list[i], true
}

// writeForwards has a line for each way and a column for each kind.
func writeForwards(b *strings.Builder, list []Forward) {
	b.WriteString("| way |")
	for _, k := range forwardKinds() {
		fmt.Fprintf(b, " %s |", k)
	}
	b.WriteString("\n|---|" + strings.Repeat("---:|", len(forwardKinds())))
	var ways []string
	for _, f := range list {
		if !slices.Contains(ways, f.Way) {
			ways = append(ways, f.Way)
		}
	}
	for _, way := range ways {
		fmt.Fprintf(b, "\n| %s |", way)
		for _, f := range list {
			if f.Way == way {
				fmt.Fprintf(b, " %.0f (%.2f) |", f.NS, f.Ratio)
			}
		}
	}
	b.WriteString("\n")
}

// writeStreams has a line for each flood and way.
func writeStreams(b *strings.Builder, list []Stream) {
	b.WriteString("| what | way | CPU ns per packet | per KiB | plain : way | bytes/s, way : plain | CPU of the time |\n|---|---|---:|---:|---:|---:|---:|\n")
	for _, s := range list {
		fmt.Fprintf(b, "| %s (%.0f bytes) | %s | %.0f | %.0f | %s | %s | %.0f %% |\n", s.Kind, s.Bytes, s.Way, s.NS, s.NS/s.Bytes*1024, s.Cheaper, s.Faster, 100*s.Share)
	}
}

// String gives the median and its bounds.
func (m Middle) String() string { return fmt.Sprintf("%.3f (%.3f–%.3f)", m.Median, m.Low, m.High) }

// Target is one promise and what became of it.
type Target struct {
	Name     string `json:"name"`
	Measured string `json:"measured"`
	Kept     bool   `json:"kept"`
}

// What is promised: nanoseconds above an empty program, and ratios.
const (
	mostForeign = 12
	mostData    = 75
	mostSYN     = 300
	mostGrowth  = 3
	leastRatio  = 0.98
)

// Targets compares the figures with what is promised; a size that was not measured promises nothing.
func (r *Result) Targets() (list []Target) {
	worst := func(costs []Cost, users int, names ...string) (ns float64, ok bool) {
		for _, c := range costs {
			if slices.Contains(names, strings.TrimSuffix(c.Kind, ", IPv6")) && !c.Cold && (users == 0 || c.Users == users) {
				ns, ok = max(ns, c.NS), true
			}
		}
		return ns, ok
	}
	bound := func(name string, most float64, ns float64, ok bool) {
		if ok {
			list = append(list, Target{fmt.Sprintf("%s: at most %.0f ns", name, most), fmt.Sprintf("%.0f ns", ns), ns <= most})
		}
	}
	ns, ok := worst(r.Alone, 0, "UDP", "TCP 443")
	bound("no mail, any number of users, both families", mostForeign, ns, ok)
	ns, ok = worst(r.Alone, 0, "port 25, data of a passed flow")
	bound("port 25, data of a passed flow, warm, alone", mostData, ns, ok)
	ns, ok = worst(r.InSitu, 100_000, "port 25, data of a passed flow")
	bound("the same among forwarded packets, 100 k users", mostData, ns, ok)
	ns, ok = worst(r.InSitu, 100_000, "SYN to 25, intercepted, every check on")
	bound("SYN, warm, every check on, 100 k users", mostSYN, ns, ok)
	list = append(list, r.growth()...)
	list = append(list, streamTargets(r.Streams)...)
	list = append(list, forwardTargets(r.Forwards)...)
	list = append(list, r.manyTargets()...)
	return append(list, Target{"no connection is tracked", fmt.Sprintf("%d entries", r.Tracked), r.Tracked == 0})
}

// growth compares a SYN among most users with one among few: the same source again and again, and every source different.
func (r *Result) growth() (list []Target) {
	most := slices.Max(r.Users)
	for _, k := range kinds() {
		for _, cold := range []bool{false, true} {
			few, some := find(r.InSitu, k.String(), fewSources, cold)
			many, found := find(r.InSitu, k.String(), most, cold)
			if k.flags != syn || k.from.IsValid() || !some || !found || most < 10*fewSources {
				continue
			}
			name := fmt.Sprintf("%s, %s users: at most %d times that at %s", k, count(most), mostGrowth, count(fewSources))
			if cold {
				name = "every source different: " + name
			}
			list = append(list, Target{name, fmt.Sprintf("%.1f", many.NS/few.NS), many.NS <= mostGrowth*few.NS})
		}
	}
	return list
}

// forwardTargets compares packets made in the kernel, which meet nothing but forwarding, with the same packets and a program
// that does nothing; with policy rules, with forwarding that has the same.
func forwardTargets(all []Forward) (list []Target) {
	for _, f := range all {
		ours := strings.HasPrefix(f.Way, "sluice") && !strings.HasSuffix(f.Way, guarded)
		if !ours && f.Way != byRules || f.Kind != "UDP" && f.Kind != "TCP 443" {
			continue
		}
		for _, base := range all {
			if base.Kind == f.Kind && (ours && base.Way == empty || !ours && base.Way == rulesAlone) {
				list = append(list, forwardTarget(f, base, "forwarding "+f.Kind+" alone, beside "+base.Way))
			}
		}
	}
	return list
}

// streamTargets compares what hosts send through Sluice with the same through nothing.
func streamTargets(all []Stream) (list []Target) {
	for _, s := range all {
		if strings.HasPrefix(s.Way, "sluice") {
			name := fmt.Sprintf("%s through %s, beside plain forwarding: at least %.2f", s.Kind, s.Way, leastRatio)
			list = append(list, Target{name, s.Cheaper.String(), s.Cheaper.Median >= leastRatio})
		}
	}
	return list
}

// manyTargets compares Sluice with many interfaces and Sluice with one.
func (r *Result) manyTargets() (list []Target) {
	var one []Forward
	for _, f := range r.Many {
		if !strings.HasPrefix(f.Way, "sluice") || f.Kind != "UDP" && f.Kind != "TCP 443" {
			continue
		}
		i := slices.IndexFunc(one, func(o Forward) bool { return o.Kind == f.Kind })
		if i < 0 {
			one = append(one, f)
			continue
		}
		list = append(list, forwardTarget(f, one[i], fmt.Sprintf("forwarding %s with %d customer interfaces, beside one", f.Kind, r.Interfaces)))
	}
	return list
}

func forwardTarget(f, base Forward, name string) Target {
	ratio := base.NS / f.NS
	return Target{fmt.Sprintf("%s: at least %.2f", name, leastRatio), fmt.Sprintf("%.3f", ratio), ratio >= leastRatio}
}

// Missed is an error that names what was promised and not kept.
func (r *Result) Missed() error {
	var errs []error
	for _, t := range r.Targets() {
		if !t.Kept {
			errs = append(errs, fmt.Errorf("%s: %s", t.Name, t.Measured))
		}
	}
	return errors.Join(errs...)
}
