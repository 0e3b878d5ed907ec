package auth

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"time"
)

// ErrShut: too many wrong passwords came from the address; what it says is not looked at for a while.
var ErrShut = errors.New("too many wrong passwords from this address")

// Door lets in who knows a password, at a pace that makes guessing pointless. It is safe for concurrent use.
type Door struct {
	Checker *Checker
	Guard   *Guard
	Shut    func() // hears that one more address is shut out; may be nil
}

// Try tells whose login it is, after the wait that the address has earned. The error is ErrWrong, ErrShut or wraps
// ErrBusy.
func (d *Door) Try(ctx context.Context, from netip.Addr, login, password string) (Account, error) {
	login = strings.ToLower(strings.TrimSpace(login))
	done, err := d.Guard.Turn(ctx, from)
	if err != nil {
		return Account{}, errors.Join(ErrBusy, err)
	}
	defer done()
	wait, _, shut := d.Guard.Admit(from, login)
	if shut {
		return Account{}, ErrShut
	}
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return Account{}, errors.Join(ErrBusy, ctx.Err())
		}
	}
	a, err := d.Checker.Check(ctx, login, password)
	switch {
	case err == nil:
		d.Guard.Succeeded(from)
	case errors.Is(err, ErrWrong):
		if d.Guard.Failed(from, login, password) && d.Shut != nil {
			d.Shut()
		}
	}
	return a, err
}
