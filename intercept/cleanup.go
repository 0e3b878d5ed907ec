package intercept

import (
	"errors"
	"net"
	"os"

	"sluice/intercept/attach"
	"sluice/intercept/nft"
	"sluice/intercept/room"
)

// Cleanup removes every trace of ours from the kernel and the stored state from disk, whoever left it and however he
// ended; it needs no memory of what was done. Run it when no helper runs, which would bring everything back.
func Cleanup(pinDir, stateDir string) error {
	k, err := attach.Open()
	if err != nil {
		return err
	}
	defer k.Close()
	// Programs first: an assigned packet without its route would be forwarded.
	return errors.Join(
		removeBPF(k, pinDir),
		room.RemoveDoors(0),
		nft.Remove(),
		k.RemoveRouting(),
		removeStored(stateDir),
	)
}

// Serving tells whether a helper answers at the control socket.
func Serving(path string) bool {
	c, err := net.Dial("unixpacket", path)
	if err != nil {
		return false
	}
	_ = c.Close() // only the answer mattered
	return true
}

// RemoveSocket removes the control socket that a killed helper left.
func RemoveSocket(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
