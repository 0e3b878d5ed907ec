package lab

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Accounts inside the mail servers' roots. The groups postdrop, opensmtpq and
// smmsp are also in mtaroots, which gives them the set-group-ID programs.
const (
	uidPostfix = 20101
	gidDrop    = 20102
	uidExim    = 20103
	uidArchive = 20110 // receives the mail of every unknown local user
)

const passwd = `root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
mail:x:8:8:mail:/var/mail:/usr/sbin/nologin
uucp:x:10:10:uucp:/var/spool/uucp:/usr/sbin/nologin
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
postfix:x:20101:20101::/var/spool/postfix:/usr/sbin/nologin
Debian-exim:x:20103:20103::/var/spool/exim4:/usr/sbin/nologin
opensmtpd:x:20104:20104::/var/lib/opensmtpd/empty:/usr/sbin/nologin
opensmtpq:x:20105:20105::/var/lib/opensmtpd/empty:/usr/sbin/nologin
smmta:x:20106:20106::/var/lib/sendmail:/usr/sbin/nologin
smmsp:x:20107:20107::/var/lib/sendmail:/usr/sbin/nologin
archive:x:20110:20110::/home/archive:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
`

const group = `root:x:0:
daemon:x:1:
adm:x:4:
tty:x:5:
mail:x:8:
uucp:x:10:
www-data:x:33:
postfix:x:20101:
postdrop:x:20102:
Debian-exim:x:20103:
opensmtpd:x:20104:
opensmtpq:x:20105:
smmta:x:20106:
smmsp:x:20107:
archive:x:20110:
nogroup:x:65534:
`

//go:embed mtaroots
var mtaroots string

// unpacked makes sure that the cache has the packages and names the folder.
func unpacked(ctx context.Context, cache, name string) (string, error) {
	dir := filepath.Join(cache, name)
	if _, err := os.Stat(filepath.Join(dir, ".complete")); err == nil && current(dir, name) {
		return dir, nil
	}
	modules, err := os.MkdirTemp("", "sluice-modules-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(modules) }() // a small folder in /tmp
	if err := os.CopyFS(modules, npmFiles); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "bash", "-c", mtaroots, "mtaroots", cache, name)
	cmd.Env = append(os.Environ(), "SLUICE_LAB_MODULES="+filepath.Join(modules, "peers"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("unpack %s: %w: %s; scripts/lab/mtaroots does it by hand", name, err, tail(out))
	}
	return dir, nil
}

// npmFiles name the modules of npm and their exact versions.
//
//go:embed peers/package.json peers/package-lock.json
var npmFiles embed.FS

// current tells whether an unpacked folder has the modules that the lock file names now.
func current(dir, name string) bool {
	if name != peersRoot {
		return true
	}
	want, err1 := npmFiles.ReadFile("peers/package-lock.json")
	have, err2 := os.ReadFile(filepath.Join(dir, "usr/share/sluice-lab/package-lock.json"))
	return err1 == nil && err2 == nil && bytes.Equal(want, have)
}

// makeRoot fills the server's root and mounts programs and devices into it.
func (m *MTA) makeRoot(ctx context.Context, pkg string) error {
	script := `set -eu
root=$1 pkg=$2
mkdir -p "$root"/usr "$root"/dev "$root"/proc "$root"/root "$root"/run/lock "$root"/home/archive "$root"/etc
for d in bin sbin lib lib64; do ln -s usr/$d "$root/$d"; done
cp -a "$pkg/etc/." "$root/etc/"
cp -a "$pkg/var" "$root/var"
mkdir -p "$root"/var/log "$root"/var/spool "$root"/var/lib "$root"/var/mail "$root"/var/tmp "$root"/tmp
chmod 1777 "$root"/tmp "$root"/var/tmp
ln -s /run "$root/var/run"
for f in services protocols alternatives ld.so.cache ld.so.conf ld.so.conf.d localtime; do
	if [ -e "/etc/$f" ]; then cp -a "/etc/$f" "$root/etc/"; fi
done
mkdir -p "$root"/etc/ssl/certs "$root"/etc/ssl/private
`
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", script, "sh", m.root, pkg)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make its root: %w: %s", err, tail(out))
	}
	if err := m.writeEtc(); err != nil {
		return err
	}
	if err := os.Chown(filepath.Join(m.root, "home/archive"), uidArchive, uidArchive); err != nil {
		return err
	}
	return m.lab.inMounts(func() error { return m.mounts(pkg) })
}

func (m *MTA) writeEtc() error {
	cert, key, err := m.lab.certs.pem(m.fqdn)
	if err != nil {
		return err
	}
	for name, text := range map[string]string{
		"passwd":        passwd,
		"group":         group,
		"nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
		"hosts":         "127.0.0.1 localhost\n::1 localhost\n",
		"hostname":      m.fqdn + "\n",
		"mailname":      m.domain + "\n",
		"resolv.conf":   fmt.Sprintf("nameserver %s\noptions timeout:2 attempts:2\n", ResolverV4),
		"aliases":       "postmaster: archive\nroot: archive\n",
		// Where Debian's ssl-cert puts the certificate that stock servers use.
		"ssl/certs/ssl-cert-snakeoil.pem":   string(cert),
		"ssl/private/ssl-cert-snakeoil.key": string(key),
	} {
		if err := os.WriteFile(filepath.Join(m.root, "etc", name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("write its /etc: %w", err)
		}
	}
	return nil
}

// mounts runs inside the lab's mount namespace.
func (m *MTA) mounts(pkg string) error {
	lower := "lowerdir=" + filepath.Join(pkg, "usr") + ":/usr"
	if err := unix.Mount("overlay", filepath.Join(m.root, "usr"), "overlay", unix.MS_RDONLY, lower); err != nil {
		return fmt.Errorf("mount its /usr (%s): %w", lower, err)
	}
	if err := unix.Mount("proc", filepath.Join(m.root, "proc"), "proc", 0, ""); err != nil {
		return fmt.Errorf("mount its /proc: %w", err)
	}
	dev := filepath.Join(m.root, "dev")
	if err := unix.Mount("tmpfs", dev, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount its /dev: %w", err)
	}
	// No /dev/log: what it logs must not reach the machine's own log.
	for name, minor := range map[string]uint32{"null": 3, "zero": 5, "random": 8, "urandom": 9} {
		path := filepath.Join(dev, name)
		if err := unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(1, minor))); err != nil {
			return fmt.Errorf("make its /dev/%s: %w", name, err)
		}
		if err := unix.Chmod(path, 0o666); err != nil {
			return err
		}
	}
	return os.Symlink("/proc/self/fd", filepath.Join(dev, "fd"))
}
