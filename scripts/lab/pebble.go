package lab

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// pebbleModule is the test authority of Let's Encrypt, at an exact version.
const pebbleModule = "github.com/letsencrypt/pebble/v2/cmd/pebble@v2.10.1"

// pebblePort is where it listens, on the MX "sink".
const pebblePort = 14000

// PebbleDirectory is the address of the authority that Pebble starts.
var PebbleDirectory = fmt.Sprintf("https://mx.sink.example:%d/dir", pebblePort)

// PebbleAccount and PebbleKey are of the one account that an authority of Pebble's lets in where it asks for one.
const PebbleAccount, PebbleKey = "provider-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"

// Pebble starts an authority on the internet whose certificates are valid for so long. It shows cert as its own, and
// looks for names in the lab's DNS. A closed one takes nobody but PebbleAccount.
func (l *Lab) Pebble(ctx context.Context, cert tls.Certificate, valid time.Duration, closed bool) (*Process, error) {
	program, err := goProgram(ctx, l.cache, pebbleModule)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(l.dir, "pebble-")
	if err != nil {
		return nil, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return nil, err
	}
	mx, err := HostMX("sink")
	if err != nil {
		return nil, err
	}
	at := net.JoinHostPort(mx.V4().String(), fmt.Sprint(pebblePort))
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": at, "managementListenAddress": "", "certificate": filepath.Join(dir, "cert.pem"), "privateKey": filepath.Join(dir, "key.pem"),
		"httpPort": 80, "tlsPort": 443, "ocspResponderURL": "", "externalAccountBindingRequired": closed,
		"externalAccountMACKeys": map[string]any{PebbleAccount: PebbleKey},
		"profiles":               map[string]any{"default": map[string]any{"description": "short", "validityPeriod": int(valid / time.Second)}},
	}})
	if err != nil {
		return nil, err
	}
	for name, b := range map[string][]byte{
		"config.json": config, "cert.pem": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}),
		"key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			return nil, err
		}
	}
	p, err := l.Start(HostInternet, Command{Args: []string{program, "-config", filepath.Join(dir, "config.json"), "-dnsserver", ResolverV4.String() + ":53"}, Env: []string{"PEBBLE_VA_NOSLEEP=1"}})
	if err != nil {
		return nil, err
	}
	return p, p.WaitLog(ctx, "ACME directory available")
}

// goProgram builds a program from the Go proxy once, into the cache.
func goProgram(ctx context.Context, cache, module string) (string, error) {
	name := filepath.Base(module) // name@version
	path := filepath.Join(cache, "go", name)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	dir, err := os.MkdirTemp("", "sluice-go-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(dir) }() // a small folder in /tmp
	cmd := exec.CommandContext(ctx, "go", "install", module)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOBIN="+dir, "GOFLAGS=-mod=mod -trimpath", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("could not build %s: %w: %s", module, err, tail(out))
	}
	built, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(built) != 1 {
		return "", fmt.Errorf("could not build %s: it made %v", module, built)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	if err := copyProgram(built[0], path+".new"); err != nil {
		return "", err
	}
	return path, os.Rename(path+".new", path)
}
