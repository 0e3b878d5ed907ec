package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"sluice/scripts/bench/load"
	"sluice/scripts/bench/sink"
	"sluice/scripts/bench/testbed"
	"sluice/scripts/lab"
)

// house is a smarthost at work.
type house struct {
	name   string
	at     string // address and port
	slower int    // times that it gets fewer messages, so that samples last alike
	group  *testbed.CPUGroup
	empty  func(context.Context) (bool, error) // nothing waits in its queue
}

// houses are the smarthosts in one lab: both on the gateway, client and destination on the internet's host.
type houses struct {
	lab    *lab.Lab
	self   string
	all    []*house
	sink   *lab.Process
	orders *os.File
	answer *json.Decoder
	run    uint32
}

// houseSink is where both relay to, an address of the sink's kind Plain that nothing in the lab has.
const houseSink = "198.51.100.130"

// smarthostGateway takes mail of the client's address without a login, as Postfix does of its networks.
const smarthostGateway = lab.GatewayConfig + `
[[user]]
name = "client"
prefixes = ["203.0.113.2/32"]

[smarthost]
name = "smtp.gw.example"
sessions_per_source = 1000
[[smarthost.listener]]
address = "203.0.113.1:587"

[spool]
sessions_per_site = 100
messages_per_session = 1000
[[spool.relay]]
host = "198.51.100.130"

[limits]
messages_per_hour = 100000000
recipients_per_hour = 100000000
queued_messages = 0

[content]
learned = "%s"
`

// smarthostPostfix are the settings in which it differs from Debian's, the usual ones of a relay: no chroot, as far as that
// is one, as many deliveries at once as Sluice has, and 100 sessions of the client.
var smarthostPostfix = []string{
	"mynetworks = 127.0.0.0/8 203.0.113.2/32", "relayhost = [" + houseSink + "]:25", "smtpd_client_connection_count_limit = 0", "smtpd_client_connection_rate_limit = 0",
	"default_destination_concurrency_limit = 100", "initial_destination_concurrency = 100", "default_process_limit = 200", "smtpd_tls_security_level = none", "smtp_tls_security_level = none",
	"smtp_destination_recipient_limit = 1", "smtp_connection_cache_on_demand = yes", "smtp_connection_cache_destinations = [" + houseSink + "]:25",
}

