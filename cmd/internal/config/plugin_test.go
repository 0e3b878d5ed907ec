package config

import (
	"strings"
	"testing"
)

const aPlugin = "[[plugin]]\nname = \"av\"\nkind = \"clamd\"\naddress = [\"unix:/run/clamav/clamd.ctl\", \"198.51.100.9:3310\"]\n"
const aList = "[[dnslist]]\nname = \"zen\"\nzone = \"Zen.dnslist.example.\"\nof = \"source\"\nrefuse = [\"127.0.0.2\"]\n"

// TestOpinionsAreRead: plug-ins and lists with what is usual for each.
func TestOpinionsAreRead(t *testing.T) {
	t.Parallel()
	c, err := Parse("e.toml", []byte(minimal+aPlugin+aList+strings.NewReplacer("zen", "dom", "Zen", "dom", "source", "link").Replace(aList)+
		"[content]\nfailure = \"go-on\"\n[[user]]\nname = \"a\"\nprefixes = [\"192.0.2.1\"]\n[[user]]\nname = \"b\"\nprefixes = [\"192.0.2.2\"]\ncontent = { failure = \"defer\" }\n"))
	if err != nil {
		t.Fatal(err)
	}
	if p := c.Plugin[0]; p.Failure != "defer" || p.Action != "refuse" || p.MaxSize != 25<<20 || p.Oversize != "begin" || len(p.Address) != 2 {
		t.Errorf("the plug-in is %+v", p)
	}
	if c, err := Parse("e.toml", []byte(minimal+strings.Replace(aPlugin, "clamd\"", "spamd\"", 1))); err != nil || c.Plugin[0].MaxSize != 512<<10 {
		t.Errorf("spamd is %+v, %v", c, err)
	}
	if l := c.DNSList[0]; l.Zone != "zen.dnslist.example" || l.Class != "policy" || l.Listed != "2.0.0.127" || l.Unlisted != "1.0.0.127" || l.Failure != "go-on" {
		t.Errorf("the list of sources is %+v", l)
	}
	if l := c.DNSList[1]; l.Class != "spam" || l.Listed != "test" || l.Unlisted != "invalid" {
		t.Errorf("the list of links is %+v", l)
	}
	if c.User[0].Content.Failure != "go-on" || c.User[1].Content.Failure != "defer" {
		t.Errorf("users have %q and %q", c.User[0].Content.Failure, c.User[1].Content.Failure)
	}
}

func TestWrongOpinionsAreRefused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, add, want string }{
		{"no port", strings.Replace(aPlugin, ":3310", "", 1), `plugin[0].address: "198.51.100.9" is no address with a port; write it like`},
		{"relative socket", strings.Replace(aPlugin, "unix:/", "unix:", 1), `plugin[0].address: "unix:run/clamav/clamd.ctl" names no socket`},
		{"name twice", aPlugin + aPlugin, `plugin[1].name: "av" stands there twice`},
		{"marks of a scanner", aPlugin + "marks = [\"X: y\"]", `plugin[0].marks: belongs to kind milter`},
		{"class of a scanner", aPlugin + "class = \"spam\"", `plugin[0].class: belongs to kind milter`},
		{"too patient", aPlugin + "timeout = \"31s\"", `plugin[0].timeout: 31s is longer than all checks together may take, 30s`},
		{"bad pattern", aPlugin + "trusted = [\"[\"]", `plugin[0].trusted: "[" is no pattern`},
		{"kind", strings.Replace(aPlugin, "clamd\"", "clam\"", 1), `plugin[0].kind: "clam" is not known; write one of clamd, rspamd, spamd, milter`},
		{"no meaning", strings.Replace(aList, "refuse = [\"127.0.0.2\"]\n", "", 1), `dnslist[0].refuse: nothing is said of what an answer means`},
		{"no answer of a list", strings.Replace(aList, "127.0.0.2", "192.0.2.1", 1), `dnslist[0].refuse: answers of lists are in 127.0.0.0/8`},
		{"every answer", strings.Replace(aList, "127.0.0.2", "0.0.0.0/0", 1), `dnslist[0].refuse: answers of lists are in 127.0.0.0/8`},
		{"no zone", strings.Replace(aList, "Zen.dnslist.example.", "zen", 1), `dnslist[0].zone: "zen" is not a domain`},
		{"networks of a link list", strings.Replace(aList, "source", "link", 1) + "exempt = [\"192.0.2.0/24\"]", `dnslist[0].exempt: belongs to lists of sources`},
		{"bad domain", strings.Replace(aList, "source", "link", 1) + "exempt_domains = [\"a b\"]", `dnslist[0].exempt_domains: "a b" is not a domain`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := Parse("e.toml", []byte(minimal+tt.add))
			if err == nil {
				t.Fatal("it was taken")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("told\n  %v\nwant\n  %s", err, tt.want)
			}
		})
	}
}
