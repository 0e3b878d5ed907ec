package school

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
)

// Journal keeps lessons from the moment they are learnt until the whole model is saved. Append returns once they are on
// disk.
type Journal interface {
	Append(lines []byte) error
}

// note is one lesson in a journal, or the end of one: a line of JSON.
type note struct {
	Seq    int64  `json:"seq"`
	Forget bool   `json:"forget,omitempty"`
	Lesson Lesson `json:"lesson"`
	IDs    []byte `json:"ids"` // its features, by number
	// Shadow is how far the model in shadow moved.
	Shadow float64 `json:"shadow,omitempty"`
}

// record puts lessons into the journal. s.mu is held.
func (s *School) record(notes ...note) error {
	if s.o.Journal == nil {
		s.seq += int64(len(notes))
		return nil
	}
	var b bytes.Buffer
	for i := range notes {
		notes[i].Seq = s.seq + int64(i) + 1
		text, err := json.Marshal(&notes[i])
		if err != nil {
			return err
		}
		b.Write(append(text, '\n'))
	}
	if err := s.o.Journal.Append(b.Bytes()); err != nil {
		return fmt.Errorf("the lesson could not be kept: %w; nothing was changed", err)
	}
	s.seq += int64(len(notes))
	return nil
}

// Replay repeats the lessons of a journal that the model has not learnt yet, and returns how many. A last line that was not
// wholly written is what nobody was told of.
func (s *School) Replay(r io.Reader) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadBytes('\n')
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		var x note
		if err := json.Unmarshal(line, &x); err != nil {
			return n, fmt.Errorf("a lesson in the journal is damaged: %w; those behind it are lost", err)
		}
		if x.Seq <= s.seq {
			continue
		}
		if err := s.repeat(&x); err != nil {
			return n, err
		}
		n++
	}
}

// repeat does what a note tells. s.mu is held.
func (s *School) repeat(x *note) error {
	if day := x.Lesson.At.Unix() / 86400; !x.Forget && day > s.day {
		s.day, s.spent = day, map[string]int{}
		s.keep()
	}
	if err := s.Judge().Repeat(x.IDs, x.Lesson.Steps, x.Lesson.Bad, x.Forget); err != nil {
		return fmt.Errorf("a lesson in the journal is damaged: %w; those behind it are lost", err)
	}
	s.shadow.Load().repeat(x)
	if x.Forget {
		s.strike(x.Lesson.Digest)
	} else {
		s.enter(x.Lesson)
		s.spent[x.Lesson.Source]++
	}
	s.seq, s.changed = x.Seq, true
	return nil
}

// enter notes a lesson that was learnt. s.mu is held.
func (s *School) enter(l Lesson) {
	s.lessons[l.Digest] = l
	if s.order = append(s.order, l.Digest); len(s.order) > maxLessons {
		delete(s.lessons, s.order[0])
		s.order = s.order[1:]
	}
}

// strike notes that a lesson was taken back. s.mu is held.
func (s *School) strike(digest string) {
	delete(s.lessons, digest)
	for i, d := range s.order {
		if d == digest {
			s.order = append(s.order[:i], s.order[i+1:]...)
			return
		}
	}
}

// Quiet calls f while nothing is learnt, if the last lesson still has the given number; false where it has not.
func (s *School) Quiet(seq int64, f func() error) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seq != seq {
		return false, nil
	}
	return true, f()
}
