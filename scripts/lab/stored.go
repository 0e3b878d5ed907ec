package lab

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Message is one message that a sink took over, as it came over the wire.
type Message struct {
	ID       int            `json:"id"`
	MX       string         `json:"mx"`
	Time     time.Time      `json:"time"`
	Peer     netip.AddrPort `json:"peer"`
	Local    netip.AddrPort `json:"local"`
	Helo     string         `json:"helo"`
	ESMTP    bool           `json:"esmtp"`
	TLS      bool           `json:"tls"`
	Mail     string         `json:"mail"`  // argument of MAIL, as in "FROM:<a@b> SIZE=3"
	Rcpts    []string       `json:"rcpts"` // accepted ones: arguments of RCPT, as in "TO:<a@b>"
	Chunking bool           `json:"chunking"`
	User     string         `json:"user,omitempty"` // who authenticated
	Reply    string         `json:"reply"`          // what the peer heard after the end of data, "" for nothing
	File     string         `json:"-"`              // of the message; beside it the same name with .json

	// Data is the message as received: dot-stuffing undone, nothing else.
	Data []byte `json:"-"`
}

// Recipients are the bare addresses of m.Rcpts.
func (m *Message) Recipients() []string {
	var all []string
	for _, r := range m.Rcpts {
		all = append(all, pathOf(r))
	}
	return all
}

// Sender is the bare address of m.Mail, "" for the null sender.
func (m *Message) Sender() string { return pathOf(m.Mail) }

// ReadMessages reads what the sinks whose folders match a pattern have stored,
// in the order of arrival.
func ReadMessages(pattern string) ([]*Message, error) {
	files, err := filepath.Glob(filepath.Join(pattern, "new", "*.json"))
	if err != nil {
		return nil, fmt.Errorf("could not look for messages in %q: %w", pattern, err)
	}
	var all []*Message
	for _, f := range files {
		side, err := os.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("could not read a message: %w", err)
		}
		m := &Message{File: strings.TrimSuffix(f, ".json") + ".eml"}
		if err := json.Unmarshal(side, m); err != nil {
			return nil, fmt.Errorf("could not read message %s: %w", f, err)
		}
		if m.Data, err = os.ReadFile(m.File); err != nil {
			return nil, fmt.Errorf("could not read a message: %w", err)
		}
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b *Message) int { return a.Time.Compare(b.Time) })
	return all, nil
}

// store writes the message and its envelope, and only then shows it.
func (s *Sink) store(m *Message) error {
	s.mu.Lock()
	s.serial++
	m.ID = s.serial
	s.mu.Unlock()
	m.MX, m.Time = s.mx.Name, time.Now()
	m.File = filepath.Join(s.dir, "new", fmt.Sprintf("%06d.eml", m.ID))
	side, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	// The envelope last: who finds it finds the message.
	if err := s.put(m.File, m.Data); err != nil {
		return err
	}
	if err := s.put(strings.TrimSuffix(m.File, ".eml")+".json", append(side, '\n')); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.messages = append(s.messages, m)
	s.changed()
	return nil
}

func (s *Sink) put(path string, data []byte) error {
	tmp := filepath.Join(s.dir, "tmp", filepath.Base(path))
	if err := os.WriteFile(tmp, data, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
