package lab

import (
	"bytes"
	"context"
	_ "embed" // the clients' programs
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// Toolbox is a customer's host with mail programs that keep no queue, in a root of their own.
type Toolbox struct{ root *MTA }

// A Job is one message for a program that keeps no queue.
type Job struct {
	Host string   `json:"host"` // host name or address, port 25
	TLS  bool     `json:"tls"`  // insist on STARTTLS; else do without
	Helo string   `json:"helo"`
	From string   `json:"from"`
	To   []string `json:"to"`
	Data []byte   `json:"data"`
}

// Codes are what a program says that it heard for each recipient, 250 where the message was taken.
type Codes map[string]int

// An Agent sends jobs by one program, one after the other.
type Agent func(ctx context.Context, jobs []Job) ([]Codes, error)

//go:embed peers/smtplib_send.py
var smtplibProgram []byte

//go:embed peers/nodemailer_send.js
var nodemailerProgram []byte

//go:embed peers/dkim_tool.py
var dkimProgram []byte

// tools is a root in which nothing runs by itself.
type tools struct{ receiver }

func (*tools) listening() string { return "" }
func (*tools) command() []string { return nil }

func (*tools) configure(_ context.Context, m *MTA) error {
	return m.install(map[string][]byte{
		"srv/smtplib_send.py": smtplibProgram, "srv/nodemailer_send.js": nodemailerProgram, "srv/dkim_tool.py": dkimProgram,
	})
}

// Toolbox makes a customer's toolbox; each has its own root.
func (l *Lab) Toolbox(ctx context.Context, host string) (*Toolbox, error) {
	return l.toolbox(ctx, host, &tools{})
}

func (l *Lab) toolbox(ctx context.Context, host string, kind flavour) (*Toolbox, error) {
	m := &MTA{lab: l, host: host, domain: host + ".example", fqdn: "mail." + host + ".example", kind: kind}
	m.root = filepath.Join(l.dir, "mta", host+"-tools-"+strconv.FormatInt(logSerial.Add(1), 10))
	pkg, err := unpacked(ctx, l.cache, m.kind.pkg())
	if err != nil {
		return nil, fmt.Errorf("could not make a toolbox on %s: %w", host, err)
	}
	if err := errors.Join(m.makeRoot(ctx, pkg), m.kind.configure(ctx, m)); err != nil {
		return nil, fmt.Errorf("could not make a toolbox on %s: %w", host, err)
	}
	return &Toolbox{m}, nil
}

// Run runs a program of the toolbox to its end.
func (t *Toolbox) Run(ctx context.Context, stdin []byte, args ...string) (Output, error) {
	return t.root.lab.Run(ctx, t.root.host, Command{Args: args, Root: t.root.root, Stdin: bytes.NewReader(stdin)})
}

// Agents are the programs of the toolbox, and swaks, by their names.
func (t *Toolbox) Agents() map[string]Agent {
	return map[string]Agent{
		"msmtp":      each(t.msmtp),
		"swaks":      each(t.swaks),
		"smtplib":    t.script("/usr/bin/python3", "/srv/smtplib_send.py"),
		"nodemailer": t.script("/usr/bin/env", "node", "/srv/nodemailer_send.js"),
	}
}

// each is an agent that starts its program for every job.
func each(send func(context.Context, Job) (Codes, error)) Agent {
	return func(ctx context.Context, jobs []Job) ([]Codes, error) {
		var all []Codes
		for _, j := range jobs {
			c, err := send(ctx, j)
			if err != nil {
				return all, err
			}
			all = append(all, c)
		}
		return all, nil
	}
}

// script is an agent that is given all jobs at once.
func (t *Toolbox) script(args ...string) Agent {
	return func(ctx context.Context, jobs []Job) ([]Codes, error) {
		in, err := json.Marshal(jobs)
		if err != nil {
			return nil, err
		}
		out, err := t.Run(ctx, in, args...)
		if err != nil {
			return nil, err
		}
		var results []struct {
			Codes Codes
			Error string
		}
		if err := json.Unmarshal([]byte(out.Stdout), &results); err != nil || len(results) != len(jobs) {
			return nil, fmt.Errorf("%v answered %q: %v: %s", args, out.Stdout, err, out.Stderr)
		}
		var all []Codes
		for i, r := range results {
			if r.Error != "" {
				return all, fmt.Errorf("%v could not send to %s: %s", args, jobs[i].Host, r.Error)
			}
			all = append(all, r.Codes)
		}
		return all, nil
	}
}

var msmtpSaid = regexp.MustCompile(`(?m)^msmtp: server message: (\d{3})`)

// msmtp gives a message up when one recipient is refused, so each is a run of its own.
func (t *Toolbox) msmtp(ctx context.Context, j Job) (Codes, error) {
	codes := Codes{}
	tls := map[bool]string{true: "on", false: "off"}[j.TLS]
	for _, to := range j.To {
		out, err := t.Run(ctx, bytes.ReplaceAll(j.Data, []byte("\r\n"), []byte("\n")), "/usr/bin/msmtp", "--host="+j.Host, "--port=25",
			"--domain="+j.Helo, "--tls="+tls, "--tls-starttls=on", "--tls-certcheck=off", "--timeout=60", "--from="+j.From, "--", to)
		if err != nil {
			return nil, err
		}
		said := msmtpSaid.FindStringSubmatch(out.Stderr)
		switch {
		case out.Code == 0:
			codes[to] = 250
		case said == nil:
			return nil, fmt.Errorf("msmtp to %s ended with %d: %s", j.Host, out.Code, out.Stderr)
		default:
			codes[to], _ = strconv.Atoi(said[1]) // three digits
		}
	}
	return codes, nil
}

// swaksLine is one line of a dialogue, plain or by TLS: "-> RCPT TO:<a@b>", "<- 250 ok", "<~* 550 no".
var swaksLine = regexp.MustCompile(`(?m)^ ?(?:[-~]> (RCPT TO:<([^>]*)>.*|\.|[A-Z].*)|<(?:[-~*]\*?|\*\*) +(\d{3}) .*)$`)

func (t *Toolbox) swaks(ctx context.Context, j Job) (Codes, error) {
	args := []string{"swaks", "--server", j.Host, "--ehlo", j.Helo, "--from", j.From, "--to", strings.Join(j.To, ","), "--data", "-", "--timeout", "60"}
	if j.TLS {
		args = append(args, "--tls")
	}
	out, err := t.root.lab.Run(ctx, t.root.host, Command{Args: args, Stdin: bytes.NewReader(j.Data)})
	if err != nil {
		return nil, err
	}
	codes, last := Codes{}, ""
	asked, atDot := "", false
	for _, m := range swaksLine.FindAllStringSubmatch(out.Stdout, -1) {
		switch {
		case m[3] == "":
			asked, atDot = m[2], m[1] == "."
		case asked != "":
			codes[asked], _ = strconv.Atoi(m[3])
			asked = ""
		case atDot:
			last, atDot = m[3], false
		}
	}
	for to, c := range codes {
		if c == 250 && last != "250" {
			codes[to], _ = strconv.Atoi(last)
		}
	}
	if len(codes) != len(j.To) || (out.Code != 0 && last == "" && len(codes) == 0) {
		return nil, fmt.Errorf("swaks to %s ended with %d and %v: %s%s", j.Host, out.Code, codes, out.Stdout, out.Stderr)
	}
	return codes, nil
}

// together runs functions at once and gives their first error.
func together(fs ...func() error) error {
	var wg sync.WaitGroup
	errs := make([]error, len(fs))
	for i, f := range fs {
		wg.Go(func() { errs[i] = f() })
	}
	wg.Wait()
	return errors.Join(errs...)
}
