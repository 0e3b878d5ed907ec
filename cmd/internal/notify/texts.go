// Package notify tells people and programs what happened: by mail, from texts that an operator may replace, and by signed
// calls of their own servers that are tried until they are heard.
package notify

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
	"time"
)

//go:embed texts/*.txt
var shipped embed.FS

// The kinds of mail.
const (
	Locked = "locked" // to who answers for a sender that was locked
	Appeal = "appeal" // to the desk: somebody says that a message was no spam
)

var kinds = []string{Locked, Appeal}

// Vars are what a text may use.
type Vars struct {
	Gateway, Brand, Contact string
	To                      string // who reads it
	User, Identity          string // Identity "": the whole user
	Ticket, Code, Reason    string
	Automatic               bool
	Since, Until            time.Time // a zero Until: a person has to unlock
	Examples                []Example
	More                    int    // further messages that led to it
	Page                    string // explains the code; "" where there is none
	Unlock                  string // link to unlock; "" where there is none
	UnlockUntil             time.Time
	Message, Text           string // of an appeal
	Held                    string // the held copy's number; "" where there is none
}

// Example is one message that a mail tells of.
type Example struct {
	Time                time.Time
	Message, From, Code string
}

// Texts are the templates of all kinds and languages.
type Texts struct {
	byName map[string]*template.Template // "locked.en"
}

var functions = template.FuncMap{
	// when is how times stand in mail.
	"when": func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") },
	"line": oneLine,
}

// oneLine keeps what strangers wrote from looking like text of ours.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "") + "…"
	}
	return s
}

// LoadTexts returns the texts of this program, and in their place, or in further languages, those of the files
// KIND.LANGUAGE.txt in dir; "" for none. Each is tried at once: one that does not fit is an error that names its file.
func LoadTexts(dir string) (*Texts, error) {
	t := &Texts{byName: map[string]*template.Template{}}
	own, err := fs.Sub(shipped, "texts")
	if err != nil {
		return nil, err
	}
	if err := t.add(own, ""); err != nil {
		return nil, err
	}
	if dir == "" {
		return t, nil
	}
	if _, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("could not read the texts of notices: %w; make the folder, or remove notice.templates", err)
	}
	return t, t.add(os.DirFS(dir), dir)
}

func (t *Texts) add(from fs.FS, dir string) error {
	names, err := fs.Glob(from, "*.txt")
	if err != nil {
		return err
	}
	for _, file := range names {
		text, err := fs.ReadFile(from, file)
		if err != nil {
			return fmt.Errorf("could not read a text of notices: %w", err)
		}
		if err := t.put(strings.TrimSuffix(file, ".txt"), string(text)); err != nil {
			return fmt.Errorf("%s: %w", filepath.Join(dir, file), err)
		}
	}
	return nil
}

func (t *Texts) put(name, text string) error {
	kind, lang, ok := strings.Cut(name, ".")
	if !ok || !slices.Contains(kinds, kind) || lang == "" {
		return fmt.Errorf("it is not known for what this is; name it like %s.en.txt, with one of %s", Locked, strings.Join(kinds, ", "))
	}
	one, err := template.New(name).Funcs(functions).Option("missingkey=error").Parse(strings.ReplaceAll(text, "\r\n", "\n"))
	if err != nil {
		return fmt.Errorf("it is no template: %w", err)
	}
	for _, v := range []*Vars{{}, sample()} { // what is left out must not break it either
		if _, _, err := render(one, v); err != nil {
			return err
		}
	}
	t.byName[name] = one
	return nil
}

func sample() *Vars {
	now := time.Unix(1_800_000_000, 0)
	return &Vars{Gateway: "gw.example", Brand: "Provider", Contact: "abuse@gw.example", To: "alice@customer.example", User: "alice", Identity: "web1", Ticket: "ABCD-EFGH", Code: "SPAM", Reason: "sent spam",
		Automatic: true, Since: now, Until: now.Add(time.Hour), Examples: []Example{{now, "abc.1", "a@customer.example", "SPAM"}}, More: 1, Page: "https://gw.example/codes/SPAM",
		Unlock: "https://gw.example/unlock/x", UnlockUntil: now.Add(time.Hour), Message: "abc.1", Text: "a letter", Held: "q1"}
}

// Languages are those in which mail of a kind can be written, sorted.
func (t *Texts) Languages(kind string) (all []string) {
	for name := range t.byName {
		if k, lang, _ := strings.Cut(name, "."); k == kind {
			all = append(all, lang)
		}
	}
	slices.Sort(all)
	return all
}

// Write makes subject and text of a kind, in English where the language has none.
func (t *Texts) Write(kind, language string, v *Vars) (subject, text string, err error) {
	one := t.byName[kind+"."+strings.ToLower(language)]
	if one == nil {
		one = t.byName[kind+".en"]
	}
	return render(one, v)
}

// render fills a template in. Its first line is the subject, behind "Subject: "; an empty one stands between it and the text.
func render(one *template.Template, v *Vars) (subject, text string, err error) {
	var b bytes.Buffer
	if err := one.Execute(&b, v); err != nil {
		return "", "", fmt.Errorf("it cannot be filled in: %w", err)
	}
	head, text, ok := strings.Cut(b.String(), "\n\n")
	subject, named := strings.CutPrefix(head, "Subject: ")
	if !ok || !named || strings.Contains(subject, "\n") || strings.TrimSpace(text) == "" {
		return "", "", errors.New(`it has to begin with one line "Subject: …", an empty line, and a text`)
	}
	return oneLine(subject), strings.TrimRight(text, "\n") + "\n", nil
}
