package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sluice/cmd/internal/api"
)

func (p *program) statusCommand() *cobra.Command {
	counters := false
	cmd := &cobra.Command{
		Use: "status", Short: "show the gateway at a glance", Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if counters {
				return p.counters(cmd)
			}
			var st api.Status
			print, err := p.get(cmd.Context(), "/v1/status", &st)
			if err == nil && print {
				p.screen.status(&st)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&counters, "counters", false, "print every counter of daemon and kernel instead")
	return cmd
}

func (p *program) counters(cmd *cobra.Command) error {
	var c api.Counters
	print, err := p.get(cmd.Context(), "/v1/counters", &c)
	if err != nil || !print {
		return err
	}
	var rows [][]string
	zero := 0
	for _, part := range []struct {
		name   string
		counts map[string]uint64
	}{{"daemon", c.Daemon}, {"kernel", c.Kernel}} {
		for _, name := range slices.Sorted(maps.Keys(part.counts)) {
			if part.counts[name] == 0 {
				zero++
				continue
			}
			rows = append(rows, []string{part.name, name, fmt.Sprint(part.counts[name])})
		}
	}
	p.screen.table([]column{{head: "WHERE"}, {head: "COUNTER"}, {head: "VALUE", right: true}}, rows)
	p.screen.say("%s more at 0", count(zero, "counter", "counters"))
	return nil
}

func (s *screen) status(st *api.Status) {
	state := s.paint(green, "accepting")
	if !st.Accepting {
		state = s.paint(red, "not accepting")
	}
	for _, b := range st.Helper.Bypasses {
		s.say("%s", s.paint(red, "BYPASS: new connections of "+s.bypass(&b)))
	}
	s.pairs(
		[2]string{"gateway", st.Gateway + ", " + state},
		[2]string{"sluiced", fmt.Sprintf("%s, pid %d, up %s", st.Version, st.PID, s.ago(st.Started))},
		[2]string{"sluice-intercept", s.helper(&st.Helper)},
		[2]string{"interfaces", s.interfaces(st.Helper.Interfaces)},
		[2]string{"configuration", fmt.Sprintf("%s, loaded %s ago", st.Config.File, s.ago(st.Config.Loaded))},
		[2]string{"", s.paint(red, indent(plain(st.Config.Error)))},
		[2]string{"flows", fmt.Sprintf("%d open, %d waiting for their greeting, %d in the kernel's queue of %d", st.Flows, st.Waiting, st.Queue.Waiting, st.Queue.Limit)},
		[2]string{"users", fmt.Sprintf("%d, %s", st.Users, s.locked(st.Locks))},
		[2]string{"messages", messages(st.Messages)},
		[2]string{"queue", s.spool(&st.Spool)},
		[2]string{"false positives", falsePositives(&st.Wrong)},
		[2]string{"webhooks", s.webhooks(st.Webhooks)},
		[2]string{"log", s.logStats(st.Log)},
		[2]string{"unread", unreadOf(&st.Unread)},
		[2]string{"observer", s.observer(&st.Observer)},
		[2]string{"onward TLS", s.onward(&st.Onward)},
		[2]string{"delivery", addresses(st.Addresses)},
	)
	s.opinions(st)
	for i, e := range st.Helper.Elsewhere {
		if i == fewInterfaces {
			s.say("%s more; --json lists them", count(len(st.Helper.Elsewhere)-i, "source", "sources"))
			break
		}
		s.say("%s %s %s: %d answers to mail that did not go out here, the last %s ago", s.paint(yellow, "asymmetric route:"), e.Address, plain(e.User), e.Answers, s.ago(e.Last))
	}
	for _, problem := range st.Helper.Problems {
		s.say("%s %s", s.paint(yellow, "problem:"), plain(problem))
	}
}

// falsePositives tell how much of what was stopped was found to be good.
func falsePositives(f *api.FalsePositives) string {
	if f.Stopped+f.Wrong == 0 && f.Open == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %d messages stopped in %d days (%.3f %%), %s", f.Wrong, f.Stopped, f.Days, 100*f.Rate, count(f.Open, "appeal waits", "appeals wait"))
}

// webhooks tell how those do that hear of events.
func (s *screen) webhooks(all []api.Webhook) string {
	parts := make([]string, len(all))
	for i, w := range all {
		parts[i] = fmt.Sprintf("%s: %d heard, %d waiting", w.Name, w.Heard, w.Waiting)
		if w.Failures > 0 {
			parts[i] += s.paint(red, fmt.Sprintf(", failed %s: %s", count(w.Failures, "time", "times"), plain(w.Error)))
		}
	}
	return strings.Join(parts, "; ")
}

// spool tells what waits to be delivered; nothing where nothing does.
func (s *screen) spool(f *api.Spool) string {
	switch {
	case f.Error != "":
		return s.paint(red, plain(f.Error))
	case f.Deliveries == 0:
		return ""
	}
	return fmt.Sprintf("%s, %d on hold, %s on disk", count(f.Deliveries, "delivery waits", "deliveries wait"), f.Held, size(f.Bytes))
}

// unreadOf tells what passed encrypted between clients and destinations.
func unreadOf(u *api.Unread) string {
	if u.Flows == 0 {
		return ""
	}
	return fmt.Sprintf("%s passed encrypted, %s out, %s in", count(u.Flows, "connection", "connections"), size(u.BytesOut), size(u.BytesIn))
}

func indent(text string) string {
	if text == "" {
		return ""
	}
	return "last reload refused: " + text
}

func (s *screen) helper(h *api.Helper) string {
	if !h.Connected {
		return s.paint(red, "not connected: "+plain(h.Error))
	}
	beat := h.Heartbeat
	switch beat {
	case "alive":
		beat = s.paint(green, beat)
	case "restarting":
		beat = s.paint(yellow, beat)
	default:
		beat = s.paint(red, beat)
	}
	path := h.Path
	if h.PathReason != "" {
		path += " (" + plain(h.PathReason) + ")"
	}
	return fmt.Sprintf("%s, pid %d, path %s, heartbeat %s, %s, %s", h.Version, h.PID, path, beat,
		count(h.Sources, "source", "sources"), count(h.Locks, "lock", "locks"))
}

// fewInterfaces is how many are named one by one.
const fewInterfaces = 12

// interfaces names those that have a problem and, unless they are many, the others.
func (s *screen) interfaces(is []api.Interface) string {
	var parts []string
	more := map[string]int{}
	for _, i := range is {
		text := i.Name + " " + i.Role
		switch {
		case i.Path == "":
			text += " " + s.paint(red, "not attached: "+plain(i.Error))
		case i.Error != "":
			text += " " + s.paint(yellow, plain(i.Error))
		case len(is) > fewInterfaces && i.Role == "customer":
			more[i.Path]++
			continue
		}
		parts = append(parts, text)
	}
	for _, path := range slices.Sorted(maps.Keys(more)) {
		parts = append(parts, fmt.Sprintf("%s by %s", count(more[path], "customer interface", "customer interfaces"), path))
	}
	return strings.Join(parts, ", ")
}

func (s *screen) locked(n int) string {
	text := fmt.Sprintf("%d locked", n)
	if n > 0 {
		return s.paint(yellow, text)
	}
	return text
}

func (s *screen) logStats(l api.LogStats) string {
	text := fmt.Sprintf("%d records, %s", l.Records, size(int64(l.Bytes)))
	if l.Lost > 0 {
		text += ", " + s.paint(red, fmt.Sprintf("%d lost", l.Lost))
	}
	return text
}

func messages(counts map[string]uint64) string {
	var parts []string
	for _, status := range []string{"delivered", "refused", "deferred", "ambiguous", "lost", "withheld", "queued", "quarantined", "discarded"} {
		parts = append(parts, fmt.Sprintf("%d %s", counts[status], status))
	}
	return strings.Join(parts, ", ")
}

func addresses(as []api.Address) string {
	if len(as) == 0 {
		return "from the customers' own addresses"
	}
	var parts []string
	for _, a := range as {
		part := fmt.Sprintf("%s as %s", a.Address, a.Helo)
		if a.Out != "" {
			part += ", not used: " + plain(a.Out)
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, "\n")
}
