package nft

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sluice/intercept/ruleset"
)

// toolPatience bounds one run of nft.
const toolPatience = 30 * time.Second

// tool is the program nft.
type tool struct{ path string }

// findTool finds nft in the search path, or where distributions put it, which a service's path may lack.
func findTool() (tool, error) {
	for _, name := range []string{"nft", "/usr/sbin/nft", "/sbin/nft"} {
		if path, err := exec.LookPath(name); err == nil {
			return tool{path}, nil
		}
	}
	return tool{}, errors.New("the program nft is not installed; on Debian: apt install nftables")
}

// run has nft read a text; all of it happens, or nothing.
func (t tool) run(text string) error {
	ctx, cancel := context.WithTimeout(context.Background(), toolPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, t.path, "-f", "-")
	cmd.Stdin = strings.NewReader(text)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Run(); err != nil {
		said, _, _ := strings.Cut(strings.TrimSpace(errs.String()), "\n")
		return fmt.Errorf("could not set the nftables rules: %w: %.300s", err, said)
	}
	return nil
}

// Remove removes the table, whoever made it; one that is not there is no error, nor is a kernel without nftables.
func Remove() error {
	b := newBatch()
	b.dropTable(ruleset.FilterTable)
	err := b.commit()
	if err == nil || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	return fmt.Errorf("could not remove the nftables table %s: %w", ruleset.FilterTable, err)
}

// Stands tells whether the table is there.
func Stands() (bool, error) {
	found := false
	err := query(unix.NFT_MSG_GETTABLE, func(*batch) {}, func(a attrs) {
		found = found || string(bytes.TrimRight(a.get(unix.NFTA_TABLE_NAME), "\x00")) == ruleset.FilterTable
	})
	if err != nil {
		return false, fmt.Errorf("could not look for the nftables table: %w", err)
	}
	return found, nil
}

// generation is a number that changes whenever any rule or set of the namespace does.
func generation() (id uint32, err error) {
	b := new(batch)
	b.end(b.message(nftMessage(unix.NFT_MSG_GETGEN), 0, unix.AF_UNSPEC, "read"))
	s, err := dial()
	if err != nil {
		return 0, err
	}
	defer s.close()
	if err := s.send(b.bytes); err != nil {
		return 0, err
	}
	err = s.receive(func(h header, data []byte) (bool, error) {
		if h.kind == unix.NLMSG_ERROR {
			return false, fmt.Errorf("could not read the generation of nftables: %w", errorOf(data))
		}
		if len(data) >= 4 {
			id = uint32(attrs(data[4:]).number(unix.NFTA_GEN_ID))
		}
		return false, nil
	})
	return id, err
}