// openHouses builds the lab and starts both.
func openHouses(ctx context.Context, o smarthostOptions) (*houses, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	l, err := lab.New(ctx, lab.Options{Log: os.Stderr})
	if err != nil {
		return nil, err
	}
	b := &houses{lab: l, self: self}
	if _, err = l.Exec(ctx, lab.HostInternet, "ip", "addr", "add", houseSink+"/32", "dev", "lo"); err == nil {
		err = b.startSink()
	}
	if err == nil && o.only != "postfix" {
		err = b.startSluice(ctx, o)
	}
	if err == nil && o.only != "sluice" {
		err = b.startPostfix(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *houses) close() error {
	errs := []error{b.lab.Close()}
	for _, h := range b.all {
		if h.group != nil {
			errs = append(errs, h.group.Close())
		}
	}
	return errors.Join(errs...)
}

func (b *houses) startSink() error {
	in, orders, err := os.Pipe()
	if err != nil {
		return err
	}
	defer in.Close()
	answers, out, err := os.Pipe()
	if err != nil {
		return err
	}
	defer out.Close()
	b.orders, b.answer = orders, json.NewDecoder(bufio.NewReader(answers))
	b.sink, err = b.lab.Start(lab.HostInternet, lab.Command{
		Args: []string{"/bin/sh", "-c", `exec "$0" sink -listen ` + houseSink + `:25 <&3 >&4`, b.self}, Name: "sink", Files: []*os.File{in, out},
	})
	return err
}

func (b *houses) startSluice(ctx context.Context, o smarthostOptions) error {
	g, err := b.lab.StartGateway(ctx, lab.GatewayOptions{Config: fmt.Sprintf(smarthostGateway, o.learned), Binaries: o.binaries})
	if err != nil {
		return err
	}
	h := &house{name: "sluice", at: "203.0.113.1:587", slower: 1}
	h.empty = func(ctx context.Context) (bool, error) {
		out, err := g.Sluice(ctx, "queue", "list", "--json")
		var page struct{ Total int }
		if err == nil {
			err = json.Unmarshal([]byte(out.Stdout), &page)
		}
		return page.Total == 0, err
	}
	b.all = append(b.all, h)
	h.group, err = testbed.NewCPUGroup(h.name, g.Intercept.Pid(), g.Sluiced.Pid())
	return err
}

func (b *houses) startPostfix(ctx context.Context) error {
	m, err := b.lab.Postfix(ctx, lab.HostGateway, smarthostPostfix...)
	if err != nil {
		return err
	}
	h := &house{name: "postfix", at: "203.0.113.1:25", slower: 6}
	h.empty = func(ctx context.Context) (bool, error) {
		q, err := m.Queue(ctx)
		return len(q) == 0, err
	}
	b.all = append(b.all, h)
	h.group, err = testbed.NewCPUGroup(h.name, m.Pid())
	return err
}

// order tells the sink something and reads its answer.
func (b *houses) order(word string, n int) (r sink.Report, err error) {
	if _, err := fmt.Fprintln(b.orders, word, n); err != nil {
		return r, fmt.Errorf("could not reach the sink: %w", err)
	}
	return r, b.answer.Decode(&r)
}

// sample sends count messages and waits until the destination has all.
func (b *houses) sample(ctx context.Context, h *house, sessions, count, size int) (s houseSample, err error) {
	ctx, cancel := context.WithTimeout(ctx, sampleWithin)
	defer cancel()
	b.run++
	if _, err := b.order("begin", int(b.run)); err != nil {
		return s, err
	}
	before, err := h.group.Used()
	if err != nil {
		return s, err
	}
	sinkBefore, err := b.sink.CPU()
	if err != nil {
		return s, err
	}
	began := time.Now()
	sent, err := b.send(ctx, h, sessions, count, size)
	if err != nil {
		return s, err
	}
	var r load.Result
	if err := json.Unmarshal([]byte(sent.Stdout), &r); err != nil || r.Messages != count {
		return s, fmt.Errorf("%d of %d messages were taken, %v: %v %s", r.Messages, count, err, r.Faults, sent.Stderr)
	}
	end, err := b.await(ctx, began, count)
	if err != nil {
		return s, err
	}
	for done := false; !done; { // what is done behind the last delivery belongs to it
		if done, err = h.empty(ctx); err != nil {
			return s, err
		}
	}
	after, err := h.group.Used()
	if err != nil {
		return s, err
	}
	sinkAfter, err := b.sink.CPU()
	n := float64(count)
	s.rate, s.accepted = n/max(end, r.Seconds), r.Rate
	s.p50, s.p99 = r.Latency.P50/1000, r.Latency.P99/1000
	s.cpu = perMessage(after-before, count)
	s.sink = perMessage(sinkAfter-sinkBefore, count)
	return s, err
}

// await returns how long after began the destination had all messages of the run.
func (b *houses) await(ctx context.Context, began time.Time, count int) (seconds float64, err error) {
	for {
		r, err := b.order("report", count)
		if err != nil {
			return 0, err
		}
		if r.Damaged+r.Doubled+r.Stray > 0 {
			return 0, fmt.Errorf("the destination has %+v", r)
		}
		if r.Received == count {
			return time.Since(began).Seconds(), nil
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("the destination has %d of %d messages: %w", r.Received, count, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// send runs one load.
func (b *houses) send(ctx context.Context, h *house, sessions, count, size int) (lab.Output, error) {
	out, err := b.lab.Exec(ctx, lab.HostInternet, b.self, "load", "-targets", h.at, "-sessions", strconv.Itoa(sessions), "-per-connection", "1000",
		"-size", strconv.Itoa(size), "-run", strconv.Itoa(int(b.run)), "-count", strconv.Itoa(count))
	if err == nil && out.Code != 0 {
		err = fmt.Errorf("load ended with %d: %s", out.Code, strings.TrimSpace(out.Stderr))
	}
	return out, err
}
