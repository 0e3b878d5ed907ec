package config

import (
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// Files are the paths that the file gives of what somebody else put there: keys, certificates, secrets, lists, texts. What the
// programs make themselves, or wait for, is not among them, but the key of held messages is, since it stands apart from these.
func (c *Config) Files() []string {
	root := reflect.ValueOf(c).Elem()
	paths := files(root, schema(root.Type()))
	slices.Sort(paths)
	return slices.Compact(paths)
}

func files(v reflect.Value, fields []*field) (paths []string) {
	for _, f := range fields {
		fv := v.Field(f.index)
		switch {
		case f.list:
			for i := range fv.Len() {
				paths = append(paths, files(fv.Index(i), f.children)...)
			}
		case f.children != nil:
			paths = append(paths, files(fv, f.children)...)
		case fv.Kind() == reflect.String && filepath.IsAbs(fv.String()) && !made(f.name):
			paths = append(paths, filepath.Clean(fv.String()))
		}
	}
	return paths
}

// made tells by its key whether a path is of what is made or comes while the programs run.
func made(key string) bool {
	return key == "dir" || key == "folder" || key == "address" || strings.HasSuffix(key, "_dir") || strings.HasSuffix(key, "socket")
}
