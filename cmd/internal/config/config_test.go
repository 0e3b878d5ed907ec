package config

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

const minimal = `[gateway]
name = "gw1.provider.example"
[intercept]
customer_interfaces = ["cust*"]
uplinks = ["up0"]
`

func TestMinimalFileHasDefaults(t *testing.T) {
	t.Parallel()
	c, err := Parse("min.toml", []byte(minimal))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, got, want any }{
		{"ports", c.Intercept.Ports, []uint16{25}},
		{"mark", c.Intercept.Mark, uint32(0x02000000)},
		{"default_fail", c.Intercept.DefaultFail, "open"},
		{"reverse_path", c.Intercept.ReversePath, true},
		{"messages_per_hour", c.Limits.MessagesPerHour, 500},
		{"message_size", c.Limits.MessageSize, Size(50 << 20)},
		{"lock.time", c.Lock.Time.D(), time.Hour},
		{"lock.automatic", c.Lock.Automatic, false},
		{"spam_share", c.Lock.SpamShare, 0.2},
		{"retention", c.Log.Retention.D(), 35 * 24 * time.Hour},
	} {
		if !reflect.DeepEqual(tt.got, tt.want) {
			t.Errorf("%s = %v, want %v", tt.name, tt.got, tt.want)
		}
	}
}

func TestUsersInherit(t *testing.T) {
	t.Parallel()
	c, err := Parse("u.toml", []byte(minimal+`default_mode = "reject"
[lock]
spam_count = 9
[limits]
recipients_per_hour = 0
[[user]]
name = "alice"
prefixes = ["192.0.2.7", "2001:db8::/48"]
mode = "intercept"
limits.messages_per_hour = 7
[user.lock]
automatic = true
[[user]]
name = "bob"
prefixes = ["192.0.2.8/32"]
[user.limits]
recipients_per_hour = 5
`))
	if err != nil {
		t.Fatal(err)
	}
	a, b := c.User[0], c.User[1]
	if a.Prefixes[0].String() != "192.0.2.7/32" {
		t.Errorf("a single address became %v", a.Prefixes[0])
	}
	if a.Mode != "intercept" || b.Mode != "reject" || a.Fail != "open" || a.Delivery != "auto" {
		t.Errorf("modes %q %q, fail %q, delivery %q", a.Mode, b.Mode, a.Fail, a.Delivery)
	}
	if !a.Lock.Automatic || b.Lock.Automatic || a.Lock.SpamCount != 9 || b.Lock.SpamCount != 9 {
		t.Errorf("locks %+v %+v", a.Lock, b.Lock)
	}
	if a.Limits.MessagesPerHour != 7 || b.Limits.MessagesPerHour != 500 || a.Limits.RecipientsPerHour != 0 || b.Limits.RecipientsPerHour != 5 {
		t.Errorf("limits %+v %+v", a.Limits, b.Limits)
	}
}

