package bpf

// Door is the way into the namespace of the proxy's sockets.
type Door struct {
	Index int // of the interface that leads there; 0: there is none, and packets are marked for a policy route
	Room  int // the namespace's number
	// Both says that the current namespace has sockets of the proxy, too.
	Both bool
}

// SetDoor says where the proxy's sockets are. The listener in the slot must stand there.
func (d *Datapath) SetDoor(at Door) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.door() == at {
		return nil
	}
	d.config.Door, d.config.Room = uint32(at.Index), uint32(at.Room)
	d.setFlag(mailConfigFlagCONFIG_HOST_SOCKETS, at.Both)
	return d.writeConfig()
}

// Door gives what SetDoor said last, also to an earlier process.
func (d *Datapath) Door() Door {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.door()
}

func (d *Datapath) door() Door {
	return Door{Index: int(d.config.Door), Room: int(d.config.Room), Both: d.config.Flags&mailConfigFlagCONFIG_HOST_SOCKETS != 0}
}
