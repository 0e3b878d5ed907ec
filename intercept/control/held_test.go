package control

import (
	"context"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestListsWithoutEnd: a proxy that went mad sends parts of lists, of locks with as many prefixes as one may have.
func TestListsWithoutEnd(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{Handler: &fakeHelper{}, Allow: anyone}
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	c, err := net.Dial("unixpacket", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	lock := Lock{User: 1}
	for i := range MaxLockPrefixes {
		lock.Prefixes = append(lock.Prefixes, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32))
	}
	sent := 0
	for ; sent < 2*MaxEntries && err == nil; sent += 3 * MaxLockPrefixes {
		err = send(c.(*net.UnixConn), &Request{V: Version, ID: 1, Op: OpLocks, More: true, Locks: []Lock{lock, lock, lock}}, nil)
	}
	if err == nil {
		t.Errorf("the helper took %d prefixes", sent)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := s.held.Load(); n != 0 {
		t.Errorf("%d entries are held after all peers left", n)
	}
}

// TestAnswerThatDoesNotFit costs the question, not the connection.
func TestAnswerThatDoesNotFit(t *testing.T) {
	t.Parallel()
	h := &largeHelper{}
	c, err := Reach(context.Background(), serve(t, h, anyone))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 2 {
		if _, err := c.Status(context.Background()); err == nil || !strings.Contains(err.Error(), "bytes are more than") {
			t.Errorf("a status that does not fit: %v", err)
		}
	}
}

type largeHelper struct{}

func (*largeHelper) Handle(context.Context, Peer, *Request) (*Reply, error) {
	return &Reply{Status: &Status{Problems: []string{strings.Repeat("x", MaxPacket)}}}, nil
}
