package intercept

import (
	"reflect"
	"testing"

	"sluice/bpf"
	"sluice/intercept/control"
)

// Who writes urgent locks and who reads them lay them out alike: they share no code.
func TestUrgentLayout(t *testing.T) {
	t.Parallel()
	if control.UrgentLocks != bpf.UrgentLocks {
		t.Errorf("room for %d locks, and for %d in the kernel", control.UrgentLocks, bpf.UrgentLocks)
	}
	alike(t, "Urgent", reflect.TypeFor[control.Urgent](), reflect.TypeFor[bpf.Urgent]())
}

func alike(t *testing.T, name string, is, kernel reflect.Type) {
	t.Helper()
	if is.Size() != kernel.Size() {
		t.Errorf("%s has %d bytes, and %d in the kernel", name, is.Size(), kernel.Size())
	}
	for i := range is.NumField() {
		f := is.Field(i)
		k, ok := kernel.FieldByName(f.Name)
		if !ok || k.Offset != f.Offset || k.Type.Size() != f.Type.Size() {
			t.Errorf("%s.%s stands at %d with %d bytes; in the kernel %v at %d", name, f.Name, f.Offset, f.Type.Size(), ok, k.Offset)
		} else if f.Type.Kind() == reflect.Struct {
			alike(t, name+"."+f.Name, f.Type, k.Type)
		}
	}
}
