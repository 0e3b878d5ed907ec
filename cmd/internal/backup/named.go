package backup

import (
	"io/fs"
	"os/user"
	"strconv"
	"syscall"
)

// Named is a file of the configuration.
type Named struct {
	Path  string      `json:"path"`
	Mode  fs.FileMode `json:"mode"`
	Owner string      `json:"owner"`
	Group string      `json:"group"`
}

// NamedAs says whose the file at path is, by name where the host has one.
func NamedAs(path string, st fs.FileInfo) Named {
	n := Named{Path: path, Mode: st.Mode().Perm()}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		n.Owner, n.Group = strconv.Itoa(int(sys.Uid)), strconv.Itoa(int(sys.Gid))
		if u, err := user.LookupId(n.Owner); err == nil {
			n.Owner = u.Username
		}
		if g, err := user.LookupGroupId(n.Group); err == nil {
			n.Group = g.Name
		}
	}
	return n
}

// Owners are those of the file on this host; root where the host does not know the name.
func (n *Named) Owners() (uid, gid int) {
	if u, err := user.Lookup(n.Owner); err == nil {
		uid, _ = strconv.Atoi(u.Uid) // a number, on this system
	}
	if g, err := user.LookupGroup(n.Group); err == nil {
		gid, _ = strconv.Atoi(g.Gid)
	}
	return uid, gid
}
