package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"sluice/scripts/bench/kernel"
	"sluice/scripts/bench/testbed"
)

// runKernel measures the kernel's programs alone; everything it makes is removed, also by the next run if it is killed.
func runKernel(ctx context.Context, args []string) (err error) {
	fs := flag.NewFlagSet("bench kernel", flag.ContinueOnError)
	quick := fs.Bool("quick", false, "a few seconds: small tables, few rounds; to see that it works")
	c := kernel.Full()
	fs.IntVar(&c.Rounds, "rounds", c.Rounds, "rounds; each measures everything once")
	fs.IntVar(&c.Interfaces, "interfaces", c.Interfaces, "customer interfaces, where there are many")
	parts := fs.String("parts", "", "`parts` to measure, of alone, traffic, forwarding, streams, connections and memory; empty: all")
	users := fs.String("users", "", "`sizes` of the tables, such as 100,100000; empty: from 1 to a million")
	enforce := fs.Bool("enforce", false, "fail when a target is missed")
	jsonPath := fs.String("json", "", "`file` for all figures")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("could not understand %q: give flags only", fs.Arg(0))
	}
	if *quick {
		c = kernel.Quick()
	}
	if *parts != "" {
		c.Parts = strings.Split(*parts, ",")
	}
	if *users != "" {
		c.Users = nil
		for s := range strings.SplitSeq(*users, ",") {
			n, err := strconv.Atoi(s)
			if err != nil || n < 1 {
				return fmt.Errorf("could not use -users %s: %q is not a number of users; write such as 100,100000", *users, s)
			}
			c.Users = append(c.Users, n)
		}
	}
	r, err := measureKernel(ctx, c)
	if err != nil {
		return err
	}
	host := testbed.ReadHost()
	fmt.Printf("%s, %d cores, Linux %s; load average %s\n\n", host.CPU, host.Cores, host.Kernel, testbed.LoadAvg())
	if err := r.Write(os.Stdout); err != nil {
		return err
	}
	if *jsonPath != "" {
		text, err := json.MarshalIndent(r, "", "  ")
		if err == nil {
			err = os.WriteFile(filepath.Clean(*jsonPath), append(text, '\n'), 0o644)
		}
		if err != nil {
			return err
		}
	}
	if *enforce {
		return r.Missed()
	}
	return nil
}

func measureKernel(ctx context.Context, c kernel.Config) (r *kernel.Result, err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("could not measure the kernel's programs: that needs root; run it with sudo")
	}
	if err := sweep(); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", testbed.Name(os.Getpid()))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	c.Dir = filepath.Join(dir, bpfDir)
	if err := os.Mkdir(c.Dir, 0o700); err != nil {
		return nil, err
	}
	if err := unix.Mount("bpf", c.Dir, "bpf", 0, ""); err != nil {
		return nil, fmt.Errorf("could not mount a BPF file system: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Unmount(c.Dir, unix.MNT_DETACH)) }()
	return kernel.Run(ctx, c)
}
