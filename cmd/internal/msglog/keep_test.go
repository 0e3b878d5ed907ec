package msglog

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestRecordsOfAKilledProcessAreFound(t *testing.T) {
	t.Parallel()
	if dir := os.Getenv("MSGLOG_CHILD"); dir != "" {
		child(t, dir)
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "MSGLOG_CHILD="+dir)
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("the child ended with %v, want killed: %s", err, out)
	}
	l := openAt(t, dir, Options{})
	defer l.Close()
	other := openAt(t, dir, Options{}) // has nothing to take over: the first process lives
	defer other.Close()
	all := find(t, other, Query{Limit: 1000})
	if len(all) != 100 {
		t.Fatalf("%d records, want the 100 that were put", len(all))
	}
	if got := find(t, l, Query{Recipient: "rcpt77@example.net"}); ids(got) != rec(77).ID {
		t.Errorf("found %q by recipient", ids(got))
	}
}

// child puts records, the last of them so that only memory has them, and is killed.
func child(t *testing.T, dir string) {
	l := openAt(t, dir, Options{FlushEvery: time.Hour})
	for n := range 100 {
		l.Put(rec(n))
		if n == 40 {
			if err := l.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {}
}

func TestKeptRecordsThatASegmentHasComeOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openAt(t, dir, Options{})
	l.Put(rec(1))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var e1, e2 encoder
	e1.encode(rec(1))
	e2.encode(rec(2))
	lines := append(e1.row, e2.row...)
	b := append(binary.NativeEndian.AppendUint64(nil, uint64(len(lines))), append(lines, "torn"...)...)
	kept := filepath.Join(dir, "dead"+keepSuffix)
	if err := os.WriteFile(kept, b, 0o600); err != nil {
		t.Fatal(err)
	}
	l = openAt(t, dir, Options{})
	defer l.Close()
	if got := ids(find(t, l, Query{})); got != rec(2).ID+" "+rec(1).ID {
		t.Errorf("found %q", got)
	}
	if _, err := os.Stat(kept); !os.IsNotExist(err) {
		t.Errorf("the file of the dead process is still there: %v", err)
	}
}

func TestClosedLogLeavesNothingToTakeOver(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openAt(t, dir, Options{})
	l.Put(rec(1))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*"+keepSuffix)); err != nil || len(left) != 0 {
		t.Errorf("left are %q %v", left, err)
	}
}

// TestKeeperThatIsFull: more waits than it holds, which is then not kept, and nothing else.
func TestKeeperThatIsFull(t *testing.T) {
	t.Parallel()
	k, err := newKeeper(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer k.close()
	line := make([]byte, 1000)
	for range keepBytes {
		k.put(line)
	}
	if n := *k.length(); n > keepBytes-keepHead || n < keepBytes-2000 {
		t.Errorf("%d bytes are kept", n)
	}
	k.reset()
	k.put(line)
	if n := *k.length(); n != 1000 {
		t.Errorf("%d bytes are kept after all were written", n)
	}
}
