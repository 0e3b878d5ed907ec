package attach

import (
	"context"
	"fmt"

	"github.com/vishvananda/netlink"
)

// Watch sends on the returned channel whenever an interface or an address of the current namespace may have changed;
// several changes in a row may be one. The channel is closed when the context ends or the kernel dropped messages: then
// look at everything and watch again.
func Watch(ctx context.Context) (<-chan struct{}, error) {
	ctx, cancel := context.WithCancel(ctx)
	links, addrs := make(chan netlink.LinkUpdate, 64), make(chan netlink.AddrUpdate, 64)
	if err := netlink.LinkSubscribeWithOptions(links, ctx.Done(), netlink.LinkSubscribeOptions{ErrorCallback: func(error) {}}); err != nil {
		cancel()
		return nil, fmt.Errorf("could not watch the interfaces: %w", err)
	}
	if err := netlink.AddrSubscribeWithOptions(addrs, ctx.Done(), netlink.AddrSubscribeOptions{ErrorCallback: func(error) {}}); err != nil {
		cancel()
		return nil, fmt.Errorf("could not watch the addresses: %w", err)
	}
	changed := make(chan struct{}, 1)
	go func() {
		defer close(changed)
		defer cancel()
		for open := true; open; {
			select {
			case _, open = <-links:
			case _, open = <-addrs:
			}
			select {
			case changed <- struct{}{}:
			default: // one is waiting already
			}
		}
		cancel()
		for range links { // let the readers end
		}
		for range addrs {
		}
	}()
	return changed, nil
}
