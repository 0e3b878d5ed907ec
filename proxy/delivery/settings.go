package delivery

import (
	"slices"
	"strings"
	"time"
)

// Settings may be replaced while the queue runs. Zero fields mean the defaults.
type Settings struct {
	Schedule Schedule
	IPv4     bool // a host's IPv4 addresses before its IPv6 ones
	AtOnce   int  // sessions; 500
	Bounds        // of each site
	Sites    []Site
}

// Bounds are how much goes to one site.
type Bounds struct {
	PerSite int // sessions at once; 20
	PerWay  int // messages in one session; 100
	PerHour int // messages in any 60 minutes; 0: no bound
}

// Site has bounds of its own. The destinations that a Site names share them, whatever hosts they have.
type Site struct {
	Name       string   // unique
	Domains    []string // of recipients, in lower case; with a dot before it, every domain below
	Exchangers []string // names of mail exchangers, likewise; the first of a domain's counts
	Bounds              // zero fields: those of all
}

// Schedule says when a delivery is tried again.
type Schedule struct {
	First   time.Duration // between two tries at first; 15 min
	For     time.Duration // for how long so; 2 h
	Growth  float64       // by which the pause grows then each time; 1.5
	Most    time.Duration // its bound; 8 h
	Until   time.Duration // age at which the sender is told that it failed; 5 days
	Delayed time.Duration // age at which he is told that it takes long; 4 h
}

// pause is the time to wait after a number of tries, the first of which was just made when it is 1.
func (s *Schedule) pause(tries int) time.Duration {
	at := time.Duration(0) // when it was tried last, had each pause been exact
	p := s.First
	for range tries - 1 {
		if at += p; at >= s.For {
			p = min(time.Duration(float64(p)*s.Growth), s.Most)
		}
		if p == s.Most {
			break
		}
	}
	return p
}

func (s *Settings) fill() {
	or(&s.Schedule.First, 15*time.Minute)
	or(&s.Schedule.For, 2*time.Hour)
	or(&s.Schedule.Growth, 1.5)
	or(&s.Schedule.Most, 8*time.Hour)
	or(&s.Schedule.Until, 5*24*time.Hour)
	or(&s.Schedule.Delayed, 4*time.Hour)
	or(&s.AtOnce, 500)
	or(&s.PerSite, 20)
	or(&s.PerWay, 100)
	s.Sites = slices.Clone(s.Sites)
	for i := range s.Sites {
		b := &s.Sites[i].Bounds
		or(&b.PerSite, s.PerSite)
		or(&b.PerWay, s.PerWay)
		or(&b.PerHour, s.PerHour)
	}
}

// siteOf finds the site to which a domain's mail goes by these settings, given the name of its best exchanger.
func (s *Settings) siteOf(domain, host string) (name string, b Bounds) {
	for i := range s.Sites {
		one := &s.Sites[i]
		if named(one.Domains, domain) || named(one.Exchangers, host) {
			return one.Name + " (set)", one.Bounds // no host has such a name
		}
	}
	return host, s.Bounds
}

// named tells whether a list has a name, or with a dot before it what the name is below of.
func named(list []string, name string) bool {
	for _, one := range list {
		if one == name || strings.HasPrefix(one, ".") && strings.HasSuffix(name, one) {
			return true
		}
	}
	return false
}

// Configure puts other settings in force: for each delivery that is tried from now on, and for the sessions that open. What
// is under way goes on.
func (q *Queue) Configure(s Settings) {
	s.fill()
	q.set.Store(&s)
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, l := range q.lanes {
		if l.site != nil {
			q.move(l, l.host)
		}
	}
	q.stir()
}
