package public

import (
	"fmt"
	"html"
	"html/template"
	"io/fs"
	"slices"
	"strings"
)

// page is the explanation of one code.
type page struct {
	Code  string
	Title string
	Text  template.HTML
	plain string // in small letters, for the search
}

// readPages reads the files CODE.md: a heading "# CODE: title", then paragraphs with **bold** and `code`.
func readPages(files fs.FS) ([]page, error) {
	names, err := fs.Glob(files, "*.md")
	if err != nil {
		return nil, err
	}
	var all []page
	for _, name := range names {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, fmt.Errorf("could not read the page %s: %w", name, err)
		}
		head, rest, _ := strings.Cut(string(text), "\n")
		title, ok := strings.CutPrefix(head, "# ")
		code, what, both := strings.Cut(title, ": ")
		if !ok || !both || code+".md" != name {
			return nil, fmt.Errorf("the page %s does not begin with \"# CODE: title\"; correct its first line", name)
		}
		all = append(all, page{Code: code, Title: what, Text: paragraphs(rest), plain: strings.ToLower(string(text))})
	}
	slices.SortFunc(all, func(a, b page) int { return strings.Compare(a.Code, b.Code) })
	return all, nil
}

// paragraphs turns the text into HTML; what looks like HTML in it stays text.
func paragraphs(text string) template.HTML {
	var b strings.Builder
	for p := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		p = html.EscapeString(strings.Join(strings.Fields(p), " "))
		b.WriteString("<p>" + between(between(p, "**", "strong"), "`", "code") + "</p>\n")
	}
	return template.HTML(b.String()) // made of escaped text and two elements
}

// between puts what stands between two marks into an element.
func between(s, mark, element string) string {
	parts := strings.Split(s, mark)
	var b strings.Builder
	for i, part := range parts {
		switch {
		case i == 0:
		case i%2 == 0:
			b.WriteString("</" + element + ">")
		case i+1 < len(parts):
			b.WriteString("<" + element + ">")
		default:
			b.WriteString(mark) // one without its other half
		}
		b.WriteString(part)
	}
	return b.String()
}

// search returns the pages that have all words.
func search(all []page, words string) []page {
	var found []page
	for _, p := range all {
		if !slices.ContainsFunc(strings.Fields(strings.ToLower(words)), func(w string) bool { return !strings.Contains(p.plain, w) }) {
			found = append(found, p)
		}
	}
	return found
}

func find(all []page, code string) (page, bool) {
	i := slices.IndexFunc(all, func(p page) bool { return strings.EqualFold(p.Code, code) })
	if i < 0 {
		return page{}, false
	}
	return all[i], true
}
