package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxMail bounds how much of one message is read; the rest is passed over.
const maxMail = 64 << 20

// eachMail calls take for every message at paths: files, folders with all below them, mailboxes (mbox), and "-" for the
// standard input. Where a file holds several messages, #1, #2 … stands behind its name.
func eachMail(paths []string, stdin io.Reader, take func(path string, data []byte) error) error {
	for _, p := range paths {
		if p == "-" {
			if err := readMails("-", stdin, take); err != nil {
				return err
			}
			continue
		}
		err := filepath.WalkDir(p, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return fmt.Errorf("could not read %s: %w", path, errors.Unwrap(err))
			}
			if !d.Type().IsRegular() && (d.IsDir() || path != p) {
				return nil
			}
			f, err := os.Open(path)
			if err != nil {
				return fmt.Errorf("could not read the mail: %w", err)
			}
			return errors.Join(readMails(path, f, take), f.Close())
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// readMails reads one message, or a mailbox: one that begins with "From " (RFC 4155).
func readMails(path string, in io.Reader, take func(path string, data []byte) error) error {
	r := bufio.NewReaderSize(in, 64<<10)
	if head, _ := r.Peek(5); string(head) != "From " { // less than five bytes are no mailbox
		data, err := io.ReadAll(io.LimitReader(r, maxMail))
		if err != nil {
			return fmt.Errorf("could not read %s: %w", path, err)
		}
		return take(path, data)
	}
	var mail []byte
	n, after := 0, true // after: the line before was empty, or there was none
	flush := func() error {
		if n == 0 {
			return nil
		}
		return take(fmt.Sprintf("%s#%d", path, n), mail)
	}
	for {
		line, err := r.ReadSlice('\n')
		whole := !errors.Is(err, bufio.ErrBufferFull)
		if after && bytes.HasPrefix(line, []byte("From ")) {
			if err := flush(); err != nil {
				return err
			}
			mail, n = nil, n+1
		} else if len(mail) < maxMail {
			mail = append(mail, unquoteFrom(line)...)
		}
		after = whole && len(strings.TrimRight(string(line), "\r\n")) == 0
		switch {
		case err == io.EOF:
			return flush()
		case err != nil && whole:
			return fmt.Errorf("could not read %s: %w", path, err)
		}
	}
}

// unquoteFrom takes one ">" off a line that would have passed for the start of a message.
func unquoteFrom(line []byte) []byte {
	if rest := bytes.TrimLeft(line, ">"); len(rest) < len(line) && bytes.HasPrefix(rest, []byte("From ")) {
		return line[1:]
	}
	return line
}
