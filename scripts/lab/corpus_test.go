//go:build labtest

package lab

import (
	"archive/tar"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// corpusDir is a collection of real mail beside the checkout, which is no part of it.
const corpusDir = "../../../shared/corpus"

// corpus are messages of that collection, every nth of each archive. Where the collection is not, the test says so and
// goes on with what is its own.
func corpus(t *testing.T, nth map[string]int) []original {
	t.Helper()
	var all []original
	for _, name := range []string{"mail", "mime", "dsn"} {
		path := filepath.Join(corpusDir, name+".tar.zst")
		if _, err := os.Stat(path); err != nil {
			t.Logf("no corpus of real mail: %v; only the test's own messages are sent", err)
			return nil
		}
		letters, err := readArchive(path, nth[name])
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, letters...)
	}
	return all
}

// corpusHam are the names of the corpus's mail that is no spam; none where there is no corpus.
func corpusHam(t *testing.T) map[string]bool {
	t.Helper()
	f, err := os.Open(filepath.Join(corpusDir, "index.csv"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // only read
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil || len(rows) == 0 {
		t.Fatalf("could not read the corpus's index: %v", err)
	}
	ham := map[string]bool{}
	name, label := slices.Index(rows[0], "file"), slices.Index(rows[0], "label")
	for _, row := range rows[1:] {
		ham[row[name]] = row[label] == "ham"
	}
	return ham
}

func readArchive(path string, nth int) ([]original, error) {
	cmd := exec.Command("zstd", "-dcq", path)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("could not unpack %s: %w; scripts/deps installs zstd", path, err)
	}
	var all []original
	in, n := tar.NewReader(out), 0
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("could not read %s: %w: %s", path, err, complaint.Bytes())
		}
		// No extension of its own: everything that is a file is a message, but for lists and licences.
		if h.Typeflag != tar.TypeReg || strings.HasSuffix(h.Name, ".md") || strings.HasSuffix(h.Name, ".csv") {
			continue
		}
		if n++; n%nth != 0 {
			continue
		}
		data, err := io.ReadAll(in)
		if err != nil {
			return nil, fmt.Errorf("could not read %s in %s: %w", h.Name, path, err)
		}
		if strings.HasPrefix(h.Name, "sub/") { // its header fields were made with one CR too many
			data = bytes.ReplaceAll(data, []byte("\r\r\n"), []byte("\r\n"))
		}
		all = append(all, original{h.Name, data})
	}
	if _, err := io.Copy(io.Discard, out); err != nil { // what pads the archive
		return nil, err
	}
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("could not unpack %s: %w: %s", path, err, complaint.Bytes())
	}
	return all, nil
}
