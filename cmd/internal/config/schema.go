package config

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// field is one key of the file, as the struct tags describe it.
type field struct {
	name     string // last part of the key
	typ      reflect.Type
	tag      reflect.StructTag
	index    int      // of the struct's field
	list     bool     // [[array of tables]]
	children []*field // not nil for tables
}

var (
	textType = reflect.TypeFor[encoding.TextUnmarshaler]()
	timeType = reflect.TypeFor[time.Time]()
)

// schema describes the keys of struct type t.
func schema(t reflect.Type) []*field {
	var fs []*field
	for i := range t.NumField() {
		sf := t.Field(i)
		f := &field{name: sf.Tag.Get("toml"), typ: sf.Type, tag: sf.Tag, index: i}
		if f.name == "-" {
			continue
		}
		elem := sf.Type
		if elem.Kind() == reflect.Slice && isTable(elem.Elem()) {
			f.list, elem = true, elem.Elem()
		}
		if isTable(elem) {
			f.children = schema(elem)
		}
		fs = append(fs, f)
	}
	return fs
}

func isTable(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && t != timeType && !reflect.PointerTo(t).Implements(textType)
}

func isText(t reflect.Type) bool { return t != timeType && reflect.PointerTo(t).Implements(textType) }

func find(fs []*field, name string) *field {
	i := slices.IndexFunc(fs, func(f *field) bool { return f.name == name })
	if i < 0 {
		return nil
	}
	return fs[i]
}

func names(fs []*field) []string {
	ns := make([]string, len(fs))
	for i, f := range fs {
		ns[i] = f.name
	}
	return ns
}

// kind is the type's name in the manual.
func kind(t reflect.Type) string {
	switch {
	case t == timeType:
		return "date and time"
	case t == reflect.TypeFor[Duration]():
		return "time span"
	case t == reflect.TypeFor[Size]():
		return "size"
	case t == reflect.TypeFor[Prefix]():
		return "prefix"
	case isText(t):
		return "address"
	}
	switch t.Kind() {
	case reflect.Slice:
		return "list of " + kind(t.Elem())
	case reflect.Bool:
		return "true or false"
	case reflect.Float64:
		return "number"
	case reflect.String:
		return "string"
	}
	return "whole number"
}

// parse reads the text s, as it stands in a tag or in the file, as a value of type t. The error reads "what; remedy".
func parse(t reflect.Type, s string) (reflect.Value, error) {
	v := reflect.New(t)
	if isText(t) {
		err := v.Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(s))
		if err != nil && !strings.Contains(err.Error(), "; ") {
			err = fmt.Errorf("%q is not an %s; write it like \"192.0.2.7\" or \"2001:db8::7\"", s, kind(t))
		}
		return v.Elem(), err
	}
	e := v.Elem()
	switch t.Kind() {
	case reflect.String:
		e.SetString(s)
	case reflect.Bool:
		b, err := strconv.ParseBool(s)
		e.SetBool(b)
		return e, err
	case reflect.Float64:
		f, err := strconv.ParseFloat(strings.ReplaceAll(s, "_", ""), 64)
		e.SetFloat(f)
		return e, err
	case reflect.Int:
		n, err := strconv.ParseInt(s, 0, 64)
		if err != nil {
			return e, fmt.Errorf("%s is not a whole number that fits; write it in digits", s)
		}
		e.SetInt(n)
	case reflect.Uint16, reflect.Uint32:
		n, err := strconv.ParseUint(s, 0, t.Bits())
		if err != nil {
			return e, fmt.Errorf("%s is out of range; give a whole number from 0 to %d", s, uint64(1)<<t.Bits()-1)
		}
		e.SetUint(n)
	case reflect.Slice:
		for part := range strings.SplitSeq(s, ",") {
			one, err := parse(t.Elem(), part)
			if err != nil {
				return e, err
			}
			e.Set(reflect.Append(e, one))
		}
	default:
		return e, fmt.Errorf("no way to read a %s", t)
	}
	return e, nil
}

// number gives the value's size for comparison with min and max.
func number(v reflect.Value) float64 {
	switch {
	case v.CanInt():
		return float64(v.Int())
	case v.CanUint():
		return float64(v.Uint())
	case v.CanFloat():
		return v.Float()
	}
	return 0
}

// bounds checks v against the tags enum, min and max. The error reads "what; remedy".
func (f *field) bounds(v reflect.Value, text string) error {
	if enum := f.tag.Get("enum"); enum != "" && !slices.Contains(strings.Split(enum, "|"), v.String()) {
		return fmt.Errorf("%q is not known; write one of %s", text, strings.ReplaceAll(enum, "|", ", "))
	}
	for _, end := range []string{"min", "max"} {
		limit, ok := f.tag.Lookup(end)
		if !ok {
			continue
		}
		l, err := parse(f.typ, limit)
		if err != nil {
			return err
		}
		if end == "min" && number(v) < number(l) {
			return fmt.Errorf("%s is too little; give at least %s", text, limit)
		}
		if end == "max" && number(v) > number(l) {
			return fmt.Errorf("%s is too much; give at most %s", text, limit)
		}
	}
	return nil
}
