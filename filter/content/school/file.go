package school

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"sluice/filter/content"
	"sluice/filter/content/learn"
)

// fileMagic opens the file of a school: a line of JSON with the lessons follows, then the model.
const fileMagic = "sluice school 1\n"

// maxLessonsLine bounds the line of lessons: each has less than 400 bytes.
const maxLessonsLine = maxLessons * 400

// Unsaved reports, once, whether the model changed since the last time.
func (s *School) Unsaved() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.changed
	s.changed = false
	return was
}

// Unwritten says that the last save failed.
func (s *School) Unwritten() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed = true
}

// Save writes model and lessons. What Back goes back to is not kept.
func (s *School) Save(w io.Writer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Lesson, 0, len(s.order))
	for _, d := range s.order {
		all = append(all, s.lessons[d])
	}
	b, err := json.Marshal(all)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "%s%s\n", fileMagic, b); err != nil {
		return err
	}
	return s.judge.Load().Model().Save(w)
}

// Load takes over what Save wrote. After an error nothing has changed.
func (s *School) Load(r io.Reader) error {
	in := bufio.NewReader(r)
	head := make([]byte, len(fileMagic))
	if _, err := io.ReadFull(in, head); err != nil || string(head) != fileMagic {
		return errors.New("it is not what a content filter of this version has learnt; remove it, or put a copy back")
	}
	line, err := readLine(in)
	if err != nil {
		return err
	}
	var all []Lesson
	if err := json.Unmarshal(line, &all); err != nil {
		return fmt.Errorf("its lessons are damaged: %w; remove it, or put a copy back", err)
	}
	m, err := learn.Load(in)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.judge.Store(content.NewJudge(m))
	s.lessons, s.order = map[string]Lesson{}, nil
	for _, l := range all {
		s.lessons[l.Digest] = l
		s.order = append(s.order, l.Digest)
	}
	return nil
}

func readLine(in *bufio.Reader) (line []byte, err error) {
	for len(line) < maxLessonsLine {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			return line[:len(line)-1], nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, errors.New("it ends within its lessons; remove it, or put a copy back")
		}
	}
	return nil, errors.New("its lessons have no end; remove it, or put a copy back")
}
