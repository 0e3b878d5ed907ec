package config

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// fill gives every key that the file leaves out its default, then what it inherits.
func fill(c *Config, doc *document) {
	root := reflect.ValueOf(c).Elem()
	f := filler{doc: doc, root: root, fields: schema(root.Type())}
	f.table(root, f.fields, "", "")
}

type filler struct {
	doc    *document
	root   reflect.Value
	fields []*field
}

// table fills the table v at key here. From is the table that keys left out inherit from, "" for none. The general
// tables stand before [[user]] in Config, so what is inherited is complete.
func (f *filler) table(v reflect.Value, fields []*field, here, from string) {
	for _, fd := range fields {
		key, fv := join(here, fd.name), v.Field(fd.index)
		switch {
		case fd.list:
			for i := range fv.Len() {
				f.table(fv.Index(i), fd.children, key+"["+strconv.Itoa(i)+"]", "")
			}
		case fd.children != nil:
			f.table(fv, fd.children, key, fd.tag.Get("inherit"))
		case f.doc.has(key):
		case fd.tag.Get("inherit") != "":
			fv.Set(f.lookup(fd.tag.Get("inherit")))
		case from != "":
			fv.Set(f.lookup(from + "." + fd.name))
		default:
			setDefault(fv, fd)
		}
	}
}

// lookup returns the value of a key outside of lists.
func (f *filler) lookup(key string) reflect.Value {
	v, fields := f.root, f.fields
	for name := range strings.SplitSeq(key, ".") {
		fd := find(fields, name)
		v, fields = v.Field(fd.index), fd.children
	}
	return v
}

func setDefault(v reflect.Value, fd *field) {
	text, ok := fd.tag.Lookup("default")
	if !ok {
		return
	}
	d, err := parse(fd.typ, text)
	if err != nil {
		// A tag of this package is wrong; the test over all defaults finds it before anyone else does.
		panic(fmt.Sprintf("config: default of %s: %v", fd.name, err))
	}
	v.Set(d)
}
