package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// stateFile tells other processes how to enter an open lab.
const stateFile = "lab.json"

type labState struct {
	Holder    int        `json:"holder"` // process whose namespaces are the lab's
	Customers []Customer `json:"customers"`
}

func (l *Lab) writeState() error {
	data, err := json.Marshal(labState{Holder: l.hold.cmd.Process.Pid, Customers: l.customers})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(l.dir, stateFile), data, 0o644)
}

// Attach enters a lab that another process has open; dir is that lab's folder,
// "" finds the one that is open, or takes that of the variable SLUICE_LAB. Programs can be run on its hosts; it has no
// sinks and no mail servers of its own, and Close leaves the lab open.
func Attach(dir string) (*Lab, error) {
	if dir == "" {
		dir = os.Getenv("SLUICE_LAB")
	}
	if dir == "" {
		var err error
		if dir, err = findOpen(); err != nil {
			return nil, err
		}
	}
	data, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil {
		return nil, fmt.Errorf("could not enter lab %s: %w", dir, err)
	}
	var s labState
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("could not enter lab %s: %w", dir, err)
	}
	l := &Lab{dir: dir, customers: s.Customers, hosts: map[string]*host{}, attached: true}
	l.hold = &holder{cmd: &exec.Cmd{Process: &os.Process{Pid: s.Holder}}}
	if err := l.hold.open(); err != nil {
		return nil, fmt.Errorf("could not enter lab %s: %w", dir, err)
	}
	names := []string{HostInternet, HostGateway}
	for _, c := range s.Customers {
		names = append(names, c.Name)
	}
	for _, name := range names {
		if err := l.openHost(name); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// findOpen looks for the folder of the lab whose holder lives.
func findOpen() (string, error) {
	files, err := filepath.Glob(filepath.Join(os.TempDir(), "sluice-lab-*", stateFile))
	if err != nil {
		return "", err
	}
	var open []string
	for _, f := range files {
		var s labState
		data, err := os.ReadFile(f)
		if err != nil || json.Unmarshal(data, &s) != nil {
			continue // closed while we looked
		}
		if syscall.Kill(s.Holder, 0) == nil {
			open = append(open, filepath.Dir(f))
		}
	}
	switch len(open) {
	case 0:
		return "", errors.New("could not find an open lab; open one with: lab up")
	case 1:
		return open[0], nil
	}
	return "", fmt.Errorf("could not choose among several open labs; set SLUICE_LAB to one of %v", open)
}

// Terminal runs a program on host with the caller's own terminal, to its end;
// root is "" or a folder to chroot into. On the gateway sluice is found, and
// finds its gateway.
func (l *Lab) Terminal(host, root string, args ...string) error {
	h, err := l.host(host)
	if err != nil {
		return err
	}
	cmd := &exec.Cmd{Path: args[0], Args: args, Dir: "/", Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	cmd.Env = environment("root", "TERM="+os.Getenv("TERM"), `PS1=\[\e[1m\]`+host+`\[\e[0m\] \w \$ `)
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	if root == "" {
		programs := ""
		if host == HostGateway {
			g := l.newGateway()
			programs = filepath.Dir(g.bin("sluice"))
			cmd.Env = append(cmd.Env, "SLUICE_SOCKET="+g.Socket, "SLUICE_CONFIG="+g.Config, "PATH="+programs+":"+systemPath)
		}
		if cmd.Path, err = exec.LookPath(filepath.Join(programs, args[0])); err != nil {
			cmd.Path, err = exec.LookPath(args[0])
		}
		if err != nil {
			return fmt.Errorf("could not find %s: %w", args[0], err)
		}
	}
	err = onThread(func() error {
		if err := l.enterAll(h, root == ""); err != nil {
			return err
		}
		return cmd.Start()
	})
	if err != nil {
		return fmt.Errorf("could not start %v on %s: %w", args, host, err)
	}
	return cmd.Wait()
}
