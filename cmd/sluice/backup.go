package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"sluice/cmd/internal/backup"
	"sluice/proxy/durable"
)

func (p *program) backupCommand() *cobra.Command {
	return &cobra.Command{Use: "backup FILE", Short: "write what makes this gateway the one it is to a new file", Args: exactly("FILE"),
		Long: `backup writes to a new file, readable by its owner alone, all that a gateway needs to be this one again: configuration with the files
that it names, users, settings, logins, locks, the keys that sign mail, certificates, what was learnt and counted. It prints what the
file holds and what it does not hold, and how to keep that. The file has private keys: keep it elsewhere, and encrypted. It is for
root alone, takes seconds, and nothing waits for it.

"sluice restore FILE" puts it back, on this host or a new one. The file is a compressed tar archive: tar -xzOf FILE
files/etc/sluice/sluice.toml prints one file of it.`,
		Example: "  sluice backup /root/gw1-2026-11-23.sluice",
		RunE: func(cmd *cobra.Command, args []string) error {
			file := args[0]
			if _, err := os.Lstat(file); err == nil {
				return usageError{fmt.Errorf("%s is there already; name a new file", file)}
			}
			f, err := os.CreateTemp(filepath.Dir(file), ".sluice-backup-*") // of mode 0600
			if err != nil {
				return fmt.Errorf("could not write the backup: %w", err)
			}
			err = errors.Join(p.client.Fetch(cmd.Context(), "/v1/backup", f), f.Sync(), f.Close())
			var c *backup.Content
			if err == nil {
				c, err = backup.Look(f.Name())
			}
			if err == nil {
				err = os.Rename(f.Name(), file)
			}
			if err != nil {
				return errors.Join(err, os.Remove(f.Name()))
			}
			if err := durable.SyncFolder(filepath.Dir(file)); err != nil {
				return fmt.Errorf("could not bring %s to the disk: %w", file, err)
			}
			return p.content(c, "%s is a backup of %s. It has private keys: keep it elsewhere, and encrypted.", file, c.Gateway)
		}}
}

// content shows what a backup has, and what not.
func (p *program) content(c *backup.Content, format string, args ...any) error {
	if p.screen.json {
		return p.screen.writeJSON(c)
	}
	rows := make([][]string, len(c.Parts))
	for i, part := range c.Parts {
		rows[i] = []string{part.What, "-", "", part.Note}
		if part.Files > 0 {
			rows[i][1], rows[i][2] = strconv.Itoa(part.Files), size(part.Bytes)
		} else if !part.Left {
			rows[i][1], rows[i][3] = "none", ""
		}
	}
	p.screen.table([]column{{head: "WHAT"}, {head: "FILES", right: true}, {head: "SIZE", right: true}, {head: "NOTE", cut: true}}, rows)
	p.screen.say(format, args...)
	return nil
}

func (p *program) restoreCommand() *cobra.Command {
	r := restore{}
	cmd := &cobra.Command{Use: "restore FILE", Short: "put back what backup wrote, on this host or a new one", Args: exactly("FILE"),
		Long: `restore puts a backup back, all of it or nothing; sluiced must not run. On a new host: install Sluice of the same version or a newer one,
make its account (systemd-sysusers), restore, look at the interfaces in the configuration, start the services. A file that is
damaged or of a newer version is refused.

Where store.dir has a state already restore refuses; --replace moves it aside there, into before-restore- and the time, and each held
message gets a second name in it: those that came behind the backup go from the quarantine. Mail that waits and the message log stay.

Files of the configuration are put where they were, with their owners and modes, where none is yet; those that are there stay as they
are, and it is said which of them differ.`,
		Example: "  sluice restore --check gw1-2026-11-23.sluice",
		RunE: func(_ *cobra.Command, args []string) error {
			r.file, r.socket = args[0], p.socket
			c, err := backup.Look(r.file)
			if err != nil {
				return err
			}
			if r.check {
				return p.content(c, "%s is whole: a backup of %s, written %s by Sluice %s.", r.file, c.Gateway, p.screen.at(c.At), c.Version)
			}
			if err := r.run(&c.Head); err != nil {
				return err
			}
			return p.content(c, "%s", r.report(&c.Head))
		}}
	cmd.Flags().BoolVar(&r.check, "check", false, "change nothing: say whether the file is whole, and what it holds")
	cmd.Flags().BoolVar(&r.replace, "replace", false, "move aside what stands in store.dir")
	cmd.Flags().StringVar(&r.config, "config", "", "configuration `file`; where the backup's was unless told")
	return cmd
}

// fileIs tells whether what is at path is exactly b. Nothing there is neither.
func fileIs(path string, b []byte) (there, same bool, err error) {
	have, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, false, nil
	}
	return true, bytes.Equal(have, b), err
}