// TestErrors: each mistake is told with file, line, key and remedy.
func TestErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, add, want string }{
		{"misspelt key", "[lock]\ntmie = \"1h\"", `e.toml:7: lock.tmie: there is no such key; did you mean "time"?`},
		{"a word of a key", "[smtp]\nmax_sessions = 3", `e.toml:7: smtp.max_sessions: there is no such key; did you mean "sessions"?`},
		{"a word of several keys", "[smtp]\nwhole_timeout = 3", `e.toml:7: smtp.whole_timeout: there is no such key; known here: bare_newline, `},
		{"unknown key", "[tls]\ncolour = 1", `e.toml:7: tls.colour: there is no such key; known here: starttls, starttls_reason, refused, `},
		{"unknown table", "[locks]\ntime = 1", `e.toml:6: locks: there is no such table; did you mean "lock"?`},
		{"wrong type", "[lock]\nspam_count = \"5\"", `e.toml:7: lock.spam_count: a string cannot stand here; write a whole number, without quotes`},
		{"bare time", "[lock]\ntime = 60", `e.toml:7: lock.time: an integer cannot stand here; write a time span in quotes`},
		{"bad time", "[lock]\ntime = \"1 week\"", `e.toml:7: lock.time: "1 week" is not a time span; write it like "90s", "60m", "1h30m" or "35d"`},
		{"too long", "[lock]\ntime = \"8d\"", `e.toml:7: lock.time: 8d is too much; give at most 7d`},
		{"bad size", "[limits]\nmessage_size = \"50 MB\"", `e.toml:7: limits.message_size: "50 MB" is not a size; write it like "64KiB", "50MiB" or "1GiB"`},
		{"bad mode", "default_mode = \"block\"", `e.toml:6: intercept.default_mode: "block" is not known; write one of intercept, shadow, observe, pass, reject, drop`},
		{"submission opened", "[[intercept.port]]\nport = 587", `e.toml:6: intercept.port[0].mode: port 587 is submission to third parties, which is never opened; write mode = "pass" or mode = "reject"`},
		{"port 25 again", "[[intercept.port]]\nport = 25\nmode = \"reject\"", `e.toml:7: intercept.port[0].port: port 25 is a mail port on every customer interface`},
		{"port twice", "ports = [25, 2525]\n[[intercept.port]]\nport = 2525", `e.toml:8: intercept.port[0].port: port 2525 has a rule for these interfaces already`},
		{"port's mode", "[[intercept.port]]\nport = 2525\nmode = \"drop\"", `e.toml:8: intercept.port[0].mode: "drop" is not known; write one of intercept, pass, reject`},
		{"port's pattern", "[[intercept.port]]\nport = 2525\ninterfaces = [\"*\"]", `e.toml:8: intercept.port[0].interfaces: "*" matches every interface`},
		{"too many ports", "ports = [25, 1, 2, 3, 4, 5, 6, 7, 8]\n[[intercept.port]]\nport = 9", `e.toml:3: intercept.port: 9 mail ports beside 25 are more than the 8 that there is room for`},
		{"bound to nothing", "[[user]]\nname = \"a\"\nprefixes = [\"192.0.2.0/24\"]\n[[user.bind]]\n", `e.toml:9: user[0].bind[0]: binds to nothing; give interface, mac, or both`},
		{"bound to a pattern", "[[user]]\nname = \"a\"\nprefixes = [\"192.0.2.0/24\"]\n[[user.bind]]\ninterface = \"cust*\"", `e.toml:10: user[0].bind[0].interface: "cust*" is not the name of one interface`},
		{"no MAC", "[[user]]\nname = \"a\"\nprefixes = [\"192.0.2.0/24\"]\n[[user.bind]]\nmac = \"02:00\"", `e.toml:10: user[0].bind[0].mac: "02:00" is not the Ethernet address of one device`},
		{"group MAC", "[[user]]\nname = \"a\"\nprefixes = [\"192.0.2.0/24\"]\n[[user.bind]]\nmac = \"ff:ff:ff:ff:ff:ff\"", `e.toml:10: user[0].bind[0].mac: "ff:ff:ff:ff:ff:ff" is not the Ethernet address of one device`},
		{"bind of a stranger", "[[user]]\nname = \"a\"\nprefixes = [\"192.0.2.0/24\"]\n[[user.bind]]\nmac = \"02:00:00:00:00:01\"\nprefix = \"192.0.2.1\"", `e.toml:11: user[0].bind[0].prefix: 192.0.2.1/32 is none of the user's prefixes`},
		{"bound twice", "[[user]]\nname = \"a\"\nprefixes = [\"192.0.2.0/24\"]\n[[user.bind]]\ninterface = \"a\"\n[[user.bind]]\ninterface = \"b\"", `e.toml:11: user[0].bind[1].prefix: is bound twice`},
		{"streaming too early", "[delivery]\nstream = \"64KiB\"", `e.toml:7: delivery.stream: 64KiB is too little to judge a message by; give 1MiB or more, or 0B for none`},
		{"negative", "[limits]\nmessages_per_hour = -1", `e.toml:7: limits.messages_per_hour: -1 is too little; give at least 0`},
		{"host bits", "runtime_loosen = [\n  \"192.0.2.0/24\",\n  \"192.0.2.1/24\"]", `e.toml:8: intercept.runtime_loosen: "192.0.2.1/24" has bits set behind its length; write 192.0.2.0/24 or the single address 192.0.2.1`},
		{"no list", "ports = 25", `e.toml:6: intercept.ports: is a list; write it in brackets: [25]`},
		{"submission", "ports = [25, 587]", `e.toml:6: intercept.ports: port 587 cannot be intercepted; only ports where mail servers speak plain SMTP to each other: 25, 2525`},
		{"shadow on another port", "ports = [25, 2525]\n[[user]]\nname = \"x\"\nprefixes = [\"192.0.2.1\"]\nmode = \"shadow\"", `e.toml:10: user[0].mode: shadow goes on to port 25 only, and intercept.ports has others; write ports = [25], or another mode`},
		{"port range", "ports = [70000]", `e.toml:6: intercept.ports: 70000 is out of range; give a whole number from 0 to 65535`},
		{"two bits", "mark = 0x3", `e.toml:6: intercept.mark: 0x3 is not exactly one bit; choose one that nothing else on this host uses, like 0x02000000`},
		{"single table", "[user]\nname = \"x\"", `e.toml:6: user: one [user] cannot stand here; write [[user]], once for each user`},
		{"double table", "[[lock]]\ntime = \"1h\"", `e.toml:6: lock: there is only one such table; write [lock]`},
		{"missing in list", "[[user]]\nname = \"x\"", `e.toml:6: user[0].prefixes: is missing; add prefixes = …: Source prefixes and addresses; the longest match over all users wins.`},
		{"name twice", "[[user]]\nname = \"x\"\nprefixes = [\"192.0.2.1\"]\n[[user]]\nname = \"x\"\nprefixes = [\"192.0.2.2\"]", `e.toml:10: user[1].name: "x" stands on line 7 already; give each user a name of his own`},
		{"prefix twice", "[[user]]\nname = \"x\"\nprefixes = [\"192.0.2.1\"]\n[[user]]\nname = \"y\"\nprefixes = [\"192.0.2.1/32\"]", `e.toml:11: user[1].prefixes: 192.0.2.1/32 belongs to user "x" already; an address has one user; narrow one of the two`},
		{"made name", "[[user]]\nname = \"192.0.2.1/32\"\nprefixes = [\"192.0.2.1\"]", `e.toml:7: user[0].name: "192.0.2.1/32" cannot be a name`},
		{"thresholds", "[content]\nunsure = 0.99", `e.toml:7: content.unsure: 0.99 is above the threshold of spam, 0.98; lower it, or raise content.spam`},
		{"no address", "[delivery]\nmode = \"managed\"", `e.toml:7: delivery.mode: "managed" needs a delivery address with weight; add [[delivery.address]], or write mode = "own"`},
		{"a pool of strangers", "[[delivery.address]]\naddress = \"203.0.113.40\"\nhelo = \"out.example.com\"\n[[delivery.pool]]\nname = \"x\"\nclass = \"bounce\"\naddresses = [\"203.0.113.41\"]", `e.toml:12: delivery.pool[0].addresses: 203.0.113.41 is no delivery address with weight`},
		{"a pool for nobody", "[[delivery.address]]\naddress = \"203.0.113.40\"\nhelo = \"out.example.com\"\n[[delivery.pool]]\nname = \"x\"\naddresses = [\"203.0.113.40\"]", `e.toml:9: delivery.pool[0]: is used by nobody`},
		{"a pool of nothing", "[[delivery.pool]]\nname = \"x\"\nusers = [\"alice\"]", `e.toml:6: delivery.pool[0]: has not exactly one of addresses and own = true`},
		{"a list without sense", "[[delivery.list]]\nzone = \"bl.example\"\ncodes = [\"127.0.0.9-127.0.0.2\"]", `e.toml:8: delivery.list[0].codes: "127.0.0.9-127.0.0.2" ends before it begins`},
		{"bad address", "[[delivery.address]]\naddress = \"out1\"\nhelo = \"out.example.com\"", `e.toml:7: delivery.address[0].address: "out1" is not an address; write it like "192.0.2.7" or "2001:db8::7"`},
		{"bare helo", "[[delivery.address]]\naddress = \"192.0.2.1\"\nhelo = \"out\"", `e.toml:8: delivery.address[0].helo: "out" is not a fully qualified host name`},
		{"half a pair", "[tls]\ncertificate = \"/a.pem\"", `e.toml:7: tls.certificate: certificate and key belong together`},
		{"half an account", "[tls.acme]\nlisten = [\"192.0.2.1:80\"]\nnames = [\"smtp.example.com\"]\nagree = true\naccount = \"provider-1\"", `e.toml:10: tls.acme.account: account and account_key_file belong together`},
		{"strip by accident", "[tls]\nstarttls = \"strip\"", `e.toml:7: tls.starttls: takes encryption from clients who ask for it; say why: starttls_reason = "…", or write "terminate"`},
		{"strip of a user", "[[user]]\nname = \"a\"\nprefixes = [\"192.0.2.0/24\"]\nstarttls = \"strip\"", `e.toml:9: user[0].starttls: takes encryption`},
		{"strip of a destination", "[[tls.destination]]\nprefix = \"198.51.100.7\"\nstarttls = \"strip\"", `e.toml:6: tls.destination[0].reason: is missing`},
		{"ca of everything", "[tls]\nca_domains = [\"example\"]", `e.toml:7: tls.ca_domains: "example" is not a domain`},
		{"policy's name", "[tls]\nstarttls = \"offer\"", `e.toml:7: tls.starttls: "offer" is not known; write one of terminate, pass, strip`},
		{"destination twice", "[[tls.destination]]\nprefix = \"198.51.100.7\"\nstarttls = \"pass\"\nreason = \"x\"\n[[tls.destination]]\nprefix = \"198.51.100.7\"\nstarttls = \"strip\"\nreason = \"x\"", `e.toml:11: tls.destination[1].prefix: 198.51.100.7/32 has a rule on line 6 already`},
		{"relative path", "[store]\ndir = \"lib\"", `e.toml:7: store.dir: "lib" is not an absolute path; begin it with a slash`},
		{"key twice", "uplinks = [\"cust*\"]", `e.toml:6: intercept.uplinks: stands on line 5 already; remove one of the two`},
		{"local date", "[[exempt]]\nprefix = \"192.0.2.1\"\nreason = \"x\"\nuntil = 2027-01-01", `e.toml:9: exempt[0].until: a localdate cannot stand here; write a date with time and zone, like 2027-01-31T00:00:00Z`},
		{"syntax", "[lock\n", `e.toml:6: expected ']' to close table name; see https://toml.io for the syntax`},
		{"inline", "[[user]]\nname = \"x\"\nprefixes = [\"192.0.2.1\"]\nlock = { tiem = \"1h\" }", `e.toml:9: user[0].lock.tiem: there is no such key; did you mean "time"?`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := Parse("e.toml", []byte(minimal+tt.add))
			if err == nil {
				t.Fatal("it was taken")
			}
			if !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("told\n  %v\nwant\n  %s", err, tt.want)
			}
		})
	}
}

