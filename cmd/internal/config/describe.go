package config

//go:generate go test -run "TestDescribe|TestManual" -update

import (
	"fmt"
	"io"
	"reflect"
	"strings"
)

// Key is one key of the configuration file as the manual shows it.
type Key struct {
	Table    string // "[limits]" or "[[user]]"
	Intro    string // what the table is for
	Name     string
	Type     string
	Default  string // as it stands in a file; "" where there is none
	Inherits string // the key or table that stands in where it is left out
	Required bool
	Doc      string
}

// Keys lists every key in the order of the file.
func Keys() []Key { return keys(schema(reflect.TypeFor[Config]()), "", Key{}) }

func keys(fields []*field, here string, table Key) []Key {
	var ks, below []Key
	for _, f := range fields {
		name := join(here, f.name)
		if f.children == nil {
			ks = append(ks, describe(f, table))
			continue
		}
		t := Key{Table: "[" + name + "]", Intro: f.tag.Get("doc"), Inherits: f.tag.Get("inherit")}
		if f.list {
			t.Table = "[" + t.Table + "]"
		}
		if t.Inherits != "" {
			// The same keys were described where they are inherited from.
			t.Name, t.Doc, t.Inherits = "", t.Intro, "["+t.Inherits+"]"
			below = append(below, t)
			continue
		}
		below = append(below, keys(f.children, name, t)...)
	}
	return append(ks, below...)
}

func describe(f *field, table Key) Key {
	k := table
	k.Name, k.Type, k.Doc = f.name, kind(f.typ), f.tag.Get("doc")
	k.Required, k.Inherits = f.tag.Get("required") != "", f.tag.Get("inherit")
	if enum := f.tag.Get("enum"); enum != "" {
		k.Type = oneOf(strings.Split(enum, "|"))
	}
	lo, hi := f.tag.Get("min"), f.tag.Get("max")
	switch {
	case lo != "" && hi != "":
		k.Type += " from " + lo + " to " + hi
	case lo != "" && lo != "0":
		k.Type += " from " + lo
	case hi != "":
		k.Type += " up to " + hi
	}
	if d, ok := f.tag.Lookup("default"); ok {
		k.Default = literal(f.typ, d)
	}
	return k
}

// literal writes a default the way the file would.
func literal(t reflect.Type, s string) string {
	switch {
	case isText(t) || t.Kind() == reflect.String:
		return `"` + s + `"`
	case t.Kind() == reflect.Slice:
		var parts []string
		for part := range strings.SplitSeq(s, ",") {
			parts = append(parts, literal(t.Elem(), part))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	return s
}

// Describe writes every key with its type, default and meaning.
func Describe(w io.Writer) error {
	var b strings.Builder
	last := ""
	for _, k := range Keys() {
		if k.Table != last {
			fmt.Fprintf(&b, "%s\n%s", k.Table, wrap(k.Intro, "  "))
			last = k.Table
		}
		if k.Name == "" {
			continue
		}
		fmt.Fprintf(&b, "\n  %s  (%s)\n%s", k.Name, k.facts(), wrap(k.Doc, "      "))
	}
	_, err := io.WriteString(w, strings.ReplaceAll(b.String(), "\n[", "\n\n["))
	return err
}

func (k Key) facts() string {
	switch {
	case k.Required:
		return k.Type + ", required"
	case k.Inherits != "":
		return k.Type + ", inherits " + k.Inherits
	case k.Default != "":
		return k.Type + ", default " + k.Default
	}
	return k.Type
}

// wrap breaks text into lines of at most 100 columns, each after indent.
func wrap(text, indent string) string {
	var b strings.Builder
	line := indent
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > 100 && line != indent {
			b.WriteString(line + "\n")
			line = indent
		}
		if line != indent {
			line += " "
		}
		line += word
	}
	b.WriteString(line + "\n")
	return b.String()
}

// oneOf writes a choice as people do.
func oneOf(all []string) string {
	if len(all) < 4 {
		return strings.Join(all, " or ")
	}
	return strings.Join(all[:len(all)-1], ", ") + " or " + all[len(all)-1]
}
