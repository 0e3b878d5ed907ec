package backup

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var gathered = map[string]string{
	"state/sluice.db":               "the database",
	"state/dkim/a._domainkey.x.org": "a key",
	"state/counts.1":                "counts",
	"files/etc/sluice/sluice.toml":  "# configuration",
}

// tree is what stands below a folder.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	have := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		name, rerr := filepath.Rel(dir, path)
		have[name] = string(b)
		if err == nil {
			err = rerr
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return have
}

func plant(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// written is a backup of what is gathered.
func written(t *testing.T) []byte {
	t.Helper()
	root := t.TempDir()
	plant(t, root, gathered)
	var b bytes.Buffer
	h := Head{Version: "1.2", Gateway: "gw.example", At: time.Now().UTC(), Files: []Named{{Path: "/etc/sluice/sluice.toml", Mode: 0o640}}}
	if err := Write(&b, h, root); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func inFile(t *testing.T, b []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "gw.sluice")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// before is a folder in use: old state, mail that waits, and what no backup knows.
var before = map[string]string{"sluice.db": "old", "sluice.db-wal": "old, too", "habits.0": "old", "dkim/b._domainkey.x.org": "old", "spool/1": "mail", "note.txt": "mine", "quarantine/1.held": "held"}

// after is what has to stand there once it is restored, and what was moved aside.
var (
	after   = map[string]string{"sluice.db": "the database", "dkim/a._domainkey.x.org": "a key", "counts.1": "counts", "spool/1": "mail", "note.txt": "mine", "quarantine/1.held": "held"}
	movedTo = map[string]string{"sluice.db": "old", "sluice.db-wal": "old, too", "habits.0": "old", "dkim/b._domainkey.x.org": "old", "quarantine/1.held": "held"}
)

// restored compares a folder, in which a restore has ended, with what it has to be.
func restored(t *testing.T, dir string) {
	t.Helper()
	now, aside := map[string]string{}, map[string]string{}
	for name, text := range tree(t, dir) {
		if strings.HasPrefix(name, unpacked+"/") {
			continue
		}
		if top, rest, _ := strings.Cut(name, "/"); strings.HasPrefix(top, "before-restore-") {
			aside[rest] = text
			continue
		}
		now[name] = text
	}
	if !maps.Equal(now, after) || !maps.Equal(aside, movedTo) {
		t.Errorf("there stands %q, and aside %q", now, aside)
	}
}

// TestPutBack: what was written comes back whole, what stood there before is moved aside, and what a backup never has stays.
func TestPutBack(t *testing.T) {
	t.Parallel()
	file, dir := inFile(t, written(t)), t.TempDir()
	plant(t, dir, before)
	plant(t, dir, map[string]string{unpacked + "/state/sluice.db": "of a restore that was killed"})
	c, err := Unpack(file, dir, os.Getuid(), os.Getgid())
	if err != nil {
		t.Fatal(err)
	}
	if c.Gateway != "gw.example" || c.Parts[0].Files != 1 || c.Parts[1].Bytes != 12 || c.Parts[2].Files != 1 || !c.Parts[len(c.Parts)-1].Left {
		t.Errorf("it is said to have %+v", c)
	}
	if b, err := File(dir, "/etc/sluice/sluice.toml"); string(b) != "# configuration" {
		t.Errorf("the configuration is %q, %v", b, err)
	}
	where, err := Commit(dir)
	if err != nil || !strings.HasPrefix(where, filepath.Join(dir, "before-restore-")) {
		t.Errorf("moved aside to %q, %v", where, err)
	}
	restored(t, dir)
	if err := Discard(dir); err != nil {
		t.Fatal(err)
	}
	if where, err := Finish(dir); where != "" || err != nil {
		t.Errorf("there was something left to do: %q, %v", where, err)
	}
	restored(t, dir)
}

// TestInterrupted: wherever a restore is killed once it has begun to change anything, who comes next ends it.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	file := inFile(t, written(t))
	for step := range 9 {
		dir := t.TempDir()
		plant(t, dir, before)
		if _, err := Unpack(file, dir, os.Getuid(), os.Getgid()); err != nil {
			t.Fatal(err)
		}
		moves := [][2]string{{unpacked + "/state", ready}, {"", old}}
		for _, n := range []string{"dkim", "habits.0", "sluice.db", "sluice.db-wal"} {
			moves = append(moves, [2]string{n, old + "/" + n})
		}
		moves = append(moves, [2]string{ready, coming})
		for _, n := range []string{"counts.1", "dkim"} {
			moves = append(moves, [2]string{coming + "/" + n, n})
		}
		for _, m := range moves[:step+1] {
			err := error(nil)
			if m[0] == "" {
				err = errors.Join(os.Mkdir(filepath.Join(dir, m[1]), 0o700), linkAll(filepath.Join(dir, "quarantine"), filepath.Join(dir, m[1], "quarantine")))
			} else {
				err = os.Rename(filepath.Join(dir, m[0]), filepath.Join(dir, m[1]))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Finish(dir); err != nil {
			t.Fatalf("killed after step %d: %v", step, err)
		}
		restored(t, dir)
	}
}

// TestDamaged: a file that is cut anywhere, or has one byte that is another, is refused, and nothing is left of it.
func TestDamaged(t *testing.T) {
	t.Parallel()
	good, dir := written(t), t.TempDir()
	plant(t, dir, before)
	refused := func(what string, b []byte, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), "is damaged") && !strings.Contains(err.Error(), "no backup of Sluice") {
			t.Errorf("%s, of %d bytes: %v", what, len(b), err)
		}
	}
	looked := func(what string, b []byte) {
		t.Helper()
		if _, err := readFrom(bytes.NewReader(b), "gw.sluice", ""); err != nil || !bytes.Equal(plain(b), plain(good)) { // some bits of the compression mean nothing
			refused(what, b, err)
		}
	}
	for n := range good {
		looked("cut", good[:n])
		if n >= 10 { // the head of the compression has bytes without a meaning
			other := bytes.Clone(good)
			other[n] ^= 0x10
			looked("another byte", other)
		}
	}
	looked("twice", append(bytes.Clone(good), good...))
	for _, b := range [][]byte{good[:len(good)/2], good[:len(good)-1]} {
		_, err := Unpack(inFile(t, b), dir, os.Getuid(), os.Getgid())
		refused("unpacked", b, err)
		if have := tree(t, dir); !maps.Equal(have, before) {
			t.Fatalf("there stands %q", have)
		}
	}
}

// plain is what b has, uncompressed, as far as it can be read.
func plain(b []byte) []byte {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil
	}
	text, err := io.ReadAll(z)
	if err != nil {
		return nil
	}
	return text
}

