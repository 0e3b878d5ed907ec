package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/cmd/internal/api"
)

var dayModel = api.Model{Name: "shipped 1", Built: now.Add(-1000 * time.Hour), From: []string{"enron", "made up"}, Good: 6084, Bad: 2606, Lessons: 2, Previous: "own (1 good and 2 bad learnt)",
	Learned: "auto", Missing: "4100 of 5000 messages of this network that it takes for good", Taken: 4100, Wrong: 1,
	Doubts: []api.Doubt{{ID: "k3f9a9.1", At: now.Add(-time.Hour), Count: 12, Probability: 0.9934}}}

func (fake) Model(context.Context) (*api.Model, error) { m := dayModel; return &m, nil }
func (fake) ExportModel(_ context.Context, w io.Writer) error {
	_, err := io.WriteString(w, "a model")
	return err
}
func (fake) ImportModel(_ context.Context, _ string, r io.Reader, _ bool) (*api.Model, error) {
	b, err := io.ReadAll(r)
	if string(b) != "a model" {
		return nil, &api.Problem{Status: 400, Code: "bad-model", What: "the model was not taken: it is none", Remedy: "the one in use stays"}
	}
	return &api.Model{Name: "own", Learned: "always"}, err
}
func (fake) UseModel(context.Context, string, string) (*api.Model, error) { return nil, nil }

func (fake) DropShadow(context.Context, string) (*api.Model, error) { return nil, nil }

func (fake) PreviousModel(context.Context, string) (*api.Model, error) {
	return &api.Model{Name: "before", Learned: "auto", Acting: true}, nil
}
func (fake) Train(_ context.Context, _ string, data []byte, bad bool, source string) (*api.Lesson, error) {
	switch {
	case bytes.Contains(data, []byte("known")):
		return nil, &api.Problem{Status: 409, Code: "known", What: "learnt already"}
	case source == "trap":
		return nil, &api.Problem{Status: 429, Code: "budget", What: "this source has taught as much as one may in a day", Remedy: "try again tomorrow"}
	}
	return &api.Lesson{Bad: bad, Source: source, Steps: 3}, nil
}
func (fake) Untrain(context.Context, string, []byte) (*api.Lesson, error) {
	return &api.Lesson{Steps: 3}, nil
}
func (fake) ConfirmDoubt(_ context.Context, _ string, v api.Verdict) (*api.Model, error) {
	return &api.Model{Name: "own", Learned: "never", Lessons: len(v.ID)}, nil
}

func TestModelGoesToAFileAndBack(t *testing.T) {
	t.Parallel()
	socket := serve(t)
	file := filepath.Join(t.TempDir(), "m")
	if code, _, errs := call(socket, 0, "model", "export", file); code != 0 {
		t.Fatal(errs)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "a model" {
		t.Fatalf("the file holds %q, %v", b, err)
	}
	if code, out, errs := call(socket, 0, "model", "import", file); code != 0 || !strings.Contains(out, "refuses at once") {
		t.Errorf("code %d: %s%s", code, out, errs)
	}
	if code, _, errs := call(socket, 0, "model", "import", "testdata/users.csv"); code != exitFailed || !strings.Contains(errs, "the one in use stays") {
		t.Errorf("a list of users was taken for a model: code %d: %s", code, errs)
	}
}
