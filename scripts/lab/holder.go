package lab

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// holderScript runs as process 1 of the lab's own process namespace. When its
// standard input ends (the lab was closed, or its owner died) it leaves, and
// the kernel kills whatever still runs in the namespace and drops the mounts
// and network namespaces with the last process.
const holderScript = `
set -eu
dir=$1
shift
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/netns
for name in "$@"; do
	ip netns add "$name"
done
echo ready
cat >/dev/null || true
# Whoever read our complaints may be gone.
exec >/dev/null 2>&1
kill -9 -1 || true
grep -o " $dir/[^ ]*" /proc/self/mounts | sort -r | xargs -r umount -l || true
if [ ! -e "$dir/.keep" ]; then
	rm -rf --one-file-system "$dir"
fi
`

// holder is the process that keeps the lab's namespaces.
type holder struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	mnt   *os.File
	pid   *os.File
}

func startHolder(ctx context.Context, dir string, names []string) (*holder, error) {
	args := append([]string{"-c", holderScript, "lab-holder", dir}, names...)
	cmd := exec.Command("/bin/sh", args...)
	cmd.Env = environment("root")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		Setsid:     true, // a Ctrl-C at the terminal is not for it
	}
	var complaints strings.Builder
	cmd.Stderr = &complaints
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the namespaces' holder: %w", err)
	}
	h := &holder{cmd: cmd, stdin: stdin}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "ready\n" {
		_ = h.close()
		return nil, fmt.Errorf("make namespaces: %v %s", err, strings.TrimSpace(complaints.String()))
	}
	if err := h.open(); err != nil {
		_ = h.close()
		return nil, err
	}
	return h, nil
}

// open gets hold of the namespaces that the process has.
func (h *holder) open() (err error) {
	if h.mnt, err = os.Open(fmt.Sprintf("/proc/%d/ns/mnt", h.cmd.Process.Pid)); err != nil {
		return err
	}
	h.pid, err = os.Open(fmt.Sprintf("/proc/%d/ns/pid", h.cmd.Process.Pid))
	return err
}

// netns opens one of the holder's named network namespaces.
func (h *holder) netns(name string) (*os.File, error) {
	return os.Open(fmt.Sprintf("/proc/%d/root/run/netns/%s", h.cmd.Process.Pid, name))
}

// close ends the holder and with it all processes of the lab.
func (h *holder) close() error {
	err := h.stdin.Close()
	// "Killed" or a failed umount of the way out are no errors of the lab.
	_ = h.cmd.Wait()
	for _, f := range []*os.File{h.mnt, h.pid} {
		if f != nil {
			_ = f.Close()
		}
	}
	return err
}
