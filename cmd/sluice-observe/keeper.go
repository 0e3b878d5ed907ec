package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// readerCommand is the word by which the keeper starts the reader.
const readerCommand = "reader"

const (
	startPatience = 10 * time.Second // for the reader to have dropped its rights
	endPatience   = 5 * time.Second  // for it to tell what it still has
)

// keep starts the reader and hands packets to it until the context ends. When the data path changes it opens another
// source; when the reader ends, so does it.
func keep(ctx context.Context, set *settings, limit int, log *slog.Logger) error {
	src, by, err := set.open(limit, log)
	if err != nil {
		return err
	}
	child, err := startReader(ctx, set)
	if err != nil {
		return errors.Join(err, src.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		<-child.ended
		cancel()
	}()
	log.Info("ready", "version", version, "source", by, "reader", child.cmd.Process.Pid, "uid", set.uid)
	for {
		err = src.run(ctx, child.feed)
		if err = errors.Join(ignore(err, errChanged), src.Close()); err != nil || ctx.Err() != nil {
			break
		}
		log.Info("the data path has changed: observing it anew")
		if src, by, err = set.reopen(ctx, limit, log); err != nil {
			break
		}
		child.feed.renew()
		log.Info("observing", "source", by)
	}
	return errors.Join(err, child.end())
}

func ignore(err, what error) error {
	if errors.Is(err, what) {
		return nil
	}
	return err
}

// reopen opens the source of a path that is being changed, which takes its helper a while.
func (s *settings) reopen(ctx context.Context, limit int, log *slog.Logger) (src source, by string, err error) {
	for range 20 {
		if src, by, err = s.open(limit, log); err == nil {
			return src, by, nil
		}
		select {
		case <-time.After(every / 2):
		case <-ctx.Done():
			return nil, "", err
		}
	}
	return nil, "", err
}

// child is the reader's process.
type child struct {
	cmd   *exec.Cmd
	pipe  *os.File
	feed  *feed
	ended chan struct{}
	err   error
}

// startReader starts the reader and waits until it has no rights left.
func startReader(ctx context.Context, set *settings) (_ *child, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("could not find this program to start the reader: %w", err)
	}
	in, out, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("could not make a pipe for the reader: %w", err)
	}
	defer in.Close()
	ports := make([]string, len(set.ports))
	for i, p := range set.ports {
		ports[i] = strconv.Itoa(int(p))
	}
	c := &child{pipe: out, feed: newFeed(out), ended: make(chan struct{})}
	c.cmd = exec.Command(self, readerCommand, "--socket", set.socket, "--uid", strconv.Itoa(set.uid), "--gid", strconv.Itoa(set.gid), "--ports", strings.Join(ports, ","))
	c.cmd.ExtraFiles, c.cmd.Stderr = []*os.File{in}, os.Stderr
	said, err := c.cmd.StdoutPipe()
	if err == nil {
		err = c.cmd.Start()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("could not start the reader: %w", err), out.Close())
	}
	ready := make(chan bool, 1)
	go func() {
		line, _ := bufio.NewReader(said).ReadString('\n')
		ready <- line == readyLine
		c.err = c.cmd.Wait()
		close(c.ended)
	}()
	t := time.NewTimer(startPatience)
	defer t.Stop()
	select {
	case ok := <-ready:
		if ok {
			return c, nil
		}
		<-c.ended
		return nil, errors.Join(fmt.Errorf("the reader ended at its start: %w", c.err), out.Close())
	case <-t.C:
		err = errors.New("the reader did not become ready")
	case <-ctx.Done():
		err = ctx.Err()
	}
	return nil, errors.Join(err, c.cmd.Process.Kill(), out.Close())
}

// end lets the reader tell what it still has, and waits for it.
func (c *child) end() error {
	_ = c.pipe.Close() // what it could not take any more is lost
	t := time.AfterFunc(endPatience, func() { _ = c.cmd.Process.Kill() })
	defer t.Stop()
	<-c.ended
	if c.err != nil {
		return fmt.Errorf("the reader ended: %w", c.err)
	}
	return nil
}
