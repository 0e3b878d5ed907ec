package auth

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// book is a directory.
type book map[string]Account

func (b book) Login(name string) (Account, bool) { a, ok := b[name]; return a, ok }

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestPasswords(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "short", strings.Repeat("x", MostPassword+1), "with\x00nul-in-it"} {
		if _, err := Hash(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	h := must[string](t)(Hash("correct horse"))
	if again := must[string](t)(Hash("correct horse")); again == h || !strings.HasPrefix(h, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Errorf("hashes %q and %q", h, again)
	}
	for password, want := range map[string]bool{"correct horse": true, "Correct horse": false, "correct horse ": false} {
		if ok, err := verify(h, password); ok != want || err != nil {
			t.Errorf("%q: %t, %v", password, ok, err)
		}
	}
	for _, damaged := range []string{"", "x", "$argon2id$v=19$m=99999999,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA",
		"$argon2i$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA", h[:len(h)-40], strings.Replace(h, "t=2", "t=0", 1)} {
		if _, err := parseHash(damaged); err == nil {
			t.Errorf("the damaged hash %q is understood", damaged)
		}
	}
}

func TestNewPasswordsDiffer(t *testing.T) {
	t.Parallel()
	a, b := NewPassword(), NewPassword()
	if a == b || len(a) != 20 || strings.ContainsAny(a+b, "lIO01") {
		t.Errorf("%q, %q", a, b)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	dir := book{
		"customer.example":       {Login: "customer.example", Kind: Domain, User: 7, Hash: must[string](t)(Hash("the domain's own"))},
		"alice@customer.example": {Login: "alice@customer.example", Kind: Mailbox, User: 7, Hash: must[string](t)(Hash("alice's secret"))},
		"damaged.example":        {Login: "damaged.example", Hash: "$argon2id$"},
	}
	c := must[*Checker](t)(NewChecker(dir))
	ctx := context.Background()
	for range 2 { // the second time from memory
		for _, tc := range []struct {
			login, password string
			want            error
		}{
			{"customer.example", "the domain's own", nil},
			{" Customer.EXAMPLE", "the domain's own", nil},
			{"alice@customer.example", "alice's secret", nil},
			{"alice@customer.example", "the domain's own", ErrWrong},
			{"alice@customer.example", "", ErrWrong},
			{"", "alice's secret", ErrWrong},
			{"nobody.example", "the domain's own", ErrWrong},
			{"damaged.example", "whatever it is", ErrBusy},
		} {
			a, err := c.Check(ctx, tc.login, tc.password)
			if !errors.Is(err, tc.want) || tc.want == nil && (err != nil || a.User != 7) {
				t.Errorf("%q with %q: %+v, %v; want %v", tc.login, tc.password, a, err, tc.want)
			}
		}
	}
}

func TestCheckedAnewWhenSomethingChanged(t *testing.T) {
	t.Parallel()
	dir := book{"customer.example": {Login: "customer.example", Hash: must[string](t)(Hash("first password"))}}
	c := must[*Checker](t)(NewChecker(dir))
	now := time.Now()
	c.now = func() time.Time { return now }
	ctx := context.Background()
	must[Account](t)(c.Check(ctx, "customer.example", "first password"))
	if _, err := c.Check(ctx, "customer.example", "a stranger's guess"); !errors.Is(err, ErrWrong) {
		t.Error(err)
	}
	for range cap(c.turns) {
		c.turns <- struct{}{} // nobody may hash
	}
	must[Account](t)(c.Check(ctx, "customer.example", "first password")) // still remembered
	gone, cancel := context.WithCancel(ctx)
	cancel()
	now = now.Add(goodTime + time.Second)
	if _, err := c.Check(gone, "customer.example", "first password"); !errors.Is(err, ErrBusy) {
		t.Errorf("after ten minutes: %v, want it hashed anew", err)
	}
	for range cap(c.turns) {
		<-c.turns
	}
	must[Account](t)(c.Check(ctx, "customer.example", "first password"))
	dir["customer.example"] = Account{Login: "customer.example", Hash: must[string](t)(Hash("second password"))}
	if _, err := c.Check(ctx, "customer.example", "first password"); !errors.Is(err, ErrWrong) {
		t.Errorf("the old password: %v", err)
	}
	must[Account](t)(c.Check(ctx, "customer.example", "second password"))
}

func TestDialogues(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, mechanism string
		says            []string // "-" is no initial response
		asks            []string
		want            string
		bad             bool
	}{
		{"plain at once", "PLAIN", []string{"\x00alice\x00secret"}, nil, "alice/secret", false},
		{"plain, its own identity", "PLAIN", []string{"alice\x00alice\x00secret"}, nil, "alice/secret", false},
		{"plain, asked", "PLAIN", []string{"-", "\x00alice\x00secret"}, []string{""}, "alice/secret", false},
		{"plain for somebody else", "PLAIN", []string{"bob\x00alice\x00secret"}, nil, "", true},
		{"plain without parts", "PLAIN", []string{"alice"}, nil, "", true},
		{"login", "LOGIN", []string{"-", "alice", "secret"}, []string{"Username:", "Password:"}, "alice/secret", false},
		{"login with its name", "LOGIN", []string{"alice", "secret"}, []string{"Password:"}, "alice/secret", false},
		{"login refused", "LOGIN", []string{"alice", "wrong"}, []string{"Password:"}, "alice/wrong", true},
	} {
		got := ""
		s := Server(tc.mechanism, func(login, password string) error {
			got = login + "/" + password
			if password == "wrong" {
				return ErrWrong
			}
			return nil
		})
		var asked []string
		var done bool
		var err error
		for _, say := range tc.says {
			response := []byte(say)
			if say == "-" {
				response = nil
			}
			var challenge []byte
			if challenge, done, err = s.Next(response); done || err != nil {
				break
			}
			asked = append(asked, string(challenge))
		}
		if got != tc.want || strings.Join(asked, "|") != strings.Join(tc.asks, "|") || (err != nil) != tc.bad || err == nil && !done {
			t.Errorf("%s: checked %q, asked %q, done %t, %v", tc.name, got, asked, done, err)
		}
	}
	if Server("CRAM-MD5", nil) != nil {
		t.Error("CRAM-MD5 is known")
	}
}

// clockedGuard is one whose time stands still.
func clockedGuard() (*Guard, *time.Time) {
	g, now := NewGuard(), time.Now()
	g.now = func() time.Time { return now }
	return g, &now
}

func TestGuessersWaitAndAreShutOut(t *testing.T) {
	t.Parallel()
	g, now := clockedGuard()
	bad, near, far := netip.MustParseAddr("192.0.2.66"), netip.MustParseAddr("192.0.2.67"), netip.MustParseAddr("2001:db8:1:2::3")
	var waits []time.Duration
	for i := range shutAfter {
		wait, _, shut := g.Admit(bad, "alice")
		if shut {
			t.Fatalf("shut out after %d", i)
		}
		waits = append(waits, wait)
		if shut = g.Failed(bad, "alice", strings.Repeat("x", i+1)); shut != (i == shutAfter-1) {
			t.Errorf("guess %d: shut out %t", i+1, shut)
		}
	}
	for i, want := range []time.Duration{0, 0, 0, 1, 2, 4, 8, 16, 16, 16} {
		if waits[i] != want*time.Second {
			t.Errorf("attempt %d waits %v, want %v s", i+1, waits[i], int(want))
		}
	}
	if _, until, shut := g.Admit(bad, "bob"); !shut || until != now.Add(shutFirst) {
		t.Errorf("%t until %v", shut, until)
	}
	for _, other := range []netip.Addr{near, far} {
		if wait, _, shut := g.Admit(other, "alice"); shut || wait != 0 {
			t.Errorf("%v pays for it: %v, %t", other, wait, shut)
		}
	}
	if l := g.List(); len(l) != 1 || l[0].Place.String() != "192.0.2.66/32" || l[0].Login != "alice" || l[0].Times != 1 {
		t.Errorf("the list is %+v", l)
	}
	*now = now.Add(shutFirst)
	if _, _, shut := g.Admit(bad, "alice"); shut {
		t.Error("it does not end")
	}
	for i := range shutAfter {
		g.Failed(bad, "alice", strings.Repeat("y", i+1))
	}
	if _, until, _ := g.Admit(bad, "alice"); until != now.Add(2*shutFirst) {
		t.Errorf("the second time until %v", until)
	}
	if !g.Forgive(bad) || g.Forgive(bad) {
		t.Error("not forgiven, or twice")
	}
	if _, _, shut := g.Admit(bad, "alice"); shut || len(g.List()) != 0 {
		t.Error("still shut out")
	}
}

func TestANetworkOfIPv6IsOnePlace(t *testing.T) {
	t.Parallel()
	g, _ := clockedGuard()
	a := netip.MustParseAddr("2001:db8:1:2::1")
	for i := range shutAfter {
		g.Failed(a, "alice", strings.Repeat("x", i+1))
		a = a.Next()
	}
	if _, _, shut := g.Admit(netip.MustParseAddr("2001:db8:1:2:ffff::1"), "alice"); !shut {
		t.Error("the next address of the /64 may go on")
	}
	if _, _, shut := g.Admit(netip.MustParseAddr("::ffff:192.0.2.1"), "alice"); shut {
		t.Error("an IPv4 address pays for it")
	}
}

func TestAnOutdatedPasswordIsNoGuess(t *testing.T) {
	t.Parallel()
	g, _ := clockedGuard()
	a := netip.MustParseAddr("192.0.2.1")
	for range 1000 {
		if g.Failed(a, "alice", "last year's") {
			t.Fatal("shut out")
		}
	}
	if wait, _, _ := g.Admit(a, "alice"); wait != 0 {
		t.Errorf("waits %v", wait)
	}
}

func TestGoodCustomersAreNeverShutOut(t *testing.T) {
	t.Parallel()
	g, now := clockedGuard()
	office := netip.MustParseAddr("192.0.2.1")
	for range goodLogins {
		g.Succeeded(office)
		*now = now.Add(time.Hour)
	}
	for i := range 3 * shutAfter {
		if g.Failed(office, "alice", strings.Repeat("x", i+1)) {
			t.Fatalf("shut out after %d", i+1)
		}
	}
	if wait, _, shut := g.Admit(office, "alice"); shut || wait != slowMost {
		t.Errorf("waits %v, shut out %t", wait, shut)
	}
	if l := g.List(); len(l) != 1 || !l[0].Exempt {
		t.Errorf("the list is %+v", l)
	}
	*now = now.Add(goodMemory)
	for i := range shutAfter {
		g.Failed(office, "alice", strings.Repeat("y", i+1))
	}
	if _, _, shut := g.Admit(office, "alice"); !shut {
		t.Error("good logins a week ago still count")
	}
}

func TestALoginThatManyGuessAt(t *testing.T) {
	t.Parallel()
	g, _ := clockedGuard()
	home := netip.MustParseAddr("198.51.100.1")
	for range goodLogins {
		g.Succeeded(home)
	}
	a := netip.MustParseAddr("192.0.2.0")
	for range loginAfter {
		g.Failed(a, "alice", "123456")
		a = a.Next()
	}
	if wait, _, shut := g.Admit(a, "alice"); wait != loginWait || shut {
		t.Errorf("a stranger waits %v, shut out %t", wait, shut)
	}
	if wait, _, _ := g.Admit(a, "bob"); wait != 0 {
		t.Errorf("for another login %v", wait)
	}
	if wait, _, _ := g.Admit(home, "alice"); wait != 0 {
		t.Errorf("at home %v", wait)
	}
}

func TestWhoIsShutOutStaysSoOverARestart(t *testing.T) {
	t.Parallel()
	g, now := clockedGuard()
	a := netip.MustParseAddr("192.0.2.1")
	for i := range shutAfter {
		g.Failed(a, "alice", strings.Repeat("x", i+1))
	}
	next, _ := clockedGuard()
	next.now = func() time.Time { return *now }
	next.Restore(append(g.List(), Offender{}))
	if _, until, shut := next.Admit(a, "alice"); !shut || until != now.Add(shutFirst) {
		t.Errorf("%t until %v", shut, until)
	}
}

func TestTheGuardsMemoryIsBounded(t *testing.T) {
	t.Parallel()
	g, _ := clockedGuard()
	a := netip.MustParseAddr("192.0.2.1")
	for i := range shutAfter {
		g.Failed(a, "alice", strings.Repeat("x", i+1))
	}
	b := netip.MustParseAddr("198.18.0.0")
	for range placesRoom + 1000 {
		g.Failed(b, b.String(), "123456")
		b = b.Next()
	}
	if len(g.places) > placesRoom || len(g.logins) > loginsRoom {
		t.Errorf("%d places, %d logins", len(g.places), len(g.logins))
	}
	if _, _, shut := g.Admit(a, "alice"); !shut {
		t.Error("a flood of strangers opened the door again")
	}
}

// TestGuessesInParallelWaitInTurn: whoever opens many connections at once gains nothing.
func TestGuessesInParallelWaitInTurn(t *testing.T) {
	t.Parallel()
	g := NewGuard()
	from := netip.MustParseAddr("192.0.2.7")
	done := must[func()](t)(g.Turn(t.Context(), from))
	ctx, stop := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() { _, err := g.Turn(ctx, from); failed <- err }()
	other := must[func()](t)(g.Turn(t.Context(), netip.MustParseAddr("192.0.2.8")))
	other()
	stop()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("a second one at once: %v", err)
	}
	second := make(chan func())
	go func() {
		d, err := g.Turn(t.Context(), from)
		if err != nil {
			t.Error(err)
		}
		second <- d
	}()
	done()
	(<-second)()
	if len(g.turns) != 0 {
		t.Errorf("%d turns are left", len(g.turns))
	}
	for range goodLogins {
		g.Succeeded(from)
	}
	for range 3 { // of those none waits for another
		must[func()](t)(g.Turn(t.Context(), from))
	}
}

func TestWhenAnAddressIsShutOutCanBeSet(t *testing.T) {
	t.Parallel()
	g := NewGuard()
	g.ShutAfter(4)
	from := netip.MustParseAddr("192.0.2.7")
	for i := range 4 {
		if shut := g.Failed(from, "customer.example", fmt.Sprint(i)); shut != (i == 3) {
			t.Errorf("guess %d: shut %t", i, shut)
		}
	}
}
