//go:build labtest

package lab

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// labID is the first field of every message that these tests send: what a server or the gateway adds stands above it.
const labID = "X-Lab-Id: "

// An arrival is one message as a server stored it, line ends CRLF.
type arrival struct {
	id    string   // of labID
	above []string // header fields above it, top first
	data  []byte   // from labID on
	tls   bool     // the server says so
}

// arrivals are what has arrived at one of the internet's foreign servers, as soon as all of these are there.
func arrivals(ctx context.Context, l *Lab, mx MX, ids []string) ([]arrival, error) {
	var all []arrival
	var missing []string
	err := poll(ctx, func() (done bool, err error) {
		if all, err = arrived(ctx, l, mx); err != nil {
			return false, err
		}
		there := map[string]bool{}
		for _, a := range all {
			there[a.id] = true
		}
		missing = slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return there[id] })
		return len(missing) == 0, nil
	})
	if err != nil {
		return all, fmt.Errorf("waited for messages at %s, %v did not come: %w", mx.Name, missing, err)
	}
	return all, nil
}

func arrived(ctx context.Context, l *Lab, mx MX) ([]arrival, error) {
	var all []arrival
	if mx.Kind == KindGoSMTP {
		for _, m := range l.Sink(mx.Name).Messages() {
			all = append(all, readArrival(m.Data, m.TLS))
		}
		return all, nil
	}
	m, err := l.MX(ctx, mx.Name)
	if err != nil {
		return nil, err
	}
	box, err := m.Mailbox()
	for _, data := range box {
		all = append(all, readArrival(data, false))
	}
	return all, err
}

// byTLS is in the trace field of a server that was spoken to by TLS (RFC 3848).
var byTLS = regexp.MustCompile(`(?i)\swith (?:UTF8)?E?SMTPS`)

func readArrival(data []byte, tls bool) arrival {
	data = bytes.ReplaceAll(bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n"))
	at := bytes.Index(data, []byte(labID))
	if at < 0 {
		return arrival{id: fmt.Sprintf("a message without %q: %.200q", labID, data)}
	}
	a := arrival{data: data[at:], tls: tls}
	line, _, _ := bytes.Cut(a.data, []byte("\r\n"))
	a.id = strings.TrimPrefix(string(line), labID)
	for line := range strings.Lines(string(data[:at])) {
		if n := len(a.above); n > 0 && (line[0] == ' ' || line[0] == '\t') {
			a.above[n-1] += line
		} else {
			a.above = append(a.above, line)
		}
	}
	// go-smtp's writes no trace field and tells otherwise; at the others the first is their own.
	if i := slices.IndexFunc(a.above, func(f string) bool { return strings.HasPrefix(f, "Received:") }); i >= 0 && !tls {
		a.tls = byTLS.MatchString(a.above[i])
	}
	return a
}

// made are header fields that clients add where they lack, different each time.
var made = regexp.MustCompile(`(?mi)^(message-id|date):.*\r\n(?:[ \t].*\r\n)*`)

// stable is the message as it can be compared with another sending of the same. A letter of a series, "exim-haraka-0.7",
// may be one without the fields that clients then make.
func (a *arrival) stable() []byte {
	if !strings.Contains(a.id, ".") {
		return a.data
	}
	head, body, _ := bytes.Cut(a.data, []byte("\r\n\r\n"))
	return append(made.ReplaceAll(append(head, "\r\n"...), nil), body...)
}

// names are those of the fields above the message, without the gateway's own, of which it tells the number.
func (a *arrival) names() (names []string, ours int) {
	for _, f := range a.above {
		name, _, _ := strings.Cut(f, ":")
		if name == "Received" && strings.Contains(f, "by gw.example with ") {
			ours++
			continue
		}
		names = append(names, name)
	}
	return names, ours
}
