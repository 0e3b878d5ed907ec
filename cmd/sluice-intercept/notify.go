package main

import (
	"fmt"
	"log/slog"
	"net"
	"os"

	"sluice/intercept/control"
)

// tell sends a state to systemd (sd_notify(3)); without systemd it does nothing.
func tell(log *slog.Logger, state string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	c, err := net.Dial("unixgram", path) // a leading @ is the abstract namespace here, too
	if err == nil {
		_, err = c.Write([]byte(state))
		_ = c.Close() // a datagram is sent or not
	}
	if err != nil {
		log.Warn("could not tell systemd", "state", state, "error", err)
	}
}

// reloading is what Type=notify-reload wants before a reload.
func reloading() string {
	return fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", control.Monotonic()/1000)
}
