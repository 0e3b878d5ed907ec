package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"time"
)

// Bounds of what is remembered of good logins.
const (
	goodTime = 10 * time.Minute
	goodRoom = 1 << 15 // logins; about 150 bytes each
)

// Checker checks logins. A password that was right stays so for ten minutes without being hashed anew, unless it changed:
// mail programs log in for every message. It is safe for concurrent use.
type Checker struct {
	dir   Directory
	now   func() time.Time
	turns chan struct{} // how many passwords may be hashed at once: each takes memory and a processor
	key   [32]byte
	dummy string
	mu    sync.Mutex
	good  map[string]good
}

// good is a password that was right: a keyed hash of it and of what it was checked against.
type good struct {
	mac   [sha256.Size]byte
	until time.Time
}

// NewChecker makes a checker of the logins in dir.
func NewChecker(dir Directory) (*Checker, error) {
	c := &Checker{dir: dir, now: time.Now, good: make(map[string]good), turns: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))}
	if _, err := rand.Read(c.key[:]); err != nil {
		return nil, err
	}
	var err error
	c.dummy, err = Hash(fmt.Sprintf("%x", c.key)) // whom nobody knows takes as long as who is known
	return c, err
}

// Check tells whose login it is. The error is ErrWrong, or wraps ErrBusy where ctx ended, the stored hash is damaged or
// the customer's own server did not say.
func (c *Checker) Check(ctx context.Context, login, password string) (Account, error) {
	login = strings.ToLower(strings.TrimSpace(login))
	if login == "" || password == "" || len(password) > MostPassword {
		return Account{}, ErrWrong
	}
	a, known := c.dir.Login(login)
	hash := a.Hash
	known = known && (hash != "" || a.Own != nil) // else it has no password yet
	if !known {
		hash = c.dummy
	}
	mac := c.mac(&a, password)
	if known && c.remembered(login, mac) {
		return a, nil
	}
	ok, err := c.ask(ctx, a.Own, hash, login, password)
	switch {
	case err != nil:
		return Account{}, fmt.Errorf("%w: %w", ErrBusy, err)
	case !ok || !known:
		c.forget(login, mac)
		return Account{}, ErrWrong
	}
	c.remember(login, mac)
	return a, nil
}

// ask asks the customer's server or hashes, when it is its turn.
func (c *Checker) ask(ctx context.Context, own *Own, hash, login, password string) (bool, error) {
	if own != nil {
		return own.check(ctx, login, password)
	}
	select {
	case c.turns <- struct{}{}:
		defer func() { <-c.turns }()
		return verify(hash, password)
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

func (c *Checker) mac(a *Account, password string) (sum [sha256.Size]byte) {
	h := hmac.New(sha256.New, c.key[:])
	for _, s := range []string{a.Login, "\x00", a.Hash, "\x00", a.Own.String(), "\x00", password} {
		h.Write([]byte(s))
	}
	h.Sum(sum[:0])
	return sum
}

func (c *Checker) remembered(login string, mac [sha256.Size]byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	g, ok := c.good[login]
	return ok && c.now().Before(g.until) && hmac.Equal(g.mac[:], mac[:])
}

func (c *Checker) remember(login string, mac [sha256.Size]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.good[login]; !ok && len(c.good) >= goodRoom {
		for old := range c.good { // map order is as good as random
			delete(c.good, old)
			break
		}
	}
	c.good[login] = good{mac, c.now().Add(goodTime)}
}

// forget takes back what was remembered where that same password is wrong now. Somebody else's wrong guess takes nothing
// from a good client.
func (c *Checker) forget(login string, mac [sha256.Size]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if g, ok := c.good[login]; ok && hmac.Equal(g.mac[:], mac[:]) {
		delete(c.good, login)
	}
}