func TestAllErrorsAtOnce(t *testing.T) {
	t.Parallel()
	_, err := Parse("e.toml", []byte("[gateway]\nnmae = 1\n[lock]\ntime = 5\n[limits]\nmessage_size = \"x\"\n"))
	if got := strings.Count(err.Error(), "\n") + 1; got != 3 {
		t.Errorf("%d errors told, want 3:\n%v", got, err)
	}
	_, err = Parse("e.toml", nil)
	for _, key := range []string{"gateway.name", "intercept.customer_interfaces", "intercept.uplinks"} {
		if !strings.Contains(err.Error(), "e.toml:1: "+key+": is missing") {
			t.Errorf("an empty file: %v, want %s", err, key)
		}
	}
	if _, err := Load(filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), "--config") {
		t.Errorf("a missing file was told as %v", err)
	}
}

// TestTagsAreSound: every key has a meaning, and a default that its own bounds allow.
func TestTagsAreSound(t *testing.T) {
	t.Parallel()
	var walk func(fs []*field, here string)
	walk = func(fs []*field, here string) {
		for _, f := range fs {
			key := join(here, f.name)
			if f.name == "" || f.tag.Get("doc") == "" {
				t.Errorf("%s has no name or no meaning", key)
			}
			if d, ok := f.tag.Lookup("default"); ok {
				v, err := parse(f.typ, d)
				if err == nil {
					err = f.bounds(v, d)
				}
				if err != nil {
					t.Errorf("default of %s: %v", key, err)
				}
			}
			walk(f.children, key)
		}
	}
	walk(schema(reflect.TypeFor[Config]()), "")
}

