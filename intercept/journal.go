package intercept

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"sluice/intercept/control"
)

// journalName is the file of what the proxy said about sources: one change a line, written before the kernel changes, so
// that what the next helper finds is never older than the kernel, and one change costs one line however many there are.
const journalName = "sources.jsonl"

// journalLine is one change. The first line of a file starts from nothing.
type journalLine struct {
	Put  []control.Source `json:"put,omitempty"`
	Gone []netip.Prefix   `json:"gone,omitempty"`
}

// journalBatch is how many sources stand in one line of a file that is written whole.
const journalBatch = 500

// journal appends to the file and writes it anew where it has grown. Of its own trouble it tells the log: a full disk must
// not hinder what the kernel does.
type journal struct {
	dir string
	log *slog.Logger

	mu     sync.Mutex
	file   *os.File // nil: the file has to be written anew
	lines  int      // appended since then
	broken bool     // told already
}

// load reads the file; found is false where there is none.
func (j *journal) load() (set *runtimeSet, found bool, err error) {
	name := filepath.Join(j.dir, journalName)
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("could not read the sources of the last helper: %w", err)
	}
	defer f.Close() // only read
	set = new(runtimeSet)
	d := json.NewDecoder(bufio.NewReaderSize(f, 1<<16))
	for {
		var l journalLine
		switch err := d.Decode(&l); {
		case err == io.EOF:
			j.file, err = os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
			return set, true, err
		case err == io.ErrUnexpectedEOF: // a power cut took the last line's end
			return set, true, nil
		case err != nil:
			return nil, false, fmt.Errorf("could not read the sources of the last helper in %s: %w; remove the file: the proxy sends its users again", name, err)
		}
		c := change{put: l.Put, gone: l.Gone}
		c.put = c.put[:0]
		for _, s := range l.Put {
			if err := s.Valid(); err != nil { // a helper that does not start would leave the gate open
				j.log.Error("a stored source is left out", "error", err)
				continue
			}
			c.put = append(c.put, s)
		}
		c.apply(set)
	}
}

// append adds one change.
func (j *journal) append(c change) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return // it is written whole soon
	}
	b, err := json.Marshal(journalLine{c.put, c.gone})
	if err == nil {
		_, err = j.file.Write(append(b, '\n'))
	}
	j.lines++
	if err != nil {
		j.fail(err)
	}
}

// fail gives the file up until it can be written whole.
func (j *journal) fail(err error) {
	if !j.broken {
		j.log.Error("sources are not kept on disk: after a restart those of now may be missing until the proxy sends them", "error", err)
	}
	j.broken = true
	if j.file != nil {
		_ = j.file.Close() // it is written anew
		j.file = nil
	}
}

// grown tells whether the file should be written anew, or synced only.
func (j *journal) grown(size int) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.file == nil || j.lines > 1000+size/2
}

// sync brings to the disk what was appended.
func (j *journal) sync() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return nil
	}
	return j.file.Sync()
}

// write writes the whole set, so that a crash at any moment leaves the old or the new file.
func (j *journal) write(set *runtimeSet) (err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	defer func() {
		if err != nil {
			err = fmt.Errorf("could not write the sources to %s: %w", filepath.Join(j.dir, journalName), err)
			j.fail(err)
		}
	}()
	f, err := os.CreateTemp(j.dir, journalName+".*")
	if err != nil {
		return err
	}
	if err := errors.Join(writeSet(f, set), f.Sync()); err != nil {
		return errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	if err := os.Rename(f.Name(), filepath.Join(j.dir, journalName)); err != nil {
		return errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	if j.file != nil {
		_ = j.file.Close() // it has no name any more
	}
	j.file, j.lines, j.broken = f, 0, false
	d, err := os.Open(j.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func writeSet(w io.Writer, set *runtimeSet) error {
	b := bufio.NewWriterSize(w, 1<<16)
	enc := json.NewEncoder(b)
	l := journalLine{Put: make([]control.Source, 0, journalBatch)}
	for _, s := range set.All() {
		if l.Put = append(l.Put, s); len(l.Put) == journalBatch {
			if err := enc.Encode(l); err != nil {
				return err
			}
			l.Put = l.Put[:0]
		}
	}
	if err := enc.Encode(l); err != nil {
		return err
	}
	return b.Flush()
}

// replace puts next on disk in the place of was, if they differ.
func (j *journal) replace(was, next *runtimeSet) error {
	if !j.grown(was.Len()) && equal(was, next) {
		return nil
	}
	return j.write(next)
}

func equal(a, b *runtimeSet) bool {
	if a.Len() != b.Len() {
		return false
	}
	for p, s := range a.All() {
		if t, ok := b.Get(p); !ok || !s.Equal(t) {
			return false
		}
	}
	return true
}

func (j *journal) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return nil
	}
	return j.file.Close()
}
