//go:build nettest

package nft

import (
	"fmt"
	"io"
	"net"
	"os/exec"
	"regexp"
	"strconv"
	"testing"
	"time"
)

// watchedHere has what this namespace sends through the rules that watch, and counts what goes to the queue, which nobody
// reads.
const watchedHere = `table inet sluice {
	chain here {
		type filter hook output priority 0; policy accept;
		jump observe
	}
}
insert rule inet sluice observe_queue counter
`

// A side's first words of each turn are read, however many turns there are and however quickly they follow each other;
// what comes behind its budget is not.
func TestWatchManyTurns(t *testing.T) {
	t.Parallel()
	alone(t, func(f *Filter) {
		const turns, packets, bytes, body = 1000, 20, 16 << 10, 30 << 20
		inForce(t, f)
		if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
			t.Error(err, string(out))
			return
		}
		tool, err := findTool()
		if err == nil {
			err = Watch(25, packets, bytes)
		}
		if err == nil {
			err = tool.run(watchedHere)
		}
		if err == nil {
			err = Watching(time.Minute)
		}
		if err != nil {
			t.Error(err)
			return
		}
		for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
			c, s, err := pair(address)
			if err != nil {
				t.Error(err)
				return
			}
			before := queued(t)
			b := make([]byte, 8)
			for range turns {
				for _, from := range []net.Conn{c, s} {
					to := c
					if from == c {
						to = s
					}
					if _, err := from.Write([]byte("NOOP xx\n")); err != nil {
						t.Error(err)
						return
					}
					if _, err := io.ReadFull(to, b); err != nil {
						t.Error(err)
						return
					}
				}
			}
			if n := queued(t) - before; n < 2*turns {
				t.Errorf("%s: %d packets of %d turns were to be read: words are missing", address, n, turns)
			}
			before = queued(t)
			done := make(chan error, 1)
			go func() {
				_, err := io.CopyN(io.Discard, s, body)
				done <- err
			}()
			if _, err := c.Write(make([]byte, body)); err != nil {
				t.Error(err)
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
			// A packet on this way has 64 KiB at most; the quota is spent by the first that is behind the number.
			if n := queued(t) - before; n < packets || n > packets+2 {
				t.Errorf("%s: %d packets of a body of %d MB were to be read, want %d", address, n, body>>20, packets)
			}
			c.Close()
			s.Close()
		}
		if out, err := exec.Command("nft", "list", "ruleset").CombinedOutput(); err != nil {
			t.Errorf("an operator cannot list the rules: %v: %s", err, out)
		}
	})
}

// pair connects two sockets of this namespace.
func pair(address string) (c, s net.Conn, err error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	if c, err = net.Dial("tcp", l.Addr().String()); err != nil {
		return nil, nil, err
	}
	s, err = l.Accept()
	return c, s, err
}

var counted = regexp.MustCompile(`counter packets (\d+)`)

// queued tells how many packets came to the queue.
func queued(t *testing.T) int {
	t.Helper()
	out, err := exec.Command("nft", "list", "chain", "inet", "sluice", "observe_queue").CombinedOutput()
	m := counted.FindSubmatch(out)
	if err != nil || m == nil {
		t.Error(fmt.Errorf("%w: %s", err, out))
		return 0
	}
	n, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Error(err)
	}
	return n
}
