//go:build bpftest

package bpf

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"testing"

	"github.com/cilium/ebpf"
)

// What one program may cost the verifier. The kernel's own bound is a million steps; older verifiers need several times as
// many for the same program.
const (
	mostSteps        = 80_000
	mostInstructions = 6_000
)

var verifierSteps = regexp.MustCompile(`processed (\d+) insns`)

// TestVerifier loads every program of both objects with tables of every size and every limit of the passive path, each alone,
// and bounds what it costs.
func TestVerifier(t *testing.T) {
	t.Parallel()
	objects := map[string]struct {
		load    func() (*ebpf.CollectionSpec, error)
		options []func(*ebpf.CollectionSpec) (string, error)
	}{
		"mail":    {loadMail, nil},
		"observe": {loadObserve, nil},
	}
	sized := func(o Options) func(*ebpf.CollectionSpec) (string, error) {
		return func(s *ebpf.CollectionSpec) (string, error) {
			for name, size := range o.sizes() {
				if m := s.Maps[name]; m != nil && size != 0 {
					m.MaxEntries = size
				}
			}
			return fmt.Sprintf("%+v", o), nil
		}
	}
	limited := func(limit, ring uint32) func(*ebpf.CollectionSpec) (string, error) {
		return func(s *ebpf.CollectionSpec) (string, error) {
			s.Maps["observe_ring"].MaxEntries = ring
			return fmt.Sprintf("limit %d, ring %d", limit, ring), s.Variables["observe_limit"].Set(limit)
		}
	}
	mail, observe := objects["mail"], objects["observe"]
	for _, o := range []Options{{}, {MaxHosts: 1, MaxNets: 1, MaxLocks: 1, MaxUsers: 1}, {MaxHosts: 1 << 21, MaxNets: 1 << 21, MaxLocks: 1 << 21, MaxUsers: 1 << 21}} {
		mail.options = append(mail.options, sized(o))
	}
	for _, limit := range []uint32{0, 1, 2048, 8192, 1<<32 - 1} {
		for _, ring := range []uint32{4096, 1 << 22} {
			observe.options = append(observe.options, limited(limit, ring))
		}
	}
	objects["mail"], objects["observe"] = mail, observe
	for name, object := range objects {
		for _, change := range object.options {
			spec, err := object.load()
			if err != nil {
				t.Fatal(err)
			}
			how, err := change(spec)
			if err != nil {
				t.Fatal(err)
			}
			verifyEach(t, name+", "+how, spec)
		}
	}
}

// verifyEach loads every program of an object upon maps of its own, with the verifier's account of it.
func verifyEach(t *testing.T, how string, spec *ebpf.CollectionSpec) {
	t.Helper()
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{LogLevel: ebpf.LogLevelStats}})
	if err != nil {
		if v, ok := errors.AsType[*ebpf.VerifierError](err); ok {
			t.Fatalf("%s: %+v", how, v)
		}
		t.Fatalf("%s: %v", how, err)
	}
	defer c.Close()
	for name, p := range c.Programs {
		info, err := p.Info()
		if err != nil {
			t.Fatal(err)
		}
		translated, err := info.Instructions()
		if err != nil {
			t.Fatal(err)
		}
		// Each function that is verified for itself has its own account.
		steps := 0
		for _, m := range verifierSteps.FindAllStringSubmatch(p.VerifierLog, -1) {
			n, err := strconv.Atoi(m[1])
			if err != nil {
				t.Fatal(err)
			}
			steps = max(steps, n)
		}
		if steps == 0 || steps > mostSteps || len(translated) > mostInstructions {
			t.Errorf("%s: %s took the verifier %d steps, %d at most; it has %d instructions, %d at most", how, name, steps, mostSteps, len(translated), mostInstructions)
		}
		t.Logf("%s: %s: %d instructions, %d steps", how, name, len(translated), steps)
	}
}
