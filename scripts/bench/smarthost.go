package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"sluice/scripts/bench/testbed"
)

// smarthostOptions are the flags of the comparison of smarthosts.
type smarthostOptions struct {
	sessions []int
	rounds   int
	messages int // of one sample with 100 sessions, at Sluice
	size     int
	learned  string
	only     string
	binaries string
	enforce  bool
}

// houseSample is one load through one smarthost, from the first connection until the destination had all of it.
type houseSample struct {
	rate, accepted, cpu float64 // messages per second delivered and answered; µs of the gateway's CPU per message
	p50, p99            float64 // ms, MAIL to 250
	sink                float64 // µs of its CPU per message
}

// The bounds: Sluice delivers so many times what Postfix does in the same round, and needs so much CPU.
const (
	timesPostfix  = 8
	microsPerMail = 200
	yardMicros    = 1712 // what Postfix took where the bound of CPU was set
	sampleWithin  = 3 * time.Minute
)

// runSmarthost compares Sluice's smarthost with Debian's Postfix: the same network, client, destination and disk, and 250
// in either only when the message is synced. Both relay to one host, so that no name has to be looked up.
func runSmarthost(ctx context.Context, args []string) error {
	o, err := parseSmarthost(args)
	if err != nil {
		return err
	}
	h, err := openHouses(ctx, o)
	if err != nil {
		return err
	}
	host := testbed.ReadHost()
	fmt.Fprintf(os.Stderr, "%s, %d cores, Linux %s, %s; load average %s\n", host.CPU, host.Cores, host.Kernel, host.Go, host.LoadAvg)
	return errors.Join(h.compare(ctx, o), h.close())
}

func parseSmarthost(args []string) (o smarthostOptions, err error) {
	fs := flag.NewFlagSet("bench smarthost", flag.ContinueOnError)
	sessions := fs.String("sessions", "1,10,100", "sessions at once, `numbers` in turn")
	fs.IntVar(&o.rounds, "rounds", 3, "rounds; each measures both with every number of sessions")
	fs.IntVar(&o.messages, "messages", 12_000, "messages of one sample; fewer where it is slower")
	fs.IntVar(&o.size, "size", 10<<10, "`bytes` of one message")
	fs.StringVar(&o.learned, "learned", "off", "content.learned of Sluice: off, or never for a filter that looks and never acts")
	fs.StringVar(&o.only, "only", "", "measure one alone: `sluice or postfix`")
	fs.StringVar(&o.binaries, "binaries", "bin", "`directory` of sluiced and sluice-intercept")
	fs.BoolVar(&o.enforce, "enforce", false, "fail when Sluice misses a bound with 100 sessions")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	for word := range strings.SplitSeq(*sessions, ",") {
		n := 0
		if _, err := fmt.Sscan(word, &n); err != nil || n < 1 {
			return o, fmt.Errorf("could not understand -sessions %q: give numbers such as 1,10,100", *sessions)
		}
		o.sessions = append(o.sessions, n)
	}
	if o.rounds < 1 || o.messages < 100 || fs.NArg() > 0 || !slices.Contains([]string{"", "sluice", "postfix"}, o.only) {
		return o, errors.New("could not measure that: -rounds from 1, -messages from 100, -only sluice or postfix, and no other words")
	}
	o.binaries, err = filepath.Abs(o.binaries)
	return o, err
}

// count is how many messages a sample has, so that each takes some seconds.
func (o *smarthostOptions) count(h *house, sessions int) int {
	n := o.messages
	if sessions < 10 {
		n /= 6
	} else if sessions < 100 {
		n /= 2
	}
	return max(100, n/h.slower)
}

func (b *houses) compare(ctx context.Context, o smarthostOptions) error {
	got := map[string][]houseSample{}
	for round := range o.rounds {
		for _, sessions := range o.sessions {
			for _, h := range b.all {
				s, err := b.sample(ctx, h, sessions, o.count(h, sessions), o.size)
				if err != nil {
					return fmt.Errorf("%s, %d sessions: %w", h.name, sessions, err)
				}
				key := houseKey(h.name, sessions)
				got[key] = append(got[key], s)
				fmt.Fprintf(os.Stderr, "%d/%d %-8s %4d sessions %7.0f msg/s (answered %7.0f) %7.1f µs  p50 %7.2f p99 %8.2f ms  sink %5.1f µs  load %s\n",
					round+1, o.rounds, h.name, sessions, s.rate, s.accepted, s.cpu, s.p50, s.p99, s.sink, testbed.LoadAvg())
			}
		}
	}
	return b.report(o, got)
}

func houseKey(name string, sessions int) string { return fmt.Sprint(name, " ", sessions) }

// report prints medians, and Sluice's ratio to Postfix in the same round.
func (b *houses) report(o smarthostOptions, got map[string][]houseSample) error {
	tw := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "smarthost\tsessions\tmsg/s\tof Postfix\tCPU µs\tof Postfix\tp50 ms\tp99 ms\t")
	var missed []error
	for _, sessions := range o.sessions {
		yard := got[houseKey("postfix", sessions)]
		for _, h := range b.all {
			all := got[houseKey(h.name, sessions)]
			if len(all) == 0 {
				continue
			}
			var times, share []float64
			for i := range min(len(all), len(yard)) {
				times, share = append(times, all[i].rate/yard[i].rate), append(share, all[i].cpu/yard[i].cpu)
			}
			of := func(f func(*houseSample) float64) float64 {
				var v []float64
				for i := range all {
					v = append(v, f(&all[i]))
				}
				return middle(v)
			}
			cpu := of(func(s *houseSample) float64 { return s.cpu })
			fmt.Fprintf(tw, "%s\t%d\t%.0f\t%.2f×\t%.0f\t%.2f×\t%.2f\t%.2f\t\n", h.name, sessions, of(func(s *houseSample) float64 { return s.rate }), middle(times),
				cpu, middle(share), of(func(s *houseSample) float64 { return s.p50 }), of(func(s *houseSample) float64 { return s.p99 }))
			if h.name == "sluice" && sessions >= 100 && (len(yard) > 0 && middle(times) < timesPostfix || cpu > microsPerMail) {
				missed = append(missed, fmt.Errorf("sluice, %d sessions: %.2f times Postfix's messages per second (bound %d), %.0f µs (bound %d)", sessions, middle(times), timesPostfix, cpu, microsPerMail))
			}
		}
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, sessions := range o.sessions {
		for i, y := range got[houseKey("postfix", sessions)] {
			if all := got[houseKey("sluice", sessions)]; i < len(all) {
				fmt.Printf("%d sessions, round %d: %.0f µs, which is %.0f where Postfix takes %d\n", sessions, i+1, all[i].cpu, all[i].cpu*yardMicros/y.cpu, yardMicros)
			}
		}
	}
	for _, m := range missed {
		fmt.Println("missed:", m)
	}
	if o.enforce {
		return errors.Join(missed...)
	}
	return nil
}

// middle is the median, 0 of none.
func middle(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
