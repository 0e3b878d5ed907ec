//go:build bpftest

package bpf

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

const nobody = 65534

// TestThreeCapabilitiesSuffice opens and fills everything as nobody with CAP_NET_ADMIN, CAP_PERFMON and CAP_BPF.
func TestThreeCapabilitiesSuffice(t *testing.T) {
	const variable = "SLUICE_TEST_PINS"
	if dir := os.Getenv(variable); dir != "" {
		if os.Getuid() != nobody {
			t.Fatal("the child is not nobody")
		}
		l := open(t, dir, Options{})
		l.reset()
		l.sources(Source{Prefix: prefix("192.0.2.10/32"), Mode: ModeDrop}, Source{Prefix: prefix("2001:db8::/32"), Mode: ModeDrop})
		l.locks(Lock{Prefix: prefix("192.0.2.0/24"), ID: 1, Budget: DefaultLockBudget})
		l.listener()
		if ret, _, _ := l.run(MailIngress, v4.build(), skb{}); ret != shot || l.counts()["drop"] != 1 {
			t.Errorf("answer is %d, counters %v", int32(ret), l.counts())
		}
		l.must(l.Close())
		l.must(Remove(dir))
		return
	}
	dir := bpffs(t)
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	// Temporary folders are the owner's alone, and the child must reach the pins and its own program.
	self := filepath.Join(t.TempDir(), "bpf.test")
	program, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(self, program, 0o755), os.Chmod(filepath.Dir(filepath.Dir(self)), 0o755)); err != nil {
		t.Fatal(err)
	}
	const netAdmin, perfmon, bpf = 12, 38, 39
	c := exec.Command(self, "-test.run=^TestThreeCapabilitiesSuffice$", "-test.v")
	c.Env = append(os.Environ(), variable+"="+dir)
	c.SysProcAttr = &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: nobody, Gid: nobody},
		AmbientCaps: []uintptr{netAdmin, perfmon, bpf},
	}
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
