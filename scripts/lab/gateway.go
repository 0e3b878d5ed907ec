package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"text/template"
	"time"

	"golang.org/x/sys/unix"
)

// The account that sluiced runs as. It exists on every machine and has no
// rights.
const (
	daemonUser = "nobody"
	daemonID   = 65534
)

// GatewayConfig is the configuration that StartGateway uses when its options
// name none: every customer a user of his own whose mail is intercepted and,
// when the proxy is dead, held back; mail leaves from delivery addresses. It
// is a text/template over GatewayData.
const GatewayConfig = `# Made for one lab.
[gateway]
name = "gw.example"
help_url = "https://gw.example/mail/"
contact = "abuse@gw.example"

[intercept]
customer_interfaces = ["cust*"]
uplinks = ["up*"]
default_fail = "closed"
pin_dir = "{{.BPF}}/sluice"
state_dir = "{{.Dir}}/intercept/state"
control_socket = "{{.Dir}}/intercept/control.sock"
daemon_user = "{{.User}}"

[delivery]
mode = "managed"
prefixes = ["{{.DeliveryV4}}", "{{.DeliveryV6}}"]
{{range .Addresses}}
[[delivery.address]]
address = "{{.Address}}"
helo = "{{.Helo}}"
{{end}}
[lock]
automatic = true

[smtp]
spill_dir = "{{.State}}/spill"

[store]
dir = "{{.State}}"

[log]
dir = "{{.Dir}}/log"

[api]
socket = "{{.Run}}/api.sock"
{{range .Customers}}
[[user]]
name = "{{.Name}}"
prefixes = [{{if .V4.IsValid}}"{{.V4}}/32"{{end}}{{if and .V4.IsValid .V6.IsValid}}, {{end}}{{if .V6.IsValid}}"{{.V6}}/128"{{end}}]
{{end}}`

// GatewayData is what a configuration template may use.
type GatewayData struct {
	Dir       string // of the gateway's files: bin, run, state, log, intercept, bpf
	Run       string // sluiced's sockets
	State     string // sluiced's state
	BPF       string // a BPF file system of this gateway's own
	User      string // account of sluiced
	Customers []Customer
	// Addresses are the first four delivery addresses, two of each family.
	Addresses  []GatewayAddress
	DeliveryV4 netip.Prefix
	DeliveryV6 netip.Prefix
}

// GatewayAddress is a delivery address with the name that its PTR has.
type GatewayAddress struct {
	Address netip.Addr
	Helo    string
}

// GatewayOptions of StartGateway.
type GatewayOptions struct {
	// Config is the configuration, a text/template over GatewayData; default
	// GatewayConfig.
	Config string
	// Extra is appended to it.
	Extra string
	// Binaries is the folder with sluice-intercept, sluiced and sluice;
	// default: they are built from this module.
	Binaries string
}

// Gateway is Sluice running on the lab's gateway.
type Gateway struct {
	Dir    string
	Config string // path of the configuration file
	Socket string // of the API
	// The two programs; another Process after each restart.
	Intercept *Process
	Sluiced   *Process

	lab *Lab
}

// StartGateway writes the configuration, starts sluice-intercept and sluiced on
// the gateway and waits until both are ready.
func (l *Lab) StartGateway(ctx context.Context, o GatewayOptions) (*Gateway, error) {
	g, err := l.PrepareGateway(ctx, o)
	if err != nil {
		return nil, err
	}
	l.say("starting Sluice in %s", g.Dir)
	if err := g.StartIntercept(ctx); err != nil {
		return nil, err
	}
	return g, g.StartSluiced(ctx)
}

// newGateway says where the gateway's files are.
func (l *Lab) newGateway() *Gateway {
	dir := filepath.Join(l.dir, "gw")
	return &Gateway{Dir: dir, Config: filepath.Join(dir, "sluice.toml"), Socket: filepath.Join(dir, "run/api.sock"), lab: l}
}

// PrepareGateway does all of StartGateway but start the programs.
func (l *Lab) PrepareGateway(ctx context.Context, o GatewayOptions) (*Gateway, error) {
	g := l.newGateway()
	dir := g.Dir
	for _, sub := range []string{"bin", "bpf", "intercept/state", "run", "state/spill", "log"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, fmt.Errorf("could not prepare the gateway: %w", err)
		}
	}
	for _, sub := range []string{"run", "state", "state/spill", "log"} {
		if err := os.Chown(filepath.Join(dir, sub), daemonID, daemonID); err != nil {
			return nil, fmt.Errorf("could not prepare the gateway: %w", err)
		}
	}
	if err := g.Configure(o.Config, o.Extra); err != nil {
		return nil, err
	}
	if o.Binaries == "" {
		if err := Build(ctx, filepath.Join(dir, "bin")); err != nil {
			return nil, err
		}
	} else if err := g.Install(o.Binaries); err != nil {
		return nil, err
	}
	err := l.inMounts(func() error {
		return unix.Mount("bpf", filepath.Join(dir, "bpf"), "bpf", 0, "mode=700")
	})
	if err != nil {
		return nil, fmt.Errorf("could not mount a BPF file system for the gateway: %w", err)
	}
	return g, nil
}