// again writes the archive in b anew, each file as change has it; "" leaves it out.
func again(t *testing.T, b []byte, change func(name, text string) (string, string)) []byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	zw := gzip.NewWriter(&out)
	in, tw := tar.NewReader(z), tar.NewWriter(zw)
	for {
		h, err := in.Next()
		if err != nil {
			break
		}
		var text bytes.Buffer
		if _, err := text.ReadFrom(in); err != nil {
			t.Fatal(err)
		}
		name, now := change(h.Name, text.String())
		if name == "" {
			continue
		}
		if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(now))}); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write([]byte(now)); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestForeign: what is whole, but not for this program, or not a backup's, is refused with what to do.
func TestForeign(t *testing.T) {
	t.Parallel()
	good := written(t)
	for want, b := range map[string][]byte{
		"is of a newer version: Sluice 1.2 wrote it; install that": again(t, good, func(name, text string) (string, string) {
			return name, strings.Replace(text, `"format": 1`, `"format": 2`, 1)
		}),
		"is of a newer version: Sluice 1.2": again(t, good, func(name, text string) (string, string) {
			return name, strings.Replace(text, `"schema": `, `"schema": 9`, 1)
		}),
		`it has "../etc/passwd", which belongs`: again(t, good, func(name, text string) (string, string) {
			return strings.Replace(name, "state/counts.1", "../etc/passwd", 1), text
		}),
		`it has "state/../spool/1", which belongs`: again(t, good, func(name, text string) (string, string) {
			return strings.Replace(name, "state/counts.1", "state/../spool/1", 1), text
		}),
		`it has "state/dkim/../../x", which belongs`: again(t, good, func(name, text string) (string, string) {
			return strings.Replace(name, "state/counts.1", "state/dkim/../../x", 1), text
		}),
		`it has "files/etc/passwd", which belongs`: again(t, good, func(name, text string) (string, string) {
			return strings.Replace(name, "state/counts.1", "files/etc/passwd", 1), text
		}),
		"is not what was written": again(t, good, func(name, text string) (string, string) {
			return name, strings.Replace(text, "a key", "b key", 1)
		}),
		"its end is missing": again(t, good, func(name, text string) (string, string) {
			return strings.TrimSuffix(name, sumsName), text
		}),
		"name a file that `sluice backup` wrote": again(t, good, func(name, text string) (string, string) {
			return strings.TrimSuffix(name, headName), text
		}),
		"is a bare database": []byte("SQLite format 3\x00 and more"),
		"is no backup":       []byte("hello, this is a letter"),
	} {
		if _, err := Look(inFile(t, b)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if _, err := Look(inFile(t, again(t, good, func(name, text string) (string, string) { return name, text }))); err != nil {
		t.Errorf("the same archive again: %v", err)
	}
}
