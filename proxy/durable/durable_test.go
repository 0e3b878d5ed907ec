package durable

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWriteFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "key")
	for _, text := range []string{"first", "second, longer", ""} {
		if err := WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(file)
		if err != nil || string(got) != text {
			t.Errorf("the file holds %q (%v), want %q", got, err, text)
		}
		if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("the file's mode is %v (%v), want 0600", st.Mode(), err)
		}
	}
	only(t, dir, "key")
}

// TestWriteFileOf: the file is another's before it has its name, and his alone; who may not give it away leaves what was there.
func TestWriteFileOf(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "key")
	if err := WriteFile(file, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	const other = 4242
	err := WriteFileOf(file, []byte("new"), 0o600, other, other)
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		t.Fatal(err)
	}
	got, _ := os.ReadFile(file)
	switch {
	case os.Geteuid() == 0 && (err != nil || st.Uid != other || st.Gid != other || st.Mode&0o777 != 0o600 || string(got) != "new"):
		t.Errorf("the file is %d:%d's with mode %o and holds %q (%v)", st.Uid, st.Gid, st.Mode&0o777, got, err)
	case os.Geteuid() != 0 && (err == nil || string(got) != "old"):
		t.Errorf("without the right to give it away the file holds %q (%v)", got, err)
	}
	only(t, dir, "key")
}

// TestWriteFileFails: where the name cannot be taken, what stood there stays, and nothing is left beside it.
func TestWriteFileFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "taken", "full"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(filepath.Join(dir, "taken"), []byte("x"), 0o600); err == nil {
		t.Error("a folder was replaced by a file")
	}
	if err := WriteFile(filepath.Join(dir, "nowhere", "key"), []byte("x"), 0o600); err == nil {
		t.Error("a file was written into no folder")
	}
	only(t, dir, "taken")
}

func only(t *testing.T, dir, name string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != name {
		t.Errorf("the folder holds %v (%v), want %s alone", left, err, name)
	}
}
