//go:build !linux && !darwin

package proxy

// hasRoom is not known here: writing tells.
func hasRoom(string) bool { return true }
