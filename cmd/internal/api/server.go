package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/user"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Overview tells about the gateway as a whole.
type Overview interface {
	Status(ctx context.Context) (*Status, error)
	Counters(ctx context.Context) (*Counters, error)
	Doctor(ctx context.Context) ([]Finding, error)
}

// Users lists and changes users. A name may be an address whose user is meant.
type Users interface {
	Users(ctx context.Context) ([]User, error)
	User(ctx context.Context, name string) (*UserDetail, error)
}

// UserEditor changes users. Who is the operator's account.
type UserEditor interface {
	AddUser(ctx context.Context, who string, u NewUser) (*User, error)
	RemoveUser(ctx context.Context, who, name string) (*User, error)
}

// Ruler tells and changes what happens to mail by source and destination. Who is the operator's account.
type Ruler interface {
	Modes(ctx context.Context) ([]Mode, error)
	Holding(ctx context.Context, p netip.Prefix) (*Mode, error)
	SetMode(ctx context.Context, who string, p netip.Prefix, r ModeRequest) (*Mode, error)
	RemoveMode(ctx context.Context, who string, p netip.Prefix, reason string) (*Mode, error)
	Exemptions(ctx context.Context) ([]Exemption, error)
	Exempt(ctx context.Context, who string, p netip.Prefix, r ExemptRequest) (*Exemption, error)
	RemoveExemption(ctx context.Context, who string, p netip.Prefix, port uint16, reason string) (*Exemption, error)
}

// Flows lists the open connections.
type Flows interface {
	Flows() []Flow
}

// Locks lists locks. History includes those that have ended, newest first.
type Locks interface {
	Locks(ctx context.Context) ([]Lock, error)
	History(ctx context.Context, user string, limit int) ([]Lock, error)
}

// Locker locks and unlocks by hand. Who is the operator's account.
type Locker interface {
	Lock(ctx context.Context, who string, r LockRequest) (*Lock, error)
	Unlock(ctx context.Context, who string, r UnlockRequest) (*Lock, error)
	Replay(ctx context.Context, q ReplayRequest) (*Replay, error)
	Undo(ctx context.Context, who string, r UndoRequest) ([]Lock, error)
}

// Log searches the message log. Tail hands over new lines until ctx ends or take fails.
type Log interface {
	Find(ctx context.Context, q Query) ([]*Message, error)
	Tail(ctx context.Context, q Query, take func(*Message) error) error
}

// Observe reports what was observed of flows that went their way untouched.
type Observe interface {
	Observed(ctx context.Context) (*ObserveReport, error)
}

// Backend is what the API stands on.
type Backend struct {
	Overview
	Users
	UserEditor
	Importer
	Ruler
	Roller
	Flows
	Locks
	Locker
	Log
	Gates
	Observe
	Logins
	Models
	Reports
	StartTLS
	Refusals
	Onward
	MailQueue
	Pools
	Identities
	UserSettings
	Groups
	Addresses
	Campaigns
	Quarantine
	Tokens
	Holders
	Searches
	Stories
	HitActor
	Appeals
	AccountLocker
	Suggester
	Senders
	DKIM
}

// Server answers requests.
type Server struct {
	// Now is the clock by which ends are over, time.Now if nobody sets another before Serve.
	Now  func() time.Time
	back Backend
	http http.Server
	stop context.CancelFunc
}

// NewServer returns a server of b that reports what it could not answer to log.
func NewServer(b Backend, log *slog.Logger) *Server {
	s := &Server{Now: time.Now, back: b}
	mux := http.NewServeMux()
	for _, r := range s.routes() {
		mux.Handle(r.method+" "+r.path, s.admit(scopeOf(r.method, r.path), http.MaxBytesHandler(r.handler(log), max(r.limit, 1<<20))))
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		tell(w, &Problem{Status: http.StatusNotFound, Code: "no-such-route",
			What: fmt.Sprintf("there is no %s %s", r.Method, r.URL.Path), Remedy: "GET /v1/openapi.json lists what there is"})
	})
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.http = http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       time.Minute,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       withPeer,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	return s
}

// Serve answers on l until Close.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Close ends followers of the log, lets other requests finish for at most a second and closes the listener.
func (s *Server) Close() error {
	s.stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := s.http.Shutdown(ctx); err != nil {
		return s.http.Close()
	}
	return nil
}

// Listen opens the socket at path with mode 0660, for group unless it is empty, in the place of one that nobody serves
// any more. A new process may take the path over while the old one drains: the old socket stays open without a name.
func Listen(path, group string) (net.Listener, error) {
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("could not open the API's socket %s: %w; does this user own its folder?", path, err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("could not open the API's socket %s: %w; does its folder exist, and is it this user's?", path, err)
	}
	l.SetUnlinkOnClose(false) // the name may be a successor's by then
	err = os.Chmod(tmp, 0o660)
	if err == nil && group != "" {
		err = chgrp(tmp, group)
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("could not open the API's socket %s: %w", path, err), l.Close())
	}
	return l, nil
}

// Served reports whether a process answers at path.
func Served(path string) bool {
	c, err := net.Dial("unix", path)
	if err == nil {
		_ = c.Close()
	}
	return err == nil
}

func chgrp(path, group string) error {
	g, err := user.LookupGroup(group)
	if err != nil {
		return fmt.Errorf("%w; correct api.group", err)
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return err
	}
	if err := os.Chown(path, -1, gid); err != nil {
		return fmt.Errorf("%w; make the daemon a member of group %s (SupplementaryGroups= in its unit)", err, group)
	}
	return nil
}

// peerKey leads to the account at the other end, trustedKey to whether it may read the daemon's files anyway.
type (
	peerKey    struct{}
	trustedKey struct{}
)

// withPeer remembers the account at the other end, for the audit log.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return ctx
	}
	var cred *unix.Ucred
	if cerr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); cerr != nil || err != nil {
		return ctx
	}
	name := "uid " + strconv.FormatUint(uint64(cred.Uid), 10)
	if u, err := user.LookupId(strconv.FormatUint(uint64(cred.Uid), 10)); err == nil {
		name = u.Username
	}
	ctx = context.WithValue(ctx, trustedKey{}, cred.Uid == 0 || int(cred.Uid) == os.Geteuid())
	return context.WithValue(ctx, peerKey{}, name)
}

// who is the account that made the request.
func who(ctx context.Context) string {
	if name, ok := ctx.Value(peerKey{}).(string); ok {
		return name
	}
	return "unknown"
}

// tell writes err as JSON.
func tell(w http.ResponseWriter, err error) {
	var p *Problem
	if !errors.As(err, &p) {
		p = &Problem{Status: http.StatusInternalServerError, Code: "failed", What: err.Error(), Remedy: "the journal of sluiced may tell more"}
	}
	write(w, p.Status, struct {
		Error *Problem `json:"error"`
	}{p})
}

func write(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // a client that left needs no answer
}
