// Package trial finds out which data path this host can have by sending one connection through each, in network
// namespaces of its own that vanish with the trial.
package trial

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vishvananda/netlink"

	"sluice/intercept/attach"
	"sluice/intercept/ruleset"
)

const (
	customer = "trial0"              // the gateway's end of the wire
	patience = 3 * time.Second       // on a busy host
	again    = 50 * time.Millisecond // a fresh interface may lose packets until the kernel has noticed that it is up
	target   = "198.51.100.25"
	client   = "192.0.2.10"
	gateway  = "192.0.2.1"
)

// ErrNoNamespace means that nothing could be tried, for want of the right to make a network namespace.
var ErrNoNamespace = errors.New("no right to make a network namespace (CAP_SYS_ADMIN)")

// Gateway is the small gateway of a trial. Everything about it must be done by the goroutine that was given it.
type Gateway struct {
	Kernel   *attach.Kernel
	Link     ruleset.Link // towards the customer
	Listener *net.TCPListener
	mark     uint32                   // that the policy route knows
	open     func() (*os.File, error) // the listening socket
}

// Port is that of the listening socket.
func (g *Gateway) Port() uint16 { return uint16(g.Listener.Addr().(*net.TCPAddr).Port) }

// Run makes a customer and a gateway, has divert put a data path in force there, and sends one connection of the customer
// to port 25 of somebody else. It is nil if the gateway's listener got it with its destination and source as they were.
func Run(plan ruleset.Plan, listen func() (*os.File, error), divert func(*Gateway) (undo func(), err error)) error {
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread, which is in another namespace, ends with this goroutine
		failed <- run(plan, listen, divert)
	}()
	return <-failed
}

func run(plan ruleset.Plan, listen func() (*os.File, error), divert func(*Gateway) (func(), error)) error {
	outside, err := makeCustomer()
	if err != nil {
		return err
	}
	defer outside.Close()
	g, err := makeGateway(plan, listen, outside)
	if err != nil {
		return err
	}
	defer g.Kernel.Close()
	defer g.Listener.Close()
	undo, err := divert(g)
	if err != nil {
		return err
	}
	defer undo()
	return g.connect(outside)
}

// makeCustomer leaves the thread in a namespace with one end of the wire, and gives the namespace.
func makeCustomer() (*os.File, error) {
	ns, err := namespace()
	if err != nil {
		return nil, err
	}
	wire := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0", HardwareAddr: clientMAC}, PeerName: customer, PeerHardwareAddr: gatewayMAC}
	if err := netlink.LinkAdd(wire); err != nil {
		return nil, errors.Join(fmt.Errorf("could not make a pair of interfaces: %w", err), ns.Close())
	}
	if err := setUp("eth0", client, gateway, gatewayMAC); err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	return ns, nil
}

// namespace moves the thread to a new network namespace.
func namespace() (*os.File, error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoNamespace, err)
	}
	return os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
}

// The Ethernet addresses of the wire, locally administered. Both ends know them, since a question would take its time.
var (
	clientMAC  = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	gatewayMAC = net.HardwareAddr{2, 0, 0, 0, 0, 2}
)

// setUp gives an interface its address, its neighbour, and, at the customer's end, the way to everybody by that.
func setUp(name, address, neighbour string, mac net.HardwareAddr) error {
	l, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(l)
	}
	if err == nil {
		err = netlink.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(address), Mask: net.CIDRMask(24, 32)}})
	}
	if err == nil {
		err = netlink.NeighSet(&netlink.Neigh{LinkIndex: l.Attrs().Index, IP: net.ParseIP(neighbour), HardwareAddr: mac, State: netlink.NUD_PERMANENT})
	}
	if err == nil && neighbour == gateway {
		err = netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: net.ParseIP(gateway)})
	}
	if err != nil {
		return fmt.Errorf("could not set up the interface %s: %w", name, err)
	}
	return nil
}

// makeGateway leaves the thread in another namespace with the other end of the wire.
func makeGateway(plan ruleset.Plan, listen func() (*os.File, error), outside *os.File) (_ *Gateway, err error) {
	peer, err := netlink.LinkByName(customer)
	if err != nil {
		return nil, err
	}
	inside, err := namespace()
	if err != nil {
		return nil, err
	}
	defer inside.Close()
	if err := unix.Setns(int(outside.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	err = netlink.LinkSetNsFd(peer, int(inside.Fd()))
	if err = errors.Join(err, unix.Setns(int(inside.Fd()), unix.CLONE_NEWNET)); err != nil {
		return nil, fmt.Errorf("could not move an interface: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err = errors.Join(err, setUp(customer, gateway, client, clientMAC)); err != nil {
		return nil, err
	}
	g := &Gateway{mark: markOf(plan), open: listen}
	if g.Kernel, err = attach.Open(); err != nil {
		return nil, err
	}
	if _, _, err = g.Kernel.ApplyRouting(plan, false); err == nil {
		err = g.find()
	}
	if err == nil {
		err = g.listen(listen)
	}
	if err != nil {
		g.Kernel.Close()
		return nil, err
	}
	return g, nil
}

// find looks at the customer's interface as any other is looked at.
func (g *Gateway) find() error {
	links, err := g.Kernel.Links()
	for _, l := range links {
		if l.Name == customer {
			g.Link = l
		}
	}
	return err
}

func (g *Gateway) listen(listen func() (*os.File, error)) error {
	f, err := listen()
	if err != nil {
		return err
	}
	l, err := net.FileListener(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	g.Listener = l.(*net.TCPListener)
	return nil
}

// connect connects as the customer, again and again, and looks at what the listener gets first.
func (g *Gateway) connect(outside *os.File) error {
	for end := time.Now().Add(patience); time.Now().Before(end); {
		fd, err := dial(outside)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := g.Listener.SetDeadline(time.Now().Add(again)); err != nil {
			return err
		}
		c, err := g.Listener.Accept()
		if err == nil {
			defer c.Close()
			return check(c)
		}
	}
	return errors.New("a connection did not reach the listener")
}

func check(c net.Conn) error {
	if got := c.LocalAddr().String(); got != target+":25" {
		return fmt.Errorf("a connection to %s:25 reached the listener as one to %s", target, got)
	}
	if host, _, err := net.SplitHostPort(c.RemoteAddr().String()); err != nil || host != client {
		return fmt.Errorf("a connection from %s reached the listener as one from %s", client, host)
	}
	return nil
}

// dial begins to connect in another namespace; a socket stays in that of its making.
func dial(ns *os.File) (int, error) {
	here, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
	if err != nil {
		return -1, err
	}
	defer here.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return -1, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrInet4{Port: 25, Addr: [4]byte(net.ParseIP(target).To4())})
		if errors.Is(err, unix.EINPROGRESS) {
			err = nil
		}
	}
	if err = errors.Join(err, unix.Setns(int(here.Fd()), unix.CLONE_NEWNET)); err != nil {
		return -1, fmt.Errorf("could not connect for a trial: %w", err)
	}
	return fd, nil
}

// markOf is the mark that a plan's rules look up in a table.
func markOf(p ruleset.Plan) uint32 {
	for _, r := range p.Rules {
		if r.Action == ruleset.Lookup {
			return r.Mark
		}
	}
	return 0
}
