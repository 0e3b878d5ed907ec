package resolver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// zone is a small DNS.
type zone struct {
	mx, host map[string][]string
	asked    atomic.Int32
	hang     chan struct{} // questions about "slow." wait for it
}

func (z *zone) find(m map[string][]string, name string) ([]string, error) {
	z.asked.Add(1)
	switch {
	case name == "slow.example.":
		<-z.hang
	case name == "broken.example.":
		return nil, &net.DNSError{Err: "server failure", Name: name, IsTemporary: true}
	}
	if v, ok := m[name]; ok {
		return v, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

func (z *zone) LookupTXT(_ context.Context, name string) ([]string, error) {
	return z.find(nil, name)
}
func (z *zone) LookupAddr(_ context.Context, addr string) ([]string, error) { return z.find(nil, addr) }
func (z *zone) LookupMX(_ context.Context, name string) (out []*net.MX, err error) {
	hosts, err := z.find(z.mx, name)
	for _, h := range hosts {
		out = append(out, &net.MX{Host: h})
	}
	return out, err
}
func (z *zone) LookupIPAddr(_ context.Context, name string) (out []net.IPAddr, err error) {
	as, err := z.find(z.host, name)
	for _, a := range as {
		out = append(out, net.IPAddr{IP: net.ParseIP(a)})
	}
	return out, err
}

func TestExchangers(t *testing.T) {
	t.Parallel()
	z := &zone{
		mx:   map[string][]string{"a.example.": {"mx1.a.example.", "mx2.a.example."}, "null.example.": {"."}, "xn--bcher-kva.example.": {"mx1.a.example."}},
		host: map[string][]string{"mx1.a.example.": {"192.0.2.1", "2001:db8::1"}, "nomx.example.": {"192.0.2.9"}},
	}
	r := New(Options{Backend: z})
	for domain, want := range map[string]string{
		"a.example": "[192.0.2.1 2001:db8::1]", "A.Example.": "[192.0.2.1 2001:db8::1]", "nomx.example": "[192.0.2.9]",
		"null.example": "[]", "none.example": "[]", "bücher.example": "[192.0.2.1 2001:db8::1]",
		"[192.0.2.77]": "[192.0.2.77]", "[IPv6:2001:db8::77]": "[2001:db8::77]", "[nonsense": "[]", "no host name": "[]",
	} {
		_, got, err := r.Exchangers(context.Background(), domain)
		if err != nil || fmt.Sprint(got) != want {
			t.Errorf("%s: %v, %v; want %s", domain, got, err, want)
		}
	}
	if _, _, err := r.Exchangers(context.Background(), "broken.example"); err == nil || NotFound(err) {
		t.Errorf("a server's failure came as %v: it must not look like a domain without mail", err)
	}
}

func TestOneQuestionForAll(t *testing.T) {
	t.Parallel()
	z := &zone{host: map[string][]string{"slow.example.": {"192.0.2.1"}}, hang: make(chan struct{})}
	r := New(Options{Backend: z})
	short, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	var d *net.DNSError
	if _, err := r.LookupIPAddr(short, "slow.example"); !errors.As(err, &d) || !d.IsTimeout {
		t.Errorf("no answer in time came as %v", err)
	}
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			as, err := r.LookupIPAddr(context.Background(), "Slow.example")
			if err != nil || len(as) != 1 || as[0].String() != "192.0.2.1" {
				t.Errorf("%v, %v", as, err)
			}
		})
	}
	close(z.hang)
	all.Wait()
	if n := z.asked.Load(); n != 1 {
		t.Errorf("the DNS was asked %d times", n)
	}
}

func TestForgets(t *testing.T) {
	t.Parallel()
	z := &zone{host: map[string][]string{"a.example.": {"192.0.2.1"}}}
	r := New(Options{Backend: z, Keep: time.Nanosecond, Most: 16})
	for range 2 {
		if _, err := r.LookupIPAddr(context.Background(), "a.example"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Microsecond) // its time passes
	}
	if n := z.asked.Load(); n != 2 {
		t.Errorf("an old answer was given: asked %d times", n)
	}
	for i := range 1000 {
		_, err := r.LookupTXT(context.Background(), fmt.Sprintf("n%d.example", i))
		if !NotFound(err) {
			t.Fatal(err)
		}
	}
	if n := len(r.known); n > 16 {
		t.Errorf("%d answers are remembered, want at most 16", n)
	}
	if !slices.Equal([]netip.Addr{netip.MustParseAddr("192.0.2.1")}, must(r.Exchangers(context.Background(), "a.example"))) || strings.HasSuffix(rooted("x."), "..") {
		t.Error("after forgetting it is asked again")
	}
}

func must(_ []string, as []netip.Addr, err error) []netip.Addr {
	if err != nil {
		panic(err)
	}
	return as
}

// TestRemembered: what is not at hand is not asked for, and nobody waits.
func TestRemembered(t *testing.T) {
	t.Parallel()
	z := &zone{host: map[string][]string{"a.example.": {"192.0.2.1"}}, hang: make(chan struct{})}
	r := New(Options{Backend: z})
	says := func(host string) string {
		has, known := r.Remembered(host)
		return fmt.Sprint(has, known)
	}
	hosts := map[string]string{"a.example": "true true", "A.Example.": "true true", "none.example": "false true", "broken.example": "false false"}
	for host := range hosts {
		if got := says(host); got != "false false" || z.asked.Load() != 0 {
			t.Errorf("%s before it was asked for: %s, %d questions", host, got, z.asked.Load())
		}
	}
	for host := range hosts {
		_, _ = r.LookupIPAddr(context.Background(), host)
	}
	for host, want := range hosts {
		if got := says(host); got != want {
			t.Errorf("%s: %s, want %s", host, got, want)
		}
	}
	over, cancel := context.WithCancel(context.Background())
	cancel()
	_, _ = r.LookupIPAddr(over, "slow.example")
	if got := says("slow.example"); got != "false false" {
		t.Errorf("while it is being asked: %s", got)
	}
	close(z.hang)
}
