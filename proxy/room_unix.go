//go:build linux || darwin

package proxy

import (
	"os"

	"golang.org/x/sys/unix"
)

// hasRoom tells whether the file system of dir, "" being that of temporary files, is not nearly full.
func hasRoom(dir string) bool {
	if dir == "" {
		dir = os.TempDir()
	}
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return true // writing will tell
	}
	block := uint64(st.Bsize)
	return st.Bavail*block > min(mostKept, st.Blocks*block/20)
}
