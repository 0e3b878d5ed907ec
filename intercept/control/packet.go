package control

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// decode reads exactly one JSON object. Keys that are not known here are ignored: a newer peer wrote them.
func decode(b []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("%w: %w", errMessage, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("%w: bytes after the object", errMessage)
	}
	return nil
}

// send writes one packet with its descriptors.
func send(c *net.UnixConn, v any, files []*os.File) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("could not write a control message: %w", err)
	}
	if len(b) > MaxPacket {
		return fmt.Errorf("%w: %d bytes are more than %d", errSize, len(b), MaxPacket)
	}
	if len(files) > MaxFiles {
		return fmt.Errorf("could not send a control message: %d files are more than %d", len(files), MaxFiles)
	}
	var oob []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(rawFd(f))
		}
		oob = unix.UnixRights(fds...)
	}
	_, _, err = c.WriteMsgUnix(b, oob, nil)
	for _, f := range files {
		runtime.KeepAlive(f)
	}
	return err
}

// rawFd returns the descriptor without switching the file to blocking mode, as File.Fd would for one that the poller
// holds.
func rawFd(f *os.File) (fd uintptr) {
	rc, err := f.SyscallConn()
	if err != nil {
		return ^uintptr(0)
	}
	if err := rc.Control(func(d uintptr) { fd = d }); err != nil {
		return ^uintptr(0)
	}
	return fd
}

// receive reads one packet into buf (MaxPacket+1 bytes) and returns its bytes and the files beside it, close-on-exec.
func receive(c *net.UnixConn, buf, oob []byte) ([]byte, []*os.File, error) {
	n, oobn, flags, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil {
		return nil, nil, err
	}
	files, err := parseFiles(oob[:oobn])
	if err != nil {
		return nil, nil, err
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 || n > MaxPacket {
		closeAll(files)
		return nil, nil, fmt.Errorf("%w: more than %d bytes or %d files", errMessage, MaxPacket, MaxFiles)
	}
	return buf[:n], files, nil
}

func parseFiles(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errMessage, err)
	}
	var files []*os.File
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			continue // credentials or another kind that carries no descriptor
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "control"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close() // the descriptor is gone either way
	}
}
