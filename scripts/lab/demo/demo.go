// Package demo sends real mail through the gateway in the lab's network and shows, fact by fact, what became of it.
package demo

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"sluice/scripts/lab"
)

// Options of a demo.
type Options struct {
	Binaries string        // folder of sluiced, sluice-intercept and sluice
	Out      io.Writer     // where it tells its story
	Messages int           // ham messages each way, default 200
	Quiet    time.Duration // how long the steady customer is watched before the attack, default a minute
}

// demo is one run: the network, the programs in it, and the report.
type demo struct {
	*report
	lab     *lab.Lab
	gateway *lab.Gateway
	mode    map[string]string // of users, as the configuration says it now
	options Options
}

// Run opens the lab, plays the whole story and returns an error when any fact of it did not hold.
func Run(ctx context.Context, o Options) error {
	if o.Messages == 0 {
		o.Messages = 200
	}
	if o.Quiet == 0 {
		o.Quiet = time.Minute
	}
	d := &demo{report: newReport(o.Out), options: o, mode: map[string]string{"alice": "pass", "bob": "intercept", "mallory": "intercept"}}
	for _, act := range []func(context.Context) error{d.open, d.ham, d.attack} {
		if err := act(ctx); err != nil {
			d.close()
			return err
		}
	}
	d.close()
	return d.end()
}

// open brings up the network and the gateway's programs.
func (d *demo) open(ctx context.Context) (err error) {
	d.chapter("The network: customers, gateway and internet in namespaces of this machine")
	if d.lab, err = lab.New(ctx, lab.Options{}); err != nil {
		return err
	}
	d.quote(picture)
	// As deploy/systemd/sluice.sysctl sets it on a gateway.
	if err := d.lab.Sysctl(lab.HostGateway, "ipv4/tcp_max_syn_backlog", "16384"); err != nil {
		return err
	}
	d.gateway, err = d.lab.StartGateway(ctx, lab.GatewayOptions{Config: d.config(), Binaries: d.options.Binaries})
	if err != nil {
		return err
	}
	d.say("$ sluice status")
	return d.sluice(ctx, "status")
}

func (d *demo) close() {
	if d.gateway != nil {
		d.gateway.Stop(context.Background())
	}
	if d.lab != nil {
		d.lab.Close()
	}
}

// sluice runs the operator's command and shows what it prints.
func (d *demo) sluice(ctx context.Context, args ...string) error {
	out, err := d.gateway.Sluice(ctx, args...)
	if err != nil {
		return err
	}
	d.quote(out.Stdout + out.Stderr)
	if out.Code != 0 {
		return fmt.Errorf("sluice %s ended with code %d", strings.Join(args, " "), out.Code)
	}
	return nil
}

// setMode gives users another mode in the configuration file and reloads both programs.
func (d *demo) setMode(ctx context.Context, mode string, users ...string) error {
	for _, u := range users {
		d.mode[u] = mode
	}
	if err := d.gateway.Configure(d.config(), ""); err != nil {
		return err
	}
	if err := d.gateway.Reload(); err != nil {
		return err
	}
	for _, p := range []*lab.Process{d.gateway.Intercept, d.gateway.Sluiced} {
		if err := p.WaitLog(ctx, "configuration reloaded"); err != nil {
			return err
		}
	}
	return nil
}

const picture = `
 alice    192.0.2.10 ┐                              ┌ sink.example, d01 … d30.example
 bob      192.0.2.20 ┤                              │
 mallory  192.0.2.66 ┼── gateway ──── internet ─────┼ postfix.example, exim.example
 dave     192.0.2.30 ┘   sluice-intercept, sluiced  └ DNS, a block list, misbehaving peers
                         delivers from 203.0.113.16/28 and 2001:db8:203:1::/64`

// config is the gateway's configuration with the modes of the moment.
func (d *demo) config() string {
	var b strings.Builder
	b.WriteString(`
[gateway]
name = "gw1.provider.example"
help_url = "https://mail-help.provider.example/"
contact = "abuse@provider.example"

[intercept]
customer_interfaces = ["cust*"]
uplinks = ["up*"]
default_mode = "intercept"
default_fail = "closed"
control_socket = "{{.Dir}}/intercept/control.sock"
daemon_user = "{{.User}}"
pin_dir = "{{.BPF}}/sluice"
state_dir = "{{.Dir}}/intercept/state"

[delivery]
mode = "managed"
prefixes = ["203.0.113.16/28", "2001:db8:203:1::/64"]
`)
	for i := 17; i <= 18; i++ {
		fmt.Fprintf(&b, "[[delivery.address]]\naddress = \"203.0.113.%d\"\nhelo = \"out%d.gw.example\"\n", i, i)
		fmt.Fprintf(&b, "[[delivery.address]]\naddress = \"2001:db8:203:1::%d\"\nhelo = \"out%d.gw.example\"\n", i, i)
	}
	// A user who is a bare address is not locked by default, since many customers may stand behind it; here he is.
	b.WriteString(`
[lock]
automatic = true
`)
	for _, u := range []struct{ name, v4, v6 string }{
		{"alice", "192.0.2.10", "2001:db8:1::/64"},
		{"bob", "192.0.2.20", "2001:db8:2::/64"},
		{"mallory", "192.0.2.66", "2001:db8:66::/64"},
	} {
		fmt.Fprintf(&b, "\n[[user]]\nname = %q\nprefixes = [%q, %q]\nmode = %q\nfail = \"closed\"\n", u.name, u.v4, u.v6, d.mode[u.name])
		if u.name == "bob" {
			// Ten messages a second are more than the 500 an hour of a customer who was never told about limits.
			b.WriteString("[user.limits]\nmessages_per_hour = 0\nrecipients_per_hour = 0\n")
		}
	}
	b.WriteString(`
[smtp]
spill_dir = "{{.State}}/spill"
[store]
dir = "{{.State}}"
[log]
dir = "{{.Dir}}/log"
[api]
socket = "{{.Run}}/api.sock"
`)
	return b.String()
}
