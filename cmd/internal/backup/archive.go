package backup

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Format and Schema are what this program writes and the newest that it reads: of the file, and of the database in it. A
// test compares Schema with the store's.
const (
	Format = 1
	Schema = 15
)

// Names inside of a backup, a compressed tar archive: what it is, what was in store.dir, the configuration's files below
// their full paths, and at its end the sums of all, without which it is not whole.
const (
	headName    = "backup.json"
	stateFolder = "state"
	filesFolder = "files"
	sumsName    = "SHA256SUMS"
)

// Head says what a backup is.
type Head struct {
	Format  int       `json:"format"`
	Schema  int       `json:"schema" doc:"of the database"`
	Version string    `json:"version" doc:"of the program that wrote it"`
	Gateway string    `json:"gateway"`
	At      time.Time `json:"at"`
	Config  string    `json:"config" doc:"path of the configuration"`
	Dir     string    `json:"dir" doc:"store.dir"`
	Account string    `json:"account" doc:"of sluiced"`
	Files   []Named   `json:"files" doc:"the configuration and what it names"`
}

// Content is what a file of a backup has.
type Content struct {
	Head
	Parts []Part `json:"parts"`
}

// Write writes what stands below root, made of state and files, as a backup.
func Write(w io.Writer, h Head, root string) error {
	h.Format, h.Schema = Format, Schema
	text, err := json.MarshalIndent(&h, "", "  ")
	if err != nil {
		return err
	}
	z := gzip.NewWriter(w)
	a := &writer{tar: tar.NewWriter(z), at: h.At}
	if err := a.put(headName, int64(len(text)), bytes.NewReader(text)); err != nil {
		return err
	}
	err = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		return a.file(name, path)
	})
	if err != nil {
		return err
	}
	sums := a.sums.Bytes()
	if err := a.put(sumsName, int64(len(sums)), bytes.NewReader(sums)); err != nil {
		return err
	}
	return errors.Join(a.tar.Close(), z.Close())
}

// sumLine is a line of the sums, as sha256sum(1) writes and checks them.
const sumLine = "%x  %s\n"

type writer struct {
	tar  *tar.Writer
	at   time.Time
	sums bytes.Buffer
}

func (a *writer) file(name, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err == nil {
		err = a.put(name, st.Size(), f)
	}
	return errors.Join(err, f.Close())
}

func (a *writer) put(name string, size int64, r io.Reader) error {
	if err := a.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: size, ModTime: a.at, Format: tar.FormatPAX}); err != nil {
		return err
	}
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(a.tar, sum), r); err != nil {
		return fmt.Errorf("could not write %s: %w", name, err)
	}
	fmt.Fprintf(&a.sums, sumLine, sum.Sum(nil), name)
	return nil
}

// Look reads the backup in a file to its end and says what it has. The error names the remedy where it is not whole, or
// this program cannot read it.
func Look(file string) (*Content, error) { return read(file, "") }

// read reads a backup, and writes what it has below the folder to, unless that is empty.
func read(file, to string) (*Content, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	return readFrom(f, file, to)
}

func readFrom(f io.Reader, file, to string) (*Content, error) {
	in := bufio.NewReader(f)
	const sqlite = "SQLite format 3"
	if head, err := in.Peek(len(sqlite)); err == nil && string(head) == sqlite {
		return nil, fmt.Errorf("%s is a bare database, as `sluice backup` wrote it once; with sluiced stopped, put it in the place of %s in store.dir and remove %s there", file, database, strings.Join(journals, " and "))
	}
	z, err := gzip.NewReader(in)
	if err != nil {
		return nil, fmt.Errorf("%s is no backup of Sluice: %w; name a file that `sluice backup` wrote", file, err)
	}
	z.Multistream(false)
	r := &reader{tar: tar.NewReader(z), to: to, sizes: map[string]int64{}}
	err = r.all()
	switch {
	case err == nil:
		err = nothingLeft(z, in)
	case errors.Is(err, errNewer):
		if _, zerr := io.Copy(io.Discard, z); zerr != nil { // it only looks so
			err = whole(zerr)
		}
	}
	if err != nil {
		if errors.Is(err, errNewer) || errors.Is(err, errForeign) {
			return nil, fmt.Errorf("%s %w", file, err)
		}
		if w := new(fs.PathError); errors.As(err, &w) { // this host's disk, not the file
			return nil, fmt.Errorf("could not unpack %s: %w", file, err)
		}
		return nil, fmt.Errorf("%s is damaged: %w; nothing of it is used, take another copy", file, err)
	}
	return &Content{r.head, tally(r.sizes)}, nil
}

