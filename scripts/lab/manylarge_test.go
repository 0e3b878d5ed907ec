//go:build labtest

package lab

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestManyLargeMessages: large messages at once, from customers of both families and by DATA and in chunks, go through sluiced in
// memory that has nothing to do with their size, and arrive as they were sent; its files go with them. SLUICE_LARGE=sessions x MiB
// is the campaign.
func TestManyLargeMessages(t *testing.T) {
	t.Parallel()
	sessions, mib := 8, 24
	if s := os.Getenv("SLUICE_LARGE"); s != "" {
		if _, err := fmt.Sscanf(s, "%dx%d", &sessions, &mib); err != nil {
			t.Fatalf("SLUICE_LARGE is %q, want for instance 100x50", s)
		}
	}
	ctx := testContext(t)
	l := ForTest(t, Options{})
	g := startGatewayWith(t, l, strings.Replace(unjudged, "[limits]", "[limits]\nmessage_size = \"64MiB\"", 1))
	mx := hashingMX(t, l, "peer10")
	before := resident(t, g)
	watching, stop := context.WithCancel(ctx)
	var peak int64
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for sleep(watching, 20*time.Millisecond) == nil {
			peak = max(peak, resident(t, g))
		}
	}()
	began := time.Now()
	var wg sync.WaitGroup
	errs := make([]error, sessions)
	want := make([][sha256.Size]byte, sessions)
	for i := range sessions {
		wg.Go(func() {
			to := [...]string{"198.51.100.110:25", "[2001:db8:100::110]:25"}[i/4%2]
			want[i], errs[i] = sendLarge(ctx, l, DefaultCustomers()[i%4].Name, to, i, mib<<20, i%3 == 2)
		})
	}
	wg.Wait()
	stop()
	<-watched
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d messages of %d MiB at once in %v; sluiced's memory: %d MiB before, at most %d MiB", sessions, mib, time.Since(began).Round(time.Millisecond), before>>20, peak>>20)
	// Of each body smtp.body_memory, and as much again for the checks; buffers; what waits to be collected.
	if bound := before + int64(sessions)*4<<20 + 64<<20; peak > bound {
		t.Errorf("sluiced had %d MiB of memory, at most %d", peak>>20, bound>>20)
	}
	for i, sum := range want {
		if mx.count(sum) != 1 {
			t.Errorf("message %d arrived %d times as it was sent", i, mx.count(sum))
		}
	}
	if files, err := os.ReadDir(g.Dir + "/state/spill"); err != nil || len(files) > 0 {
		t.Errorf("%d files are left: %v", len(files), err)
	}
}

// sendLarge sends a message of about size bytes, which none other resembles, and returns its hash.
func sendLarge(ctx context.Context, l *Lab, host, to string, nth, size int, chunks bool) (sum [sha256.Size]byte, err error) {
	x, err := l.Hello(ctx, host, "", to)
	if err != nil {
		return sum, err
	}
	defer x.Close()
	x.Timeout(10 * time.Minute)
	steps := []string{"MAIL FROM:<a@" + host + ".example>", "RCPT TO:<u@peer10.example>", "DATA"}
	if chunks {
		steps = steps[:2]
	}
	for _, cmd := range steps {
		if r, err := x.Cmd(cmd); err != nil || r.Code >= 400 {
			return sum, fmt.Errorf("%s: %v, %v", cmd, r, err)
		}
	}
	head := fmt.Appendf(nil, "From: <a@%s.example>\r\nTo: <u@peer10.example>\r\nSubject: drawing %d\r\nMessage-ID: <large%[2]d@%[1]s.example>\r\nMIME-Version: 1.0\r\n"+
		"Content-Type: application/octet-stream; name=drawing%[2]d.bin\r\nContent-Transfer-Encoding: base64\r\n\r\n", host, nth)
	block := bytes.Repeat([]byte(strings.Repeat(fmt.Sprintf("%04d", nth), 18)+"\r\n"), 1<<20/74)
	h := sha256.New()
	out := io.MultiWriter(x, h)
	put := func(b []byte) error {
		if chunks {
			if _, err := fmt.Fprintf(x, "BDAT %d\r\n", len(b)); err != nil {
				return err
			}
		}
		if _, err := out.Write(b); err != nil || !chunks {
			return err
		}
		if r, err := x.Reply(); err != nil || r.Code != 250 {
			return fmt.Errorf("a chunk: %v, %v", r, err)
		}
		return nil
	}
	for sent, b := 0, head; sent < size; sent, b = sent+len(b), block {
		if err := put(b); err != nil {
			return sum, fmt.Errorf("message %d after %d bytes: %w", nth, sent, err)
		}
	}
	end := "."
	if chunks {
		end = "BDAT 0 LAST"
	}
	if r, err := x.Cmd(end); err != nil || r.Code != 250 {
		return sum, fmt.Errorf("the end of message %d: %v, %v", nth, r, err)
	}
	return [sha256.Size]byte(h.Sum(nil)), x.Quit()
}

// hashing is a server that keeps of each message the hash of what stands below the gateway's trace field.
type hashing struct {
	mu  sync.Mutex
	got map[[sha256.Size]byte]int
}

func (m *hashing) count(sum [sha256.Size]byte) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.got[sum]
}

// hashingMX puts it into the place of a scripted MX.
func hashingMX(t *testing.T, l *Lab, name string) *hashing {
	t.Helper()
	s := l.Sink(name)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	m := &hashing{got: map[[sha256.Size]byte]int{}}
	for _, a := range s.mx.Addrs() {
		serveEach(t, l, HostInternet, "["+a.String()+"]:25", func(c net.Conn) { _ = m.serve(c) }) // whoever misses a message says so
	}
	return m
}

func (m *hashing) serve(c net.Conn) error {
	in := bufio.NewReaderSize(c, 64<<10)
	for answer := "220 mx"; ; {
		if _, err := io.WriteString(c, answer+"\r\n"); err != nil {
			return err
		}
		line, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		switch verb, _, _ := strings.Cut(strings.TrimSpace(line), " "); verb {
		case "EHLO":
			answer = "250-mx\r\n250-8BITMIME\r\n250 SIZE 100000000"
		case "DATA":
			if _, err := io.WriteString(c, "354 go\r\n"); err != nil {
				return err
			}
			if err := m.take(in); err != nil {
				return err
			}
			answer = "250 2.0.0 taken"
		default:
			answer = "250 2.0.0 ok"
		}
	}
}

// take reads one message, of which no line begins with a dot.
func (m *hashing) take(in *bufio.Reader) error {
	h := sha256.New()
	for n := 0; ; n++ {
		line, err := in.ReadSlice('\n')
		switch {
		case err != nil:
			return err
		case string(line) == ".\r\n":
			m.mu.Lock()
			m.got[[sha256.Size]byte(h.Sum(nil))]++
			m.mu.Unlock()
			return nil
		case n >= 3: // those of the trace field
			_, _ = h.Write(line) // never fails (package hash)
		}
	}
}
