package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sluice/filter/reputation/feedback"
)

// reportsEvery is how often the folder of reports is looked into, reportsAtOnce how many are taken then, and refusedKept how
// many files are kept that are no reports.
const (
	reportsEvery  = 2 * time.Second
	reportsAtOnce = 500
	refusedKept   = 1000
)

// keepReports reads what is put into the folder of reports, until ctx ends or another process does.
func (d *daemon) keepReports(ctx context.Context) {
	t := time.NewTicker(reportsEvery)
	defer t.Stop()
	told := ""
	for {
		select {
		case <-t.C:
			text := ""
			if dir := d.cfg.Load().Reports.Folder; dir != "" {
				if err := d.readReports(ctx, dir); err != nil {
					text = err.Error()
				}
			}
			if text != told && text != "" {
				d.log.Error("could not read and clear the folder of reports; may sluiced write there, also by ReadWritePaths= of its unit?", "err", text)
			}
			told = text
		case <-d.handedOver:
			return
		case <-ctx.Done():
			return
		}
	}
}

// readReports takes the reports in dir, and in its folder new, where it is a Maildir.
func (d *daemon) readReports(ctx context.Context, dir string) error {
	in, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if more, err := os.ReadDir(filepath.Join(dir, "new")); err == nil {
		for _, e := range more {
			in = append(in, inNew{e})
		}
	}
	n := 0
	for _, e := range in {
		if !e.Type().IsRegular() || strings.HasPrefix(filepath.Base(e.Name()), ".") || ctx.Err() != nil {
			continue
		}
		if n++; n > reportsAtOnce {
			break
		}
		if err := d.readReport(ctx, dir, filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// inNew is a file in the folder new of a Maildir.
type inNew struct{ fs.DirEntry }

func (e inNew) Name() string { return filepath.Join("new", e.DirEntry.Name()) }

// readReport takes one file, and removes it; what is no report is moved aside.
func (d *daemon) readReport(ctx context.Context, dir, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	data, err := io.ReadAll(io.LimitReader(f, feedback.MaxSize+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if _, err := d.report(ctx, data); err != nil {
		if ctx.Err() != nil {
			return nil // it is taken by the next process
		}
		d.reports.refused.Add(1)
		d.log.Warn("a file in the folder of reports is none", "file", path, "err", err)
		return putAside(filepath.Join(dir, "refused"), path)
	}
	return os.Remove(path)
}

// putAside moves a file into a folder, unless too many are there.
func putAside(dir, path string) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	if in, err := os.ReadDir(dir); err == nil && len(in) >= refusedKept {
		return os.Remove(path)
	}
	return os.Rename(path, filepath.Join(dir, filepath.Base(path)))
}
