package nft

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"sluice/bpf"
	"sluice/intercept/control"
	"sluice/intercept/ruleset"
)

const (
	look      = 100 * time.Millisecond // how often the beat is looked at
	refresh   = time.Second            // how often a proxy that is alive is said to be
	beatAge   = time.Second            // a younger beat means that the proxy accepts
	wait      = 20 * time.Second       // so long a closed source waits for a proxy that is away
	grace     = 3 * time.Second        // so long the proxy is taken for alive when this process dies
	parting   = 15 * time.Second       // the same when it ends in order
	forgotten = "could not tell nftables whether the proxy is alive"
)

// pulse is what the kernel was told of the proxy.
type pulse struct {
	known bool
	alive bool
	until time.Time // of an announced restart
	at    time.Time
}

// newHeart makes the memory in which the proxy beats. It cannot change its size: a proxy that cut it short would kill
// whoever reads it.
func newHeart() (*os.File, *control.Heartbeat, error) {
	fd, err := unix.MemfdCreate("heartbeat", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, nil, fmt.Errorf("could not make the heartbeat: %w", err)
	}
	file := os.NewFile(uintptr(fd), "heartbeat")
	err = file.Truncate(int64(os.Getpagesize()))
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	}
	var beat *control.Heartbeat
	if err == nil {
		beat, err = control.OpenHeartbeat(file)
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("could not make the heartbeat: %w", err), file.Close())
	}
	return file, beat, nil
}

// HeartbeatFile is the memory in which the proxy beats, to be passed on. It is valid until Close.
func (f *Filter) HeartbeatFile() *os.File { return f.heart }

// UrgentFile is nil: locks are in force once they are in the table.
func (f *Filter) UrgentFile() *os.File { return nil }

// Heartbeat tells what the proxy says of itself.
func (f *Filter) Heartbeat() (bpf.Heartbeat, error) {
	beat, until := f.beat.Last()
	return heartbeat(beat, until, f.since, control.Monotonic()), nil
}

// heartbeat reads the two words as the BPF programs do: a beat from the future is a lie, and no restart is longer than a
// minute.
func heartbeat(beat, until, since, now uint64) bpf.Heartbeat {
	h := bpf.Heartbeat{Beaten: beat != 0}
	if beat == 0 || beat > now+uint64(beatAge) {
		beat = since
	}
	if beat < now {
		h.Age = time.Duration(now - beat)
	}
	if until > now && until <= beat+uint64(control.MaxRestart) {
		h.Restarting = time.Duration(until - now)
	}
	return h
}

// keep tells the kernel of the proxy's life, and brings back what others removed, until Close.
func (f *Filter) keep() {
	defer close(f.ended)
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		select {
		case <-f.stop:
			f.part()
			return
		case <-tick.C:
		}
		if err := f.mend(); err != nil {
			f.log.Error("the nftables table is not as desired; it is tried again", "error", err)
		}
	}
}

// mend looks once.
func (f *Filter) mend() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.wanted {
		return nil
	}
	gone, err := f.gone()
	if err != nil {
		return err
	}
	if gone || !f.live {
		if err := f.install(); err != nil {
			return fmt.Errorf("somebody removed the table: %w", err)
		}
		f.log.Error("somebody removed the nftables table; it is back", "table", ruleset.FilterTable)
	} else if now := time.Now(); !f.ending.IsZero() && now.After(f.ending) {
		if err := f.fill(endingParts, true, now); err != nil {
			return err
		}
	}
	return f.tell()
}

// gone tells whether the table is away. It costs one short question as long as nobody changes any rule.
func (f *Filter) gone() (bool, error) {
	id, err := generation()
	if err != nil || id == f.own {
		return false, err
	}
	stands, err := Stands()
	if err == nil && stands {
		f.own = id
	}
	return !stands, err
}

// remember notes that the last change of the rules was ours.
func (f *Filter) remember() (err error) {
	f.own, err = generation()
	return err
}

// tell says whether the proxy is alive, where that is news or about to be forgotten. It needs the lock.
func (f *Filter) tell() error {
	h, err := f.Heartbeat()
	if err != nil {
		return err
	}
	now := time.Now()
	if !h.Beaten && !f.pulse.known && h.Age > beatAge {
		return nil // an earlier process may have known more; what it said ends by itself
	}
	alive := h.Age <= beatAge
	var until time.Time
	if h.Restarting > 0 {
		until = now.Add(h.Restarting)
	}
	changed := alive != f.pulse.alive || until.IsZero() != f.pulse.until.IsZero() || until.Sub(f.pulse.until).Abs() > refresh
	if f.pulse.known && !changed && (!alive || now.Sub(f.pulse.at) < refresh) {
		return nil
	}
	b := newBatch()
	switch {
	case !until.IsZero():
		f.say(b, now, max(until.Sub(now), 0), max(until.Sub(now), wait))
	case alive && h.Beaten:
		f.say(b, now, grace, wait)
	case alive: // it is still to come
		f.say(b, now, beatAge, wait)
	case f.pulse.known:
		b.flush("alive")
	}
	if err := b.commit(); err != nil {
		return fmt.Errorf("%s: %w", forgotten, err)
	}
	f.pulse = pulse{known: true, alive: alive, until: until, at: now}
	return f.remember()
}

// say sets how long the proxy is taken for alive, and how long closed sources wait for it.
func (f *Filter) say(b *batch, now time.Time, alive, waits time.Duration) {
	for set, d := range map[string]time.Duration{"alive": alive, "waits": waits} {
		b.flush(set)
		b.add(set, []element{{key: tcp, until: now.Add(d)}}, now)
	}
}

// part lets the proxy live on in the kernel while this process is replaced.
func (f *Filter) part() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.live || !f.pulse.alive {
		return
	}
	b := newBatch()
	f.say(b, time.Now(), parting, parting+wait)
	if err := b.commit(); err != nil {
		f.log.Error(forgotten, "error", err)
	}
}
