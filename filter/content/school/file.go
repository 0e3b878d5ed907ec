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

// A school's file opens with its magic: a line of JSON follows, then the model. Of the older form the line has the lessons
// alone.
const (
	fileMagic = "sluice school 2\n"
	oldMagic  = "sluice school 1\n"
)

// maxLessonsLine bounds the line of JSON: each lesson has less than 400 bytes.
const maxLessonsLine = maxLessons*400 + 1<<20

// fileLine is the line of JSON.
type fileLine struct {
	Seq     int64          `json:"seq"` // of the last lesson in the model; the journal's later ones are repeated
	Day     int64          `json:"day"`
	Spent   map[string]int `json:"spent"`
	Lessons []Lesson       `json:"lessons"`
}

// Unsaved reports, once, whether the model changed since the last time.
func (s *School) Unsaved() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.changed
	s.changed = false
	return was
}

// Unwritten says that the last save failed: the next one writes all anew.
func (s *School) Unwritten() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed, s.kept = true, s.previous != nil
	if sh := s.shadow.Load(); sh != nil {
		sh.changed = true
	}
}

// Save writes model and lessons, and returns the number of the last lesson in them: what a journal has up to it is needed
// no more, see Journal.
func (s *School) Save(w io.Writer) (seq int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seq, write(w, fileLine{Seq: s.seq, Day: s.day, Spent: s.spent}, &state{s.Judge().Model(), s.lessons, s.order})
}

// SavePrevious writes what Back goes back to; false where there is nothing, or nothing new since the last time.
func (s *School) SavePrevious(w io.Writer) (bool, error) {
	s.mu.Lock()
	p, fresh := s.previous, s.kept
	s.kept = false
	s.mu.Unlock()
	if p == nil || !fresh {
		return false, nil
	}
	return true, write(w, fileLine{}, p)
}

func write(w io.Writer, line fileLine, st *state) error {
	line.Lessons = make([]Lesson, 0, len(st.order))
	for _, d := range st.order {
		line.Lessons = append(line.Lessons, st.lessons[d])
	}
	b, err := json.Marshal(line)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "%s%s\n", fileMagic, b); err != nil {
		return err
	}
	return st.model.Save(w)
}

// Load takes over what Save wrote. After an error nothing has changed.
func (s *School) Load(r io.Reader) error {
	line, st, err := read(r)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.judge.Store(content.NewJudge(st.model))
	s.lessons, s.order, s.seq, s.day = st.lessons, st.order, line.Seq, line.Day
	if line.Spent != nil {
		s.spent = line.Spent
	}
	return nil
}

// LoadPrevious takes over what SavePrevious wrote. After an error nothing has changed.
func (s *School) LoadPrevious(r io.Reader) error {
	_, st, err := read(r)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.previous = st
	return nil
}

func read(r io.Reader) (line fileLine, st *state, err error) {
	in := bufio.NewReader(r)
	head := make([]byte, len(fileMagic))
	if _, err := io.ReadFull(in, head); err != nil || string(head) != fileMagic && string(head) != oldMagic {
		return line, nil, errors.New("it is not what a content filter of this version has learnt; remove it, or put a copy back")
	}
	text, err := readLine(in)
	if err != nil {
		return line, nil, err
	}
	if string(head) == oldMagic {
		err = json.Unmarshal(text, &line.Lessons)
	} else {
		err = json.Unmarshal(text, &line)
	}
	if err != nil {
		return line, nil, fmt.Errorf("its lessons are damaged: %w; remove it, or put a copy back", err)
	}
	st = &state{lessons: map[string]Lesson{}}
	if st.model, err = learn.Load(in); err != nil {
		return line, nil, err
	}
	for _, l := range line.Lessons {
		st.lessons[l.Digest] = l
		st.order = append(st.order, l.Digest)
	}
	return line, st, nil
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
