// Package store keeps what changes seldom in an SQLite database: users, their settings, locks and the audit log.
package store

import (
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"modernc.org/sqlite" // also the database driver "sqlite"
)

// Options set up a store.
type Options struct {
	// Failed hears of a background write that failed and will be tried again. It must not block. May be nil.
	Failed func(error)
}

// Store is an open database. Two processes may have it open, as during a restart. Safe for concurrent use.
type Store struct {
	path  string
	o     Options
	write *sql.DB // one connection: SQLite has one writer
	read  *sql.DB
	made  made
	done  sync.WaitGroup
}

// busy is how long a statement waits for the other process's writes.
const busy = 5 * time.Second

// Open opens the database at path, creates it where it is missing, and brings its schema up to date.
func Open(path string, o Options) (*Store, error) { return openWith(path, o, defaultBlock) }

func openWith(path string, o Options, block uint32) (*Store, error) {
	s := &Store{path: path, o: o}
	s.made.block = block
	if err := s.open(); err != nil {
		s.closeAll()
		return nil, fmt.Errorf("could not open the store %s: %w", path, err)
	}
	s.done.Go(s.writeBehind)
	return s, nil
}

func (s *Store) open() error {
	if err := checkFolder(filepath.Dir(s.path)); err != nil {
		return err
	}
	// Created here so that it is ours alone: passwords' hashes and customers' names will be in it.
	f, err := os.OpenFile(s.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("%w; the file must belong to the user that runs sluiced", err)
	}
	if err := f.Close(); err != nil {
		return err
	}
	if s.write, err = connectPatiently(s.path, 1); err != nil {
		return err
	}
	if err := migrate(s.write); err != nil {
		return err
	}
	if s.read, err = connectPatiently(s.path, 4); err != nil {
		return err
	}
	return s.loadMade()
}

func checkFolder(dir string) error {
	st, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("its folder is missing: %w; create it for the user that runs sluiced", err)
	}
	if !st.IsDir() {
		return fmt.Errorf("%s is not a folder", dir)
	}
	return nil
}

// connectPatiently tries again while another process is about to open the same new database: the change to WAL is the
// one step for which SQLite's own busy timeout does not wait.
func connectPatiently(path string, conns int) (*sql.DB, error) {
	for deadline := time.Now().Add(busy); ; time.Sleep(10 * time.Millisecond) {
		db, err := connect(path, conns)
		if err == nil {
			return db, nil
		}
		var code *sqlite.Error
		if !errors.As(err, &code) || code.Code()&0xff != sqliteBusy || time.Now().After(deadline) {
			return nil, err
		}
	}
}

// sqliteBusy is SQLite's SQLITE_BUSY; the upper bits of a code say more.
const sqliteBusy = 5

// connect opens a pool of connections. Commits are synced: a lock that was answered must survive a power cut.
func connect(path string, conns int) (*sql.DB, error) {
	u := url.URL{Scheme: "file", Path: path}
	if !filepath.IsAbs(path) {
		u = url.URL{Scheme: "file", Opaque: url.PathEscape(path)}
	}
	q := url.Values{"_txlock": {"immediate"}, "_pragma": {
		fmt.Sprintf("busy_timeout(%d)", busy.Milliseconds()), "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(ON)",
	}}
	u.RawQuery = q.Encode()
	db, err := sql.Open("sqlite", u.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	if err := db.Ping(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// Close writes what is still in memory and closes the database.
func (s *Store) Close() error {
	s.made.stop()
	s.done.Wait()
	return errors.Join(s.flushMade(), s.giveBack(), s.closeAll())
}

func (s *Store) closeAll() error {
	var errs []error
	for _, db := range []*sql.DB{s.read, s.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}

// update runs f in one transaction.
func (s *Store) update(f func(tx *sql.Tx) error) error {
	tx, err := s.write.Begin()
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// change runs f in one transaction and leaves a line in the audit log.
func (s *Store) change(act Act, f func(tx *sql.Tx) error) error {
	return s.update(func(tx *sql.Tx) error {
		if err := f(tx); err != nil {
			return err
		}
		return audit(tx, act)
	})
}

// stamp is how times stand in the database: microseconds since 1970, 0 for none.
func stamp(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func unstamp(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}
