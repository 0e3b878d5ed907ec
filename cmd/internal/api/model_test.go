package api

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
)

func (f *fake) Model(context.Context) (*Model, error) { return &Model{Name: "own"}, nil }
func (f *fake) ExportModel(_ context.Context, w io.Writer) error {
	_, err := io.WriteString(w, "the file")
	return err
}
func (f *fake) ImportModel(_ context.Context, who string, r io.Reader, _ bool) (*Model, error) {
	b, err := io.ReadAll(r)
	f.who = who
	return &Model{Name: string(b)}, err
}
func (f *fake) UseModel(_ context.Context, _, which string) (*Model, error) {
	return &Model{Name: which}, nil
}

func (f *fake) DropShadow(context.Context, string) (*Model, error) {
	return &Model{Name: "dropped"}, nil
}

func (f *fake) PreviousModel(context.Context, string) (*Model, error) {
	return &Model{Name: "before"}, nil
}
func (f *fake) Train(_ context.Context, who string, data []byte, bad bool, source string) (*Lesson, error) {
	f.who = who
	return &Lesson{Digest: string(data), Bad: bad, Source: source}, nil
}
func (f *fake) Untrain(_ context.Context, _ string, data []byte) (*Lesson, error) {
	return &Lesson{Digest: string(data)}, nil
}
func (f *fake) ConfirmDoubt(_ context.Context, _ string, v Verdict) (*Model, error) {
	return &Model{Name: v.ID}, nil
}

func TestModels(t *testing.T) {
	t.Parallel()
	f := &fake{}
	c := serve(t, f)
	ctx := context.Background()
	var l Lesson
	if err := c.Do(ctx, "POST", "/v1/model/train?class=spam&source=desk", strings.NewReader("mail"), &l); err != nil || l != (Lesson{Digest: "mail", Bad: true, Source: "desk"}) || f.who == "" {
		t.Errorf("%+v by %q, %v", l, f.who, err)
	}
	if err := c.Do(ctx, "POST", "/v1/model/train?class=ham", strings.NewReader(strings.Repeat("x", 2<<20)), &l); err != nil || l.Bad || len(l.Digest) != 2<<20 {
		t.Errorf("a message of 2 MiB: bad %v, %v", l.Bad, err)
	}
	for want, path := range map[string]string{"neither spam nor ham": "/v1/model/train?class=good", "there is no message": "/v1/model/untrain"} {
		if err := c.Do(ctx, "POST", path, strings.NewReader(""), &l); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	var m Model
	if err := c.Do(ctx, "PUT", "/v1/model/file", strings.NewReader("new"), &m); err != nil || m.Name != "new" {
		t.Errorf("%+v, %v", m, err)
	}
	if err := c.Do(ctx, "POST", "/v1/model/back", nil, &m); err != nil || m.Name != "before" {
		t.Errorf("%+v, %v", m, err)
	}
	if err := c.Do(ctx, "POST", "/v1/model/doubts", Verdict{ID: "k1.1", Bad: true}, &m); err != nil || m.Name != "k1.1" {
		t.Errorf("%+v, %v", m, err)
	}
	var b bytes.Buffer
	if err := c.Fetch(ctx, "/v1/model/file", &b); err != nil || b.String() != "the file" {
		t.Errorf("%q, %v", b.String(), err)
	}
}
