package bpf

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// shapeFormat is raised when a description could be misread by an older program.
const shapeFormat = 1

// shapeName is the pin of a set's own description. It is made last, so a set that has it is whole.
const shapeName = "shape"

// shape says what the maps of a set hold, so that any other version can read them. The kernel knows it too, by BTF, but
// tells it only to CAP_SYS_ADMIN.
type shape struct {
	Format int                 `json:"format"`
	Layout uint32              `json:"layout"`
	Maps   map[string]mapShape `json:"maps"`
}

type mapShape struct {
	Type      ebpf.MapType `json:"type"`
	KeySize   uint32       `json:"key_size"`
	ValueSize uint32       `json:"value_size"`
	Entries   uint32       `json:"entries"`
	Flags     uint32       `json:"flags,omitempty"`
	Key       []field      `json:"key"`
	Value     []field      `json:"value"`
	Labels    []string     `json:"labels,omitempty"` // what the entries of an array are called
}

// field is a number, or an array of them, inside a key or value; of a bare number the name is empty.
type field struct {
	Name   string `json:"name,omitempty"`
	Offset uint32 `json:"offset"`
	Size   uint32 `json:"size"` // of one element
	Count  uint32 `json:"count"`
}

// shapeOf describes the maps that a spec makes.
func shapeOf(spec *ebpf.CollectionSpec) (*shape, error) {
	s := &shape{Format: shapeFormat, Layout: uint32(mailNumberLAYOUT), Maps: make(map[string]mapShape)}
	for name, ms := range spec.Maps {
		if isSection(name) {
			continue
		}
		m, err := mapShapeOf(name, ms)
		if err != nil {
			return nil, err
		}
		s.Maps[name] = m
	}
	return s, nil
}

func mapShapeOf(name string, ms *ebpf.MapSpec) (m mapShape, err error) {
	m = mapShape{Type: ms.Type, KeySize: ms.KeySize, ValueSize: ms.ValueSize, Entries: ms.MaxEntries, Flags: ms.Flags}
	if ms.InnerMap != nil { // holds no values of its own
		return m, nil
	}
	if m.Key, err = fieldsOf(nil, "", 0, ms.Key); err == nil {
		m.Value, err = fieldsOf(nil, "", 0, ms.Value)
	}
	if err != nil {
		return m, fmt.Errorf("could not describe map %s: %w", name, err)
	}
	if name == "counters" {
		m.Labels = reasons[:]
	}
	return m, nil
}

// isSection tells a section of the object from a map of ours.
func isSection(name string) bool { return strings.HasPrefix(name, ".") }

// fieldsOf flattens a type; the names of members inside members are joined by dots, and padding is left out.
func fieldsOf(to []field, name string, offset uint32, t btf.Type) ([]field, error) {
	switch t := btf.UnderlyingType(t).(type) {
	case *btf.Struct:
		for _, m := range t.Members {
			if strings.HasPrefix(m.Name, "pad") {
				continue
			}
			path := m.Name
			if name != "" {
				path = name + "." + m.Name
			}
			var err error
			if to, err = fieldsOf(to, path, offset+m.Offset.Bytes(), m.Type); err != nil {
				return nil, err
			}
		}
		return to, nil
	case *btf.Array:
		size, err := btf.Sizeof(t.Type)
		if err != nil {
			return nil, err
		}
		return append(to, field{name, offset, uint32(size), t.Nelems}), nil
	case *btf.Int, *btf.Enum:
		size, err := btf.Sizeof(t)
		if err != nil {
			return nil, err
		}
		return append(to, field{name, offset, uint32(size), 1}), nil
	}
	return nil, fmt.Errorf("member %q is of type %v, which is neither a number nor an array of numbers", name, t)
}

// same tells whether values of one map are values of the other.
func (m mapShape) same(o mapShape) bool {
	m.Entries, o.Entries = 0, 0
	return reflect.DeepEqual(m, o)
}

// pin writes the description beside the maps of a set.
func (s *shape) pin(dir string) error {
	text, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("could not describe the maps: %w", err)
	}
	for len(text)%8 != 0 { // the kernel copies whole words
		text = append(text, ' ')
	}
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "sluice_shape", Type: ebpf.Array, KeySize: 4, ValueSize: uint32(len(text)), MaxEntries: 1})
	if err != nil {
		return fmt.Errorf("could not describe the maps: %w", err)
	}
	defer m.Close()
	if err := errors.Join(m.Put(uint32(0), text), m.Pin(filepath.Join(dir, shapeName))); err != nil {
		return fmt.Errorf("could not describe the maps in %s: %w", dir, err)
	}
	return nil
}

// readShape reads the description of a set; nil is one that this program does not understand.
func readShape(dir string) (*shape, error) {
	path := filepath.Join(dir, shapeName)
	m, err := ebpf.LoadPinnedMap(path, &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return nil, fmt.Errorf("could not open the pinned map %s: %w", path, err)
	}
	defer m.Close()
	text, err := m.LookupBytes(uint32(0))
	if err != nil {
		return nil, fmt.Errorf("could not read the pinned map %s: %w", path, err)
	}
	s := new(shape)
	if err := json.Unmarshal(text, s); err != nil || s.Format != shapeFormat || !s.sound() {
		return nil, nil
	}
	return s, nil
}

// sound tells whether every field lies inside its key or value.
func (s *shape) sound() bool {
	inside := func(fields []field, size uint32) bool {
		return !slices.ContainsFunc(fields, func(f field) bool {
			return f.Size == 0 || f.Size > 8 || uint64(f.Offset)+uint64(f.Size)*uint64(f.Count) > uint64(size)
		})
	}
	for _, m := range s.Maps {
		if !inside(m.Key, m.KeySize) || !inside(m.Value, m.ValueSize) {
			return false
		}
	}
	return true
}

// whole tells whether a set is.
func whole(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, shapeName))
	return err == nil
}

// find returns the field of that name.
func find(fields []field, name string) (field, bool) {
	i := slices.IndexFunc(fields, func(f field) bool { return f.Name == name })
	if i < 0 {
		return field{}, false
	}
	return fields[i], true
}
