package attach

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
)

// ManyLinks is a buffer for the kernel's messages about a few thousand interfaces that come at once. To have one that is
// larger than the host's limit needs CAP_NET_ADMIN.
const ManyLinks = 8 << 20

// Changes is what may be other than it was.
type Changes struct {
	Links     []int // interfaces that came, went or changed, by index
	Addresses bool  // of this host
}

// Watcher gathers what the kernel tells about the interfaces and addresses of a namespace.
type Watcher struct {
	// C is ready when there is something to take. It is closed when the context ends or the kernel dropped messages: then
	// look at everything and watch again.
	C <-chan struct{}

	mu        sync.Mutex
	links     map[int]bool
	addresses bool
}

// Take returns the changes since it was called last.
func (w *Watcher) Take() Changes {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := Changes{Links: slices.Sorted(maps.Keys(w.links)), Addresses: w.addresses}
	clear(w.links)
	w.addresses = false
	return c
}

// Watch begins to watch the current namespace. The buffer for the kernel's messages is in bytes; 0 is the host's default.
func Watch(ctx context.Context, buffer int) (*Watcher, error) {
	ctx, cancel := context.WithCancel(ctx)
	links, addrs := make(chan netlink.LinkUpdate, 64), make(chan netlink.AddrUpdate, 64)
	if err := subscribe(links, addrs, buffer, ctx.Done()); err != nil {
		cancel()
		return nil, err
	}
	changed := make(chan struct{}, 1)
	w := &Watcher{C: changed, links: make(map[int]bool)}
	go func() {
		defer close(changed)
		w.gather(changed, links, addrs)
		cancel()
		for range links { // let the readers end
		}
		for range addrs {
		}
	}()
	return w, nil
}

// subscribe asks for both kinds of messages.
func subscribe(links chan<- netlink.LinkUpdate, addrs chan<- netlink.AddrUpdate, buffer int, done <-chan struct{}) error {
	ignore := func(error) {} // what matters of an error is that the channel is closed
	err := netlink.LinkSubscribeWithOptions(links, done, netlink.LinkSubscribeOptions{
		ErrorCallback: ignore, ReceiveBufferSize: buffer, ReceiveBufferForceSize: buffer != 0,
	})
	if err != nil {
		return fmt.Errorf("could not watch the interfaces: %w", err)
	}
	err = netlink.AddrSubscribeWithOptions(addrs, done, netlink.AddrSubscribeOptions{
		ErrorCallback: ignore, ReceiveBufferSize: buffer, ReceiveBufferForceSize: buffer != 0,
	})
	if err != nil {
		return fmt.Errorf("could not watch the addresses: %w", err)
	}
	return nil
}

// gather ends when one of the channels does.
func (w *Watcher) gather(changed chan<- struct{}, links <-chan netlink.LinkUpdate, addrs <-chan netlink.AddrUpdate) {
	for {
		var link netlink.LinkUpdate
		open, isLink := false, false
		select {
		case link, open = <-links:
			isLink = true
		case _, open = <-addrs:
		}
		if !open {
			return
		}
		w.mu.Lock()
		if isLink {
			w.links[int(link.Index)] = true
		} else {
			w.addresses = true
		}
		w.mu.Unlock()
		select {
		case changed <- struct{}{}:
		default: // one is waiting already
		}
	}
}
