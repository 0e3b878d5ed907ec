//go:build labtest

package lab

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// childEnv makes the test binary a process that opens a lab and never closes it.
const childEnv = "SLUICE_LAB_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		if err := child(); err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
	}
	code := m.Run()
	removeOther()
	os.Exit(code)
}

func child() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	l, err := New(ctx, Options{})
	if err != nil {
		return err
	}
	if _, err := l.Postfix(ctx, "alice"); err != nil {
		return err
	}
	if _, err := l.Start("bob", Command{Args: []string{"sh", "-c", "trap '' TERM HUP INT; sleep 1000"}}); err != nil {
		return err
	}
	fmt.Println(l.dir, l.hold.cmd.Process.Pid)
	<-ctx.Done()
	return ctx.Err()
}

// inhabitants counts the running processes in a process namespace. What has
// ended but was not yet collected by its parent has no program any more.
func inhabitants(t *testing.T, ns string) int {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/ns/pid")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, link := range links {
		if got, err := os.Readlink(link); err != nil || got != ns {
			continue
		}
		if _, err := os.Readlink(filepath.Join(filepath.Dir(link), "../exe")); err == nil {
			n++
		}
	}
	return n
}

func TestNothingIsLeftOfAKilledTest(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	var dir string
	var holder int
	if _, scanned := fmt.Sscan(line, &dir, &holder); err != nil || scanned != nil {
		t.Fatalf("%q %v %v", line, err, scanned)
	}
	ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", holder))
	if err != nil {
		t.Fatal(err)
	}
	if n := inhabitants(t, ns); n < 5 {
		t.Errorf("only %d processes in an open lab", n)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	for {
		_, err := os.Stat(dir)
		if n := inhabitants(t, ns); n == 0 && os.IsNotExist(err) {
			break
		}
		if sleep(ctx, logPoll) != nil {
			t.Fatalf("%d processes are left, and of %s: %v", inhabitants(t, ns), dir, err)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), dir) {
		t.Errorf("a mount is left: %s", mounts)
	}
}

func TestNothingIsLeftAfterClose(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	l, err := New(ctx, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Exim(ctx, "dave"); err != nil {
		t.Fatal(err)
	}
	ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", l.hold.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if n := inhabitants(t, ns); n != 0 {
		t.Errorf("%d processes are left", n)
	}
	if _, err := os.Stat(l.dir); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", l.dir, err)
	}
	if err := l.Close(); err != nil {
		t.Error("closed twice: ", err)
	}
}
