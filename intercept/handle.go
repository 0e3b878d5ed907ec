package intercept

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"sluice/bpf"
	"sluice/intercept/attach"
	"sluice/intercept/control"
	"sluice/intercept/ruleset"
)

// Handle answers one request of a proxy; it is a control.Handler.
func (e *Engine) Handle(_ context.Context, peer control.Peer, r *control.Request) (*control.Reply, error) {
	switch r.Op {
	case control.OpLock:
		return nil, e.changed(e.locks.put(e.data, *r.Lock))
	case control.OpUnlock:
		return nil, e.changed(e.locks.remove(e.data, r.User))
	case control.OpLocks:
		return nil, e.changed(e.locks.replace(e.data, r.Locks, time.Now()))
	case control.OpConnect:
		f, err := e.connect(r.Connect)
		if err != nil {
			return nil, err
		}
		return &control.Reply{Files: []*os.File{f}, CloseFiles: true}, nil
	case control.OpHello:
		return e.hello(peer, r)
	case control.OpUsers:
		return nil, e.changed(e.setUsers(r.Sources))
	case control.OpPutUsers:
		return nil, e.changed(e.changeUsers(change{put: r.Sources, gone: r.Gone}))
	case control.OpExempt:
		return nil, e.setExemptions(r.Exemptions)
	case control.OpLockExempt:
		return nil, e.lockExempt(r.Exempt)
	case control.OpCounters:
		n, err := e.data.Counters()
		return &control.Reply{Counters: n}, err
	case control.OpUserCounters:
		return e.userCounters()
	case control.OpStatus:
		return e.status()
	case control.OpBypass, control.OpBypassEnd:
		return nil, e.bypass(peer, r)
	case control.OpLane:
		return control.LaneReply(e.data.UrgentFile()), nil
	case control.OpAnnounce:
		e.beat.AnnounceRestart(r.For)
		e.log.Info("planned restart announced", "for", r.For, "pid", peer.PID)
		return nil, nil
	}
	return nil, control.Errorf(control.CodeInvalid, "could not do %q: not an operation", r.Op)
}

// bypass obeys root only: a proxy that could open the way out would have no ceiling.
func (e *Engine) bypass(peer control.Peer, r *control.Request) error {
	if peer.UID != 0 {
		return control.Errorf(control.CodeCeiling, "could not change the bypass: only root may, and this is user %d", peer.UID)
	}
	by := fmt.Sprintf("uid %d, pid %d", peer.UID, peer.PID)
	if r.Op == control.OpBypassEnd {
		var p netip.Prefix
		if r.Bypass != nil {
			p = r.Bypass.Prefix
		}
		return e.bypasses.end(e.data, p, by)
	}
	b := *r.Bypass
	b.By, b.Since = by, time.Now()
	return e.bypasses.put(e.data, b)
}

// changed has the state on disk renewed if err is nil.
func (e *Engine) changed(err error) error {
	if err == nil {
		select {
		case e.save <- struct{}{}:
		default: // a write is due already
		}
	}
	return err
}

// hello takes a listener back if it lacks one, and passes listener and heartbeat on.
func (e *Engine) hello(peer control.Peer, r *control.Request) (*control.Reply, error) {
	var failed error
	for i, f := range r.Files {
		if strings.HasPrefix(r.Names[i], control.HousePrefix) {
			if err := e.houses.adopt(r.Names[i], f, e.wantedHouses()); err != nil {
				failed = err
			}
			continue
		}
		if r.Names[i] != listenerName {
			failed = control.Errorf(control.CodeInvalid, "could not take a socket named %q", r.Names[i])
			_ = f.Close() // not ours to use
			continue
		}
		if err := e.adoptSocket(f); err != nil {
			failed = err
		}
	}
	if failed != nil {
		return nil, failed
	}
	f := e.socket.get()
	if f == nil {
		return nil, control.Errorf(control.CodeNotReady, "the listening port %d is held by a process that has not handed it back yet; dial again", e.port)
	}
	e.log.Info("proxy connected", "pid", peer.PID, "uid", peer.UID, "gave", len(r.Files))
	e.mu.RLock()
	defer e.mu.RUnlock()
	path, _ := e.seats.Path()
	w := control.Welcome{Helper: e.cfg.Version, Path: path, Ports: e.cfg.ports(), Delivery: e.cfg.Delivery, Local: e.visibleLocal()}
	listeners := append(e.houses.listeners(), control.Listener{Name: listenerName, File: f})
	return control.WelcomeReply(w, listeners, e.data.HeartbeatFile()), nil
}

func (e *Engine) mailPorts() []uint16 {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.cfg.ports()
}

// visibleLocal returns the local addresses that a forwarded packet could have as destination, as far as they fit.
func (e *Engine) visibleLocal() []netip.Addr {
	out := make([]netip.Addr, 0, min(len(e.local), control.MaxLocal))
	for _, p := range e.local {
		if p.IsSingleIP() && !p.Addr().IsLinkLocalUnicast() && len(out) < control.MaxLocal {
			out = append(out, p.Addr())
		}
	}
	return out
}