// nothingLeft reads to the end, where the compression has a sum of its own.
func nothingLeft(rs ...io.Reader) error {
	for _, r := range rs {
		if n, err := io.Copy(io.Discard, r); err != nil || n > 0 {
			return errors.Join(errors.New("its end is not as it was written"), err)
		}
	}
	return nil
}

// The files that are whole, but not for this program.
var (
	errNewer   = errors.New("is of a newer version")
	errForeign = errors.New("is no backup of Sluice")
)

type reader struct {
	tar   *tar.Reader
	to    string
	head  Head
	sums  strings.Builder
	sizes map[string]int64 // by name
}

func (r *reader) all() error {
	h, err := r.tar.Next()
	if err != nil {
		return whole(err)
	}
	if h.Name != headName || h.Size > 1<<20 {
		return fmt.Errorf("%w: it begins with %q; name a file that `sluice backup` wrote", errForeign, h.Name)
	}
	var text bytes.Buffer
	if err := r.sum(h.Name, &text); err != nil {
		return err
	}
	if err := json.Unmarshal(text.Bytes(), &r.head); err != nil {
		return err
	}
	if r.head.Format > Format || r.head.Schema > Schema {
		return fmt.Errorf("%w: Sluice %s wrote it; install that version here, restore with it, and go back behind that if you must", errNewer, r.head.Version)
	}
	for {
		h, err := r.tar.Next()
		if err != nil {
			return whole(err)
		}
		if h.Name == sumsName {
			return r.end()
		}
		if err := r.entry(h); err != nil {
			return err
		}
	}
}

// whole says of an archive that ends too early what is wrong.
func whole(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("its end is missing")
	}
	return err
}

func (r *reader) entry(h *tar.Header) error {
	top, rest, _ := strings.Cut(h.Name, "/")
	first, _, _ := strings.Cut(rest, "/")
	known := top == stateFolder && Holds(first) || top == filesFolder && slices.ContainsFunc(r.head.Files, func(n Named) bool { return n.Path == "/"+rest })
	if h.Typeflag != tar.TypeReg || !known || filepath.Clean(h.Name) != h.Name || !filepath.IsLocal(h.Name) {
		return fmt.Errorf("it has %q, which belongs to no backup", h.Name)
	}
	r.sizes[h.Name] = h.Size
	if r.to == "" {
		return r.sum(h.Name, io.Discard)
	}
	path := filepath.Join(r.to, h.Name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(r.sum(h.Name, f), f.Sync(), f.Close())
}

func (r *reader) sum(name string, w io.Writer) error {
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(w, sum), r.tar); err != nil {
		return whole(err)
	}
	fmt.Fprintf(&r.sums, sumLine, sum.Sum(nil), name)
	return nil
}

// end compares the sums, which are the last file.
func (r *reader) end() error {
	var want strings.Builder
	if _, err := io.Copy(&want, r.tar); err != nil {
		return whole(err)
	}
	if want.String() != r.sums.String() {
		return errors.New("what it has is not what was written")
	}
	if _, err := r.tar.Next(); !errors.Is(err, io.EOF) {
		return errors.Join(errors.New("there is something behind its end"), err)
	}
	if r.sizes[stateFolder+"/"+database] == 0 {
		return errors.New("it has no database")
	}
	return nil
}
