package attach

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// sysBPF is where every distribution expects the BPF file system.
const sysBPF = "/sys/fs/bpf"

// EnsurePinDir makes dir on a BPF file system. Where there is none it mounts one: on /sys/fs/bpf if dir is below it,
// else on dir itself, so that nothing is hidden.
func EnsurePinDir(dir string) error {
	on, err := onBPF(dir)
	if err != nil {
		return err
	}
	if !on {
		target := dir
		if strings.HasPrefix(filepath.Clean(dir), sysBPF+"/") {
			target = sysBPF
		} else if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("could not make the pin folder %s: %w", dir, err)
		}
		if err := unix.Mount("bpf", target, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
			return fmt.Errorf("could not mount a BPF file system on %s: %w; run: mount -t bpf bpf %s (systemd does it at boot, but not in containers)", target, err, target)
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("could not make the pin folder %s: %w", dir, err)
	}
	return nil
}

// RemovePinDir removes dir when it is empty, and the file system that EnsurePinDir mounted on it.
func RemovePinDir(dir string) error {
	err := os.Remove(dir)
	if errors.Is(err, unix.EBUSY) { // a mount point of our own
		if err := unix.Unmount(dir, 0); err != nil {
			return fmt.Errorf("could not unmount the BPF file system on %s: %w", dir, err)
		}
		err = os.Remove(dir)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
		return fmt.Errorf("could not remove the pin folder %s: %w", dir, err)
	}
	return nil
}

// onBPF tells whether the closest folder above or at dir that exists is on a BPF file system.
func onBPF(dir string) (bool, error) {
	for p := filepath.Clean(dir); ; p = filepath.Dir(p) {
		var st unix.Statfs_t
		err := unix.Statfs(p, &st)
		if err == nil {
			return st.Type == unix.BPF_FS_MAGIC, nil
		}
		if !errors.Is(err, unix.ENOENT) || p == "/" {
			return false, fmt.Errorf("could not look at the pin folder %s: %w", p, err)
		}
	}
}