func TestDescribe(t *testing.T) {
	var b bytes.Buffer
	if err := Describe(&b); err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/describe.golden", b.Bytes())
	for line := range strings.Lines(b.String()) {
		if len(strings.TrimRight(line, "\n")) > 100 {
			t.Errorf("line of more than 100 columns: %s", line)
		}
	}
}

// TestExampleIsTaken: the example that is installed is a configuration, and shows every table.
func TestExampleIsTaken(t *testing.T) {
	t.Parallel()
	c, err := Load("../../../deploy/sluice.toml")
	if err != nil {
		t.Fatal(err)
	}
	if len(c.User) == 0 || len(c.Delivery.Address) == 0 || len(c.Exempt) == 0 {
		t.Error("the example shows no user, delivery address or exemption")
	}
}

func TestValuesReadWhatTheyWrite(t *testing.T) {
	t.Parallel()
	for _, d := range []Duration{0, Duration(time.Second), Duration(90 * time.Second), Duration(time.Hour), Duration(35 * 24 * time.Hour), Duration(36 * time.Hour)} {
		var back Duration
		if err := back.UnmarshalText([]byte(d.String())); err != nil || back != d {
			t.Errorf("%v came back as %v (%v)", time.Duration(d), time.Duration(back), err)
		}
	}
	for _, z := range []Size{0, 1, 1023, 1 << 10, 50 << 20, 3 << 30} {
		var back Size
		if err := back.UnmarshalText([]byte(z.String())); err != nil || back != z {
			t.Errorf("%d came back as %d (%v)", z, back, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(minimal))
	f.Add([]byte("[[user]]\n[user.lock]\nx.y = [{}]\n"))
	f.Add([]byte("user = [{name=\"x\"}]\nlock = 3\n[delivery.address]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("f.toml", data)
		if (c == nil) == (err == nil) {
			t.Errorf("Parse gave %v and %v", c, err)
		}
	})
}

func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not current; run `make generate`", file)
	}
}