// Configure writes the configuration file anew from a template ("" for
// GatewayConfig) and a text to append. Running programs are not told.
func (g *Gateway) Configure(text, extra string) error {
	if text == "" {
		text = GatewayConfig
	}
	t, err := template.New("configuration").Option("missingkey=error").Parse(text)
	if err != nil {
		return fmt.Errorf("could not read the gateway's configuration template: %w", err)
	}
	data := GatewayData{
		Dir: g.Dir, Run: filepath.Join(g.Dir, "run"), State: filepath.Join(g.Dir, "state"), BPF: filepath.Join(g.Dir, "bpf"),
		User: daemonUser, Customers: g.lab.Customers(), DeliveryV4: DeliveryV4, DeliveryV6: DeliveryV6,
	}
	for _, a := range deliveryAddrs()[:2] {
		helo := fmt.Sprintf("out%d.gw.example", a.n)
		data.Addresses = append(data.Addresses, GatewayAddress{a.v4, helo}, GatewayAddress{a.v6, helo})
	}
	var b strings.Builder
	if err := t.Execute(&b, data); err != nil {
		return fmt.Errorf("could not fill in the gateway's configuration: %w", err)
	}
	tmp := g.Config + ".new"
	if err := os.WriteFile(tmp, []byte(b.String()+"\n"+extra), 0o644); err != nil {
		return fmt.Errorf("could not write the gateway's configuration: %w", err)
	}
	return os.Rename(tmp, g.Config)
}

// Programs are the gateway's, all from this module's cmd folder.
var programs = []string{"sluice-intercept", "sluiced", "sluice-observe", "sluice"}

// Build compiles the programs of the module that the working folder belongs to
// into dir.
func Build(ctx context.Context, dir string) error {
	args := []string{"build", "-o", dir + "/"}
	for _, p := range programs {
		args = append(args, "sluice/cmd/"+p)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // as make does
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("could not build the gateway's programs: %w: %s", err, tail(out))
	}
	return nil
}

// Install copies the programs from a folder over the gateway's, each by a
// rename, as an upgrade does. Running ones go on.
func (g *Gateway) Install(from string) error {
	for _, p := range programs {
		if err := copyProgram(filepath.Join(from, p), filepath.Join(g.Dir, "bin", p)); err != nil {
			return fmt.Errorf("could not install %s on the gateway: %w", p, err)
		}
	}
	return nil
}

func copyProgram(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // only read
	return writeProgram(to, in)
}

// writeProgram makes a program that can be run at once. No process is started while the file is open for writing: until it
// runs its own program it would have it open, too, and whoever runs the file meanwhile would hear that it is busy.
func writeProgram(to string, text io.Reader) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	out, err := os.OpenFile(to+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, text)
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	return os.Rename(to+".new", to)
}

func (g *Gateway) bin(name string) string { return filepath.Join(g.Dir, "bin", name) }

// StartIntercept starts sluice-intercept as root and waits until it is ready.
func (g *Gateway) StartIntercept(ctx context.Context) error {
	p, err := g.lab.Start(HostGateway, Command{Args: []string{g.bin("sluice-intercept"), "--config", g.Config}})
	if err != nil {
		return err
	}
	g.Intercept = p
	return p.WaitLog(ctx, "ready")
}

// StartSluiced starts sluiced without any privilege and waits until it is ready.
func (g *Gateway) StartSluiced(ctx context.Context) error {
	p, err := g.lab.Start(HostGateway, Command{
		Args: []string{g.bin("sluiced"), "--config", g.Config}, UID: daemonID, GID: daemonID, Dir: filepath.Join(g.Dir, "state"),
	})
	if err != nil {
		return err
	}
	g.Sluiced = p
	return p.WaitLog(ctx, "ready")
}

// StartObserve starts sluice-observe as root, which it does not stay, and waits until it is ready. The caller stops it.
func (g *Gateway) StartObserve(ctx context.Context) (*Process, error) {
	p, err := g.lab.Start(HostGateway, Command{Args: []string{g.bin("sluice-observe"), "--config", g.Config}})
	if err != nil {
		return nil, err
	}
	return p, p.WaitLog(ctx, "ready")
}

// RestartSluiced is a planned restart: SIGTERM, the end, a new start.
func (g *Gateway) RestartSluiced(ctx context.Context) error {
	if err := g.Sluiced.Stop(ctx); err != nil {
		return err
	}
	return g.StartSluiced(ctx)
}

// RestartIntercept is a planned restart of the helper.
func (g *Gateway) RestartIntercept(ctx context.Context) error {
	if err := g.Intercept.Stop(ctx); err != nil {
		return err
	}
	return g.StartIntercept(ctx)
}

// Reload tells both programs to read the configuration again.
func (g *Gateway) Reload() error {
	return errors.Join(g.Intercept.Signal(syscall.SIGHUP), g.Sluiced.Signal(syscall.SIGHUP))
}

// Sluice runs the operator's command against this gateway.
func (g *Gateway) Sluice(ctx context.Context, args ...string) (Output, error) {
	return g.lab.Exec(ctx, HostGateway, append([]string{g.bin("sluice"), "--socket", g.Socket}, args...)...)
}

// Cleanup runs "sluice-intercept cleanup".
func (g *Gateway) Cleanup(ctx context.Context) (Output, error) {
	return g.lab.Exec(ctx, HostGateway, g.bin("sluice-intercept"), "cleanup", "--config", g.Config)
}

// Stop ends both programs, sluiced first.
func (g *Gateway) Stop(ctx context.Context) error {
	var errs []error
	for _, p := range []*Process{g.Sluiced, g.Intercept} {
		if p != nil {
			errs = append(errs, p.Stop(ctx))
		}
	}
	return errors.Join(errs...)
}

// CPU is the time that both programs have used so far.
func (g *Gateway) CPU() (time.Duration, error) {
	var sum time.Duration
	for _, p := range []*Process{g.Sluiced, g.Intercept} {
		d, err := p.CPU()
		if err != nil {
			return 0, err
		}
		sum += d
	}
	return sum, nil
}
