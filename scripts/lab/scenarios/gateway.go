package scenarios

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"sluice/scripts/lab"
)

func capture(c *call) error {
	got, err := c.lab.Capture(c.ctx, c.args[1], c.args[2], strings.Join(c.args[3:], " "))
	if err == nil {
		c.captures[c.args[0]] = got
	}
	return err
}

func captured(c *call) error {
	running, ok := c.captures[c.args[0]]
	if !ok {
		return fmt.Errorf("no capture %s was started", c.args[0])
	}
	packets, err := running.Stop()
	c.packets[c.args[0]] = packets
	return err
}

func expect(c *call) error {
	packets, ok := c.packets[c.args[0]]
	if !ok {
		return fmt.Errorf("capture %s has not ended; say: captured %s", c.args[0], c.args[0])
	}
	want, err := strconv.Atoi(c.args[2])
	if err != nil {
		return err
	}
	var where []lab.Match
	for rest := c.args[3:]; len(rest) > 1; rest = rest[2:] {
		switch rest[0] {
		case "from":
			where = append(where, lab.From(rest[1]))
		case "to":
			where = append(where, lab.To(rest[1]))
		default:
			return fmt.Errorf("%q is neither from nor to", rest[0])
		}
	}
	got := -1
	switch c.args[1] {
	case "syn":
		got = len(packets.SYNs(where...))
	case "attempt":
		got = packets.Attempts(where...)
	case "rst":
		got = len(packets.RSTs(where...))
	}
	if got != want {
		return fmt.Errorf("%d packets, not %d", got, want)
	}
	return nil
}

func gateway(c *call) error {
	var extra []byte
	if len(c.args) == 1 {
		extra = c.file(c.args[0])
	}
	if c.gateway != nil {
		if err := c.gateway.Stop(c.ctx); err != nil {
			return err
		}
	}
	g, err := c.lab.StartGateway(c.ctx, lab.GatewayOptions{Extra: string(extra), Binaries: os.Getenv("SLUICE_BIN")})
	c.world.gateway = g
	return err
}

func sluice(c *call) error {
	if c.gateway == nil {
		return fmt.Errorf("the gateway does not run Sluice; say: gateway")
	}
	return c.ran(c.gateway.Sluice(c.ctx, c.args...))
}

func gatewayDo(c *call) error {
	g := c.gateway
	if g == nil {
		return fmt.Errorf("the gateway does not run Sluice; say: gateway")
	}
	switch c.args[0] {
	case "kill-sluiced":
		return g.Sluiced.Kill()
	case "start-sluiced":
		return g.StartSluiced(c.ctx)
	case "restart-sluiced":
		return g.RestartSluiced(c.ctx)
	case "kill-intercept":
		return g.Intercept.Kill()
	case "start-intercept":
		return g.StartIntercept(c.ctx)
	case "restart-intercept":
		return g.RestartIntercept(c.ctx)
	case "reload":
		return g.Reload()
	case "cleanup":
		return c.ran(g.Cleanup(c.ctx))
	case "stop":
		return g.Stop(c.ctx)
	}
	return fmt.Errorf("no action %q", c.args[0])
}