// lockExempt takes single addresses only, so that it can never become a way around every lock.
func (e *Engine) lockExempt(addrs []netip.Addr) error {
	var list []netip.Prefix
	for _, a := range addrs {
		if !plain(a) {
			return control.Errorf(control.CodeInvalid, "could not exempt %v from locks: not a unicast address", a)
		}
		list = append(list, netip.PrefixFrom(a, a.BitLen()))
	}
	_, err := e.data.ReplaceLockExempt(list)
	return err
}

func (e *Engine) userCounters() (*control.Reply, error) {
	all, err := e.data.UserCounters()
	if err != nil {
		return nil, err
	}
	rep := &control.Reply{Users: make([]control.UserCount, 0, len(all))}
	for user, n := range all {
		rep.Users = append(rep.Users, control.UserCount{User: user, Counts: map[string]uint64{
			"syn": n.SYN, "intercepted": n.Intercepted, "passed": n.Passed, "rejected": n.Rejected, "dropped": n.Dropped,
			"explained": n.Explained, "lock_reset": n.LockReset, "failed_open": n.FailedOpen, "failed_closed": n.FailedClosed,
			"spoofed": n.Spoofed, "unparsed": n.Unparsed, "lock_cut": n.LockCut, "syn_limited": n.SYNLimited,
		}})
	}
	return rep, nil
}

func (e *Engine) status() (*control.Reply, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	h, err := e.data.Heartbeat()
	if err != nil {
		return nil, err
	}
	st := &control.Status{
		Helper: e.cfg.Version, PID: os.Getpid(), Heartbeat: heartName(h), HeartbeatAgeMS: h.Age.Milliseconds(),
		Sources: e.inKernel, Locks: len(e.locks.live(time.Now())), Problems: slices.Concat(e.problems, e.unbound()),
		Bypasses: e.bypasses.live(time.Now()), Unguarded: e.unguarded(),
	}
	if st.Elsewhere, err = e.goneElsewhere(); err != nil {
		return nil, err
	}
	st.Path, st.PathReason = e.seats.Path()
	if _, none := e.quarters.get(); none != nil {
		st.PathReason += "; policy rules deliver to the proxy: " + none.Error()
	}
	if e.socket.get() != nil {
		st.Listeners = []string{listenerName}
	}
	for _, i := range e.ifaces {
		st.Interfaces = append(st.Interfaces, statusOf(i))
	}
	slices.SortFunc(st.Interfaces, func(a, b control.Interface) int {
		return cmp.Or(strings.Compare(b.Role, a.Role), strings.Compare(a.Name, b.Name))
	})
	fit(st)
	return &control.Reply{Status: st}, nil
}

// goneElsewhere tells whose connections have another way out, the latest first.
func (e *Engine) goneElsewhere() (out []control.Elsewhere, err error) {
	d, ok := e.data.(elsewhere)
	if !ok {
		return nil, nil
	}
	all, err := d.Elsewhere()
	slices.SortFunc(all, func(a, b bpf.Elsewhere) int { return b.Last.Compare(a.Last) })
	for _, x := range all[:min(len(all), control.MaxElsewhere)] {
		out = append(out, control.Elsewhere(x))
	}
	return out, err
}

// What of each list a status shows, so that it fits in one packet on a gateway with thousands of customer interfaces.
const (
	shownInterfaces = 150
	shownProblems   = 40
)

// fit shortens the lists, interfaces that have a problem first, and says so.
func fit(st *control.Status) {
	sick := func(i control.Interface) int {
		if i.Error != "" || i.Role == ruleset.Uplink {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(st.Interfaces, func(a, b control.Interface) int { return sick(a) - sick(b) })
	var cut []string
	st.Interfaces = shorten(st.Interfaces, shownInterfaces, "interfaces", &cut)
	st.Problems = append(shorten(slices.Clone(st.Problems), shownProblems, "problems", &cut), cut...)
}

func shorten[T any](list []T, most int, what string, cut *[]string) []T {
	if len(list) <= most {
		return list
	}
	*cut = append(*cut, fmt.Sprintf("%d more %s are not shown", len(list)-most, what))
	return list[:most]
}

func statusOf(i attach.Interface) control.Interface {
	kind := "ethernet"
	if i.Link.Raw {
		kind = "raw"
	}
	return control.Interface{Name: i.Link.Name, Index: i.Link.Index, Role: i.Role, Path: i.Path, Kind: kind, Error: i.Problem}
}

// heartName says in one word what the data path makes of the heartbeat.
func heartName(h bpf.Heartbeat) string {
	switch {
	case !h.Beaten:
		return "never"
	case h.Age <= time.Second:
		return "alive"
	case h.Restarting > 0:
		return "restarting"
	}
	return "stale"
}
