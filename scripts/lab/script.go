package lab

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A script tells a sink to leave the straight path. It is a list of rules,
// one a line or one an argument of Sink.Script:
//
//	STEP: ACTION | ACTION ...
//
// STEP is connect, ehlo, helo, starttls, mail, rcpt, data, body, dot, bdat,
// rset, noop, quit, auth, vrfy, other, or any for all that has no rule of its
// own. "rcpt#2" is the second time in one session, "rcpt@bad*" a recipient
// whose local part matches, "body#1000" after 1000 bytes of a message.
//
// ACTION is one of
//
//	ok               the answer that would be given without the rule
//	reply 250 TEXT   that reply; \n begins a further line
//	raw TEXT         those bytes; \r \n \t \0 and \xNN are understood
//	drip 50ms TEXT   the bytes of such a reply one by one, so long apart
//	flood BYTES      a reply of many lines, that long, and its last line
//	store            take the message over without saying so (step dot)
//	stall 10s        wait; without a time until the peer leaves
//	close, reset     end the connection with FIN, with RST
//
// A rule without ok or reply gives no answer. A message is stored on ok, on a
// 2xx reply to the dot, and on store.
type script struct {
	rules []rule
}

type rule struct {
	step    string
	nth     int    // 0 for every time; bytes for body
	local   string // glob, "" for every recipient
	actions []action
}

type action struct {
	verb string
	text string
	wait time.Duration
	size int
}

var steps = []string{"connect", "ehlo", "helo", "starttls", "mail", "rcpt", "data", "body", "dot", "bdat",
	"rset", "noop", "quit", "auth", "vrfy", "other", "any"}

// Script replaces the sink's rules; no argument makes it behave again.
func (s *Sink) Script(rules ...string) error {
	parsed, err := parseScript(strings.Join(rules, "\n"))
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script = parsed
	return nil
}

// readScriptFile takes the rules from the file "script" in the sink's folder,
// where people put it; without the file the rules stay as they are.
func (s *Sink) readScriptFile() error {
	data, err := os.ReadFile(filepath.Join(s.dir, "script"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return s.Script(string(data))
}

func parseScript(text string) (script, error) {
	var s script
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "//") {
			continue
		}
		r, err := parseRule(line)
		if err != nil {
			return script{}, fmt.Errorf("could not read script rule %q: %w", line, err)
		}
		s.rules = append(s.rules, r)
	}
	return s, nil
}

func parseRule(line string) (rule, error) {
	var r rule
	head, tail, ok := strings.Cut(line, ":")
	if !ok {
		return r, fmt.Errorf("it has no colon; write STEP: ACTION")
	}
	head, r.local, _ = strings.Cut(strings.TrimSpace(head), "@")
	head, nth, counted := strings.Cut(head, "#")
	if counted {
		n, err := strconv.Atoi(nth)
		if err != nil || n < 1 {
			return r, fmt.Errorf("%q is no count", nth)
		}
		r.nth = n
	}
	r.step = head
	known := false
	for _, s := range steps {
		known = known || s == head
	}
	if !known {
		return r, fmt.Errorf("no step %q; there are %s", head, strings.Join(steps, ", "))
	}
	for _, part := range strings.Split(tail, " | ") {
		a, err := parseAction(strings.TrimSpace(part))
		if err != nil {
			return r, err
		}
		r.actions = append(r.actions, a)
	}
	return r, nil
}

func parseAction(text string) (action, error) {
	verb, rest, _ := strings.Cut(text, " ")
	a := action{verb: verb}
	var err error
	switch verb {
	case "ok", "store", "close", "reset":
	case "reply":
		a.text = strings.ReplaceAll(rest, `\n`, "\r\n") + "\r\n"
	case "raw":
		a.text, err = strconv.Unquote(`"` + strings.ReplaceAll(strings.ReplaceAll(rest, `"`, `\"`), `\0`, `\x00`) + `"`)
	case "stall":
		if rest != "" {
			a.wait, err = time.ParseDuration(rest)
		}
	case "drip":
		gap, reply, _ := strings.Cut(rest, " ")
		a.wait, err = time.ParseDuration(gap)
		a.text = strings.ReplaceAll(reply, `\n`, "\r\n") + "\r\n"
	case "flood":
		a.size, err = strconv.Atoi(rest)
	default:
		err = fmt.Errorf("no action %q", verb)
	}
	return a, err
}

// find gives the actions for a step: the first rule that names it, else "any".
// nth counts from 1.
func (s script) find(step string, nth int, local string) ([]action, bool) {
	for _, name := range []string{step, "any"} {
		for _, r := range s.rules {
			if r.step != name || (r.nth != 0 && r.nth != nth) {
				continue
			}
			if r.local != "" {
				if ok, err := path.Match(r.local, local); err != nil || !ok {
					continue
				}
			}
			return r.actions, true
		}
	}
	return nil, false
}

// bodyLimit is the number of body bytes after which a body rule strikes.
func (s script) bodyLimit() (int, []action) {
	for _, r := range s.rules {
		if r.step == "body" {
			return r.nth, r.actions
		}
	}
	return -1, nil
}
