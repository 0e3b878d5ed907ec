// Package config reads the one configuration file that sluice-intercept and sluiced share, and names file, line, key
// and remedy where it is wrong.
package config

import (
	"net/netip"
	"slices"
	"time"
)

// Config is the whole configuration with everything inherited already resolved: the settings of a user that the file
// leaves out hold the general ones. The struct tags are the manual: toml is the key, default its value when left out,
// enum, min and max what may stand there, doc what it means (see Describe).
type Config struct {
	File       string     `toml:"-"` // where it was read from
	Gateway    Gateway    `toml:"gateway" doc:"Who the gateway is, as clients and operators see it."`
	Intercept  Intercept  `toml:"intercept" doc:"What the kernel hands to the proxy. Read by sluice-intercept; it bounds whatever sluiced may ask for at run time."`
	Mode       []Mode     `toml:"mode" doc:"What happens to mail from a source prefix, whoever has it. The longest prefix wins, users' own modes included."`
	Observe    Observe    `toml:"observe" doc:"How sluice-observe reads what mode observe forwards."`
	Exempt     []Exempt   `toml:"exempt" doc:"Destinations that are treated otherwise than their sources' mode says."`
	Delivery   Delivery   `toml:"delivery" doc:"From which addresses and how mail leaves."`
	Smarthost  Smarthost  `toml:"smarthost" doc:"Names and ports at which customers hand in their mail with a login. Without a listener there is none."`
	Spool      Spool      `toml:"spool" doc:"Where mail waits that is taken to be delivered later, and how it is."`
	Template   Template   `toml:"template" doc:"What becomes of sources that belong to no user."`
	Limits     Limits     `toml:"limits" doc:"Limits of every user that has none of his own."`
	Lock       Lock       `toml:"lock" doc:"When a user is locked and for how long, unless he has settings of his own."`
	Content    Content    `toml:"content" doc:"The content filter: rules and a learned model, which together give the probability that a message is bad."`
	Plugin     []Plugin   `toml:"plugin" doc:"A program beside the gateway that is asked for its opinion of each message that nothing cheaper has refused. Without any nothing else is needed."`
	DNSList    []DNSList  `toml:"dnslist" doc:"A list by DNS of addresses or domains. It is tested every few minutes; one that is dead, or lists everything, is taken out until it is well again."`
	Sender     Sender     `toml:"sender" doc:"Who a user may be as the sender of a message, unless he has settings of his own."`
	DKIM       DKIM       `toml:"dkim" doc:"Signing of outgoing mail. Which user's mail is signed sender.dkim says; keys are made by sluice dkim."`
	Identity   Identity   `toml:"identity" doc:"How the finer senders inside a user are told, unless he has settings of his own."`
	Campaign   Campaign   `toml:"campaign" doc:"Copies of one message, whoever sends them: what is found in many of them counts for all."`
	Quarantine Quarantine `toml:"quarantine" doc:"Where messages are held, encrypted, that settings want kept away from their recipients."`
	Reports    Reports    `toml:"reports" doc:"What others report about mail that left here, and addresses that nobody has: both teach the filter and count towards locks."`
	TLS        TLS        `toml:"tls" doc:"STARTTLS on the client's leg. That of the onward leg stands in [delivery]."`
	Public     Public     `toml:"public" doc:"Pages for customers: what a code means, that a message was no spam, and the button that ends a lock. Without a listener there are none."`
	Notice     Notice     `toml:"notice" doc:"Notices of locks by mail."`
	Webhook    []Webhook  `toml:"webhook" doc:"A server of yours that hears of events."`
	User       []User     `toml:"user" doc:"An outgoing user: who answers for the mail of these prefixes."`
	SMTP       SMTP       `toml:"smtp" doc:"The dialogue with clients, and what it may cost."`
	DNS        DNS        `toml:"dns" doc:"What destinations publish about how mail to them is protected, by DANE and MTA-STS: for reports, and where settings ask for it."`
	Store      Store      `toml:"store" doc:"Where sluiced keeps users, locks and its own certificate."`
	Log        Log        `toml:"log" doc:"The message log."`
	API        API        `toml:"api" doc:"The HTTP API that the command sluice speaks to."`
}

// Gateway names the gateway.
type Gateway struct {
	Name         string `toml:"name" required:"true" doc:"Fully qualified name of the gateway. Greeting, EHLO reply, Received header and every refusal of ours carry it."`
	HelpURL      string `toml:"help_url" doc:"Start of the link in refusals; the code of the reason is appended. Empty: no link."`
	Contact      string `toml:"contact" doc:"Mailbox or telephone number that refusals name for questions."`
	Brand        string `toml:"brand" doc:"Name of the provider, for notices and pages."`
	AdminAddress string `toml:"admin_address" doc:"Mailbox to which even a locked user's mail passes; connections to the exchangers of its domain are not reset by a lock."`
}

// Intercept is the part of the helper with privileges.
type Intercept struct {
	CustomerInterfaces []string `toml:"customer_interfaces" required:"true" doc:"Names or shell patterns of the interfaces behind which customers are. They are attached as they appear."`
	Uplinks            []string `toml:"uplinks" required:"true" doc:"Names or shell patterns of the interfaces towards the internet. While a source is closed the guard stands there, so that an interface that appears late is no hole for it."`
	Ports              []uint16 `toml:"ports" default:"25" doc:"Destination ports that are mail. Never 465 or 587: submission to third parties is not opened."`
	DefaultMode        string   `toml:"default_mode" default:"intercept" enum:"intercept|shadow|observe|pass|reject|drop" doc:"Mode of a source that belongs to no user. intercept: through the proxy. shadow: through the proxy from the customer's own address, judged and logged as far as it is not encrypted, and nothing changed. observe: forwarded, and read in passing by sluice-observe, where that runs. pass: forwarded and counted. reject: TCP reset. drop: no answer."`
	DefaultFail        string   `toml:"default_fail" default:"open" enum:"open|closed" doc:"When the proxy is dead: open forwards new connections untouched after 1 s, closed lets them wait up to 20 s and then resets them."`
	ReversePath        bool     `toml:"reverse_path" default:"true" doc:"Refuse a source address that is not routed to the interface it came by."`
	Path               string   `toml:"path" default:"auto" enum:"auto|tcx|clsact|nftables" doc:"How packets are diverted: by a BPF program at the hook tcx or clsact, or by nftables. auto takes the first that a trial finds good, in this order."`
	Mark               uint32   `toml:"mark" default:"0x02000000" doc:"Packet mark, exactly one bit, that tells intercepted packets: to the namespace of the proxy's sockets, or, where there is none, to a policy rule."`
	JudgedMark         uint32   `toml:"judged_mark" default:"0x04000000" doc:"Packet mark, exactly one other bit, that tells the guard at the uplink that a packet was judged."`
	Table              uint32   `toml:"table" default:"5325" min:"1" doc:"Number of the routing table for intercepted packets, where policy rules deliver them."`
	RulePriority       uint32   `toml:"rule_priority" default:"90" min:"1" max:"32000" doc:"Priority of the first of three policy rules per family, where there are any; the others are 10 and 20 higher."`
	ListenPort         uint16   `toml:"listen_port" default:"10025" min:"1" doc:"Local port of the listening socket. Nothing needs to reach it directly."`
	PinDir             string   `toml:"pin_dir" default:"/sys/fs/bpf/sluice" doc:"Directory on a BPF file system for programs and maps."`
	StateDir           string   `toml:"state_dir" default:"/var/lib/sluice-intercept" doc:"Where the last applied table is kept for boot."`
	ControlSocket      string   `toml:"control_socket" default:"/run/sluice-intercept/control.sock" doc:"Unix socket on which sluice-intercept and sluiced meet."`
	DaemonUser         string   `toml:"daemon_user" default:"sluice" doc:"The only account that may speak on the control socket."`
	Port               []Port   `toml:"port" doc:"One more mail port: on some interfaces only, or with a rule of its own."`
	RuntimeLoosen      []Prefix `toml:"runtime_loosen" doc:"Source prefixes for which sluiced may ask for less than this file says. Empty: it may only tighten and lock."`
	RuntimeExempt      []Prefix `toml:"runtime_exempt" doc:"Destination prefixes for which sluiced may make exemptions that are less strict than intercept, than [[exempt]] here, or, where that says nothing, than the strictest mode of any source here."`

	FailSet bool `toml:"-"` // default_fail stands in the file
}

// Mode is the mode of a source prefix.
type Mode struct {
	Prefix  Prefix `toml:"prefix" required:"true" doc:"Source prefix or address. A rule made at run time for the same prefix beats this one."`
	Mode    string `toml:"mode" required:"true" enum:"intercept|canary|shadow|observe|pass|reject|drop" doc:"As intercept.default_mode. canary: intercept for a share of the users, shadow for the others."`
	Percent int    `toml:"percent" min:"0" max:"99" doc:"Of mode canary: the share of users, 1 to 99. A larger share holds the users of a smaller one."`
	Reason  string `toml:"reason" required:"true" doc:"Why, for whoever reads the file next."`
}

// Observe is the passive path.
type Observe struct {
	Source string `toml:"source" default:"auto" enum:"auto|ring|nfqueue" doc:"Where sluice-observe gets packets from. ring: copies that BPF programs make, with path tcx or clsact. nfqueue: the first packets of what each side says, with path nftables. auto: what the path in force has."`
	Queue  uint16 `toml:"queue" default:"2525" doc:"Number of the queue for source nfqueue; no other program on the host may read it."`
}

// Port is one mail port beside those of intercept.ports.
type Port struct {
	Port       uint16   `toml:"port" required:"true" doc:"Destination port, such as 2525, 24, 26, 465 or 587."`
	Interfaces []string `toml:"interfaces" doc:"Names or shell patterns of the customer interfaces that know the port. Empty: all of them."`
	Mode       string   `toml:"mode" default:"intercept" enum:"intercept|pass|reject" doc:"intercept: like port 25, as the source's mode says. pass: forwarded and counted. reject: TCP reset. Submission to third parties (465 and 587) is never opened: pass or reject."`
}

// MailPorts are the destination ports that may be intercepted somewhere, each once.
func (i *Intercept) MailPorts() []uint16 {
	out := slices.Clone(i.Ports)
	for _, p := range i.Port {
		if p.Mode == "intercept" && !slices.Contains(out, p.Port) {
			out = append(out, p.Port)
		}
	}
	return out
}

// Exempt is one exempted destination.
type Exempt struct {
	Prefix Prefix    `toml:"prefix" required:"true" doc:"Destination prefix or address."`
	Port   uint16    `toml:"port" doc:"Destination port; 0 is every mail port."`
	Mode   string    `toml:"mode" default:"pass" enum:"intercept|shadow|observe|pass|reject|drop" doc:"Mode for connections to this destination."`
	Reason string    `toml:"reason" required:"true" doc:"Why, for whoever reads the file next."`
	Until  time.Time `toml:"until" doc:"When the exemption ends (RFC 3339, such as 2027-01-31T00:00:00Z). Left out: never."`
}

// Smarthost takes mail from customers who name it in their settings.
type Smarthost struct {
	Name              string      `toml:"name" inherit:"gateway.name" doc:"Host name that customers enter; greeting and certificate carry it."`
	SessionsPerSource int         `toml:"sessions_per_source" default:"10" min:"1" max:"10000" doc:"Connections open at once from one address; further ones get 421."`
	Guesses           int         `toml:"guesses" default:"10" min:"3" max:"1000" doc:"Different wrong passwords within half an hour after which an address is shut out, first for an hour; before that its attempts wait longer and longer. Addresses with regular good logins are only slowed down."`
	Callout           bool        `toml:"callout" default:"false" doc:"Ask a recipient's server whether it knows him before RCPT is answered; what it says is remembered for 24h, that it knows nobody for 30m. The client waits for that. An answer that is not about the recipient, or none in 10s, refuses nobody."`
	DomainLogins      bool        `toml:"domain_logins" default:"true" doc:"A login is made for each domain that a user has by itself (sender.from_domains, or his own). It lets nobody in before sluice login password gives it one, and goes with the domain as long as it has none."`
	From              string      `toml:"from" default:"own" enum:"own|any" doc:"Who may stand in the From field of what is sent with a login. own: the login's mailbox, or anybody of its domain; mail that is sent on (resent, by a list of the domain, with a rewritten sender) keeps its author. any: anybody."`
	Listener          []Listener  `toml:"listener" doc:"One address and port of the smarthost."`
	Connector         []Connector `toml:"connector" doc:"A customer at a service that sends the mail of many from the same addresses. He hands in mail without a login; it must be proved to be his."`
}

// Connector is a customer at a service that sends the mail of many.
type Connector struct {
	Name        string   `toml:"name" required:"true" doc:"In log and queue it stands in place of a login."`
	User        string   `toml:"user" required:"true" doc:"The outgoing user who answers for what is sent."`
	Service     string   `toml:"service" required:"true" enum:"microsoft365|google|other" doc:"microsoft365: Exchange Online; it writes into each message whose it is. google: Google Workspace; it does not, so the customer has it add a field that nobody else knows (proof_header, proof_file). other: any that shows a certificate."`
	Domains     []string `toml:"domains" required:"true" doc:"Sender domains, in the envelope and in the From field. No other connector may have them."`
	Tenants     []string `toml:"tenants" doc:"What Exchange Online writes into X-OriginatorOrg: the customer's default domain, such as contoso.onmicrosoft.com, or a custom one. Left out: domains."`
	ProofHeader string   `toml:"proof_header" doc:"Name of the field that the service is told to add, such as X-Provider-Proof. It is taken out of the message."`
	ProofFile   string   `toml:"proof_file" doc:"File with what stands in that field, in its first line; a long random word, as for a password."`
	Certificate string   `toml:"certificate" doc:"Name in the certificate that the service shows. Left out: mail.protection.outlook.com and smtp.gmail.com."`
	Ranges      []Prefix `toml:"ranges" doc:"Addresses of the service. Left out: those that Microsoft and Google published as of November 2026, which change now and then; see ranges_file."`
	RangesFile  string   `toml:"ranges_file" doc:"File with the addresses of the service in place of ranges, one prefix a line, # begins a comment; read at the start and with each reload. For Microsoft the list of endpoints (endpoints.office.com, Exchange, port 25), for Google what the TXT records of _netblocks.google.com, _netblocks2 and _netblocks3 name."`
}

// Listener is one address and port of the smarthost.
type Listener struct {
	Address netip.AddrPort `toml:"address" required:"true" doc:"Address of this host and port, such as 198.51.100.5:587 or [2001:db8::5]:465."`
	TLS     string         `toml:"tls" enum:"starttls|implicit" doc:"implicit: from the first byte on, usual at 465. starttls: begun by the client, usual at 587 and 25. Left out: what is usual at the port."`
	Trusted []Prefix       `toml:"trusted" doc:"Sources that need no login, beside the prefixes of outgoing users. What they send is the mail of the user who has the address."`
}

// Spool keeps what is to be delivered.
type Spool struct {
	Dir         string   `toml:"dir" doc:"Directory of the spool; mail that was taken is nowhere else. Left out: the directory spool in store.dir."`
	MinFree     Size     `toml:"min_free" default:"256MiB" min:"1MiB" max:"1GiB" doc:"What new mail leaves free of its file system, or one part in twenty of a small one. Below that it is answered 452."`
	Sessions    int      `toml:"sessions" default:"500" min:"1" max:"10000" doc:"Deliveries at once."`
	PerSite     int      `toml:"sessions_per_site" default:"20" min:"1" max:"1000" doc:"Of these, at most to the same mail exchangers. It begins with two and grows with what goes well."`
	PerSession  int      `toml:"messages_per_session" default:"100" min:"1" max:"10000" doc:"Messages after which a connection ends."`
	PerHour     int      `toml:"messages_per_site_and_hour" default:"0" min:"0" doc:"Messages to the same mail exchangers in any 60 minutes. 0: no limit."`
	FirstRetry  Duration `toml:"first_retry" default:"15m" min:"1s" max:"8h" doc:"Between two tries in the first two hours; then the pause grows by half each time, up to 8h."`
	GiveUp      Duration `toml:"give_up" default:"5d" min:"1m" max:"30d" doc:"Age at which the sender is told that it failed."`
	Delayed     Duration `toml:"delayed" default:"4h" min:"1m" max:"30d" doc:"Age at which the sender is told that it takes long."`
	Prefer      string   `toml:"prefer" default:"ipv6" enum:"ipv6|ipv4" doc:"Which addresses of a mail exchanger are tried first."`
	Destination uint16   `toml:"destination_port" default:"25" min:"1" doc:"Port of destinations; another than 25 is for tests."`
	Site        []Site   `toml:"site" doc:"Destinations that share bounds of their own. The first that matches counts."`
	Relay       []Relay  `toml:"relay" doc:"A server that takes mail in place of its destinations. The first that matches counts."`
}

// Relay takes mail in place of its destinations.
type Relay struct {
	Host         string   `toml:"host" required:"true" doc:"Name or address."`
	Port         uint16   `toml:"port" default:"25" min:"1" doc:"587 is usual with a login."`
	Users        []string `toml:"users" doc:"Only mail of these outgoing users."`
	Senders      []string `toml:"senders" doc:"Only mail from these domains."`
	Domains      []string `toml:"domains" doc:"Only mail to these domains."`
	Login        string   `toml:"login" doc:"Name to log in with, within TLS alone."`
	PasswordFile string   `toml:"password_file" doc:"File with the password in its first line."`
	TLS          string   `toml:"tls" default:"opportunistic" enum:"opportunistic|required|verified" doc:"How the connection is to be protected. Mail with REQUIRETLS goes by a relay that is verified, and keeps it, alone."`
}

// Template says what happens to unknown sources.
type Template struct {
	Unknown string `toml:"unknown" default:"make" enum:"make|refuse" doc:"make: a user is made for the source, named after its prefix. refuse: every connection is greeted with 554."`
	IPv4    int    `toml:"ipv4" default:"32" min:"8" max:"32" doc:"Prefix length of users made for IPv4 sources."`
	IPv6    int    `toml:"ipv6" default:"64" min:"32" max:"128" doc:"Prefix length of users made for IPv6 sources."`
}

// Limits bound what a user may send.
type Limits struct {
	MessagesPerHour      int      `toml:"messages_per_hour" default:"500" min:"0" doc:"Messages in any 60 minutes. 0: no limit."`
	RecipientsPerHour    int      `toml:"recipients_per_hour" default:"2000" min:"0" doc:"Recipients in any 60 minutes. 0: no limit."`
	MessagesPerMinute    int      `toml:"messages_per_minute" default:"0" min:"0" doc:"Messages in any minute. 0: no limit; so it is with those below."`
	MessagesPerDay       int      `toml:"messages_per_day" default:"0" min:"0" doc:"Messages in any 24 hours."`
	MessagesPerWeek      int      `toml:"messages_per_week" default:"0" min:"0" doc:"Messages in any 7 days."`
	MessagesPerMonth     int      `toml:"messages_per_month" default:"0" min:"0" doc:"Messages in any 30 days."`
	RecipientsPerMinute  int      `toml:"recipients_per_minute" default:"0" min:"0" doc:"Recipients in any minute."`
	RecipientsPerDay     int      `toml:"recipients_per_day" default:"0" min:"0" doc:"Recipients in any 24 hours."`
	RecipientsPerWeek    int      `toml:"recipients_per_week" default:"0" min:"0" doc:"Recipients in any 7 days."`
	RecipientsPerMonth   int      `toml:"recipients_per_month" default:"0" min:"0" doc:"Recipients in any 30 days."`
	BytesPerDay          Size     `toml:"bytes_per_day" default:"0B" doc:"Bytes of messages in any 24 hours, each message once."`
	DistinctPerDay       int      `toml:"distinct_recipients_per_day" default:"0" min:"0" doc:"Different recipients in any 24 hours; exact up to 10,000, above with a standard error of 1.6 %."`
	InvalidPerHour       int      `toml:"invalid_recipients_per_hour" default:"0" min:"0" doc:"Recipients in any 60 minutes that their destinations refuse as unknown (5.1.x)."`
	InvalidPercent       int      `toml:"invalid_recipients_percent" default:"10" min:"0" max:"100" doc:"The share of such recipients among all of the last 60 minutes, once there are 20 of them."`
	NullPerHour          int      `toml:"null_sender_messages_per_hour" default:"200" min:"0" doc:"Messages with the null sender, such as notices, in any 60 minutes."`
	FailedPerHour        int      `toml:"failed_deliveries_per_hour" default:"0" min:"0" doc:"Messages in any 60 minutes that their destinations refuse for good."`
	QueuedMessages       int      `toml:"queued_messages" default:"500" min:"0" doc:"Messages that wait for delivery at once, those on hold among them. Further ones get 452 at the smarthost; intercepted ones are not kept, and their destination's answer is passed on."`
	Reject               []string `toml:"reject" doc:"Names of limits above which messages get 550. Above the others they get 451, so that clients try again."`
	Lock                 []string `toml:"lock" doc:"Names of limits above which the user is locked."`
	Shadow               []string `toml:"shadow" doc:"Names of limits that refuse nothing: it is only said in the log when they are met."`
	Texts                []string `toml:"texts" doc:"What clients hear at a limit in place of our words: messages_per_day: your plan allows 500 messages a day."`
	RecipientsPerMessage int      `toml:"recipients_per_message" default:"1000" min:"0" doc:"Recipients of one message. 0: no limit."`
	MessageSize          Size     `toml:"message_size" default:"50MiB" min:"64KiB" max:"1GiB" doc:"Largest message; also what SIZE announces (RFC 1870)."`
	SessionsPerSource    int      `toml:"sessions_per_source" default:"100" min:"1" doc:"Connections open at once from one address, of IPv6 from one /64; the excess waits for its greeting."`
	SessionsPerPair      int      `toml:"sessions_per_pair" default:"20" min:"1" doc:"Connections open at once from one address, of IPv6 from one /64, to one destination; the excess waits for its greeting."`
	ConnectionsPerSecond uint16   `toml:"connections_per_second" default:"100" doc:"Connections per second, over all addresses of the user, that the kernel hands to the proxy; twice as many may come at once. The excess is dropped before it costs anything and comes again by itself, after a second. 0: no limit."`
}

// Lock says what locks a user.
type Lock struct {
	Automatic  bool     `toml:"automatic" default:"false" doc:"Lock by itself. Off: bad mail is refused and reported only."`
	SpamCount  int      `toml:"spam_count" default:"5" min:"1" doc:"Bad messages inside the window that lock."`
	SpamShare  float64  `toml:"spam_share" default:"0.2" min:"0" max:"1" doc:"Least share of bad messages among the user's messages in the window."`
	Window     Duration `toml:"window" default:"10m" min:"1m" max:"24h" doc:"The sliding window."`
	Time       Duration `toml:"time" default:"60m" min:"1m" max:"7d" doc:"How long a lock lasts. Above 4d the client's own queue may give up first."`
	MaxUnlocks int      `toml:"max_unlocks" default:"3" min:"0" max:"100" doc:"Automatic unlocks before only a person may unlock."`
	Explained  int      `toml:"explained_per_minute" default:"10" min:"0" max:"1000" doc:"New connections per minute of a locked user that get an SMTP explanation; further ones are reset by the kernel."`
	KeepPassed bool     `toml:"keep_passed" default:"false" doc:"Connections of a locked user that are open and go past the proxy (mode pass or observe, forwarded while the proxy was dead, or older than the gateway): true lets them end by themselves, false resets each at its next packet. Those through the proxy end with 421 either way."`
	Never      bool     `toml:"never" default:"false" doc:"No lock at all, not even by hand: bad mail is refused and reported."`

	DayCount       int     `toml:"day_count" default:"20" min:"0" max:"1000" doc:"Bad messages within 24 hours that lock. 0 here and below: never."`
	DayShare       float64 `toml:"day_share" default:"0.05" min:"0" max:"1" doc:"Least share of bad messages among all of the 24 hours."`
	AverageCount   int     `toml:"average_count" default:"5" min:"0" max:"1000" doc:"Different messages inside the window that look bad, delivered or not, by the sum of their probabilities, which lock where average_score is met in the same time; twice as many within an hour, four times as many within 24 hours. Copies of one text are one."`
	Average        float64 `toml:"average_score" default:"0.6" min:"0" max:"1" doc:"How likely bad the user's messages of that time have to be on average, those below content.unsure counted as 0. Only what content.learned lets act counts."`
	Viruses        int     `toml:"viruses" default:"1" min:"0" max:"1000" doc:"Messages with a virus within 24 hours that lock."`
	Phish          int     `toml:"phish" default:"2" min:"0" max:"1000" doc:"Phishing messages within 24 hours that lock."`
	Traps          int     `toml:"traps" default:"1" min:"0" max:"1000" doc:"Messages within 24 hours to addresses that nobody has."`
	Complaints     int     `toml:"complaints" default:"3" min:"0" max:"1000" doc:"Complaints of recipients within 24 hours that lock."`
	RemoteSpam     int     `toml:"remote_spam" default:"10" min:"0" max:"1000" doc:"Messages within an hour, and at least spam_share of all, that destinations refused as spam."`
	Unknown        int     `toml:"unknown_recipients" default:"50" min:"0" doc:"Recipients within an hour that their destinations do not know."`
	UnknownShare   float64 `toml:"unknown_share" default:"0.3" min:"0" max:"1" doc:"Least share of such recipients among those of the hour."`
	Guesses        int     `toml:"guesses" default:"30" min:"0" max:"1000" doc:"Logins within an hour that destinations refused."`
	ForwardedShare float64 `toml:"forwarded_share" default:"0.6" min:"0" max:"1" doc:"Share of bad messages that he only forwards, among all inside the window, from which on they lock, four times spam_count of them at least; fewer never do. 1 and nothing else beside them: only then."`
	Identities     int     `toml:"identities" default:"3" min:"0" max:"8" doc:"From how many identities with bad mail within an hour on it is judged as their user's. 0: never; the user answers only for what no identity is told of."`

	Throttled        int      `toml:"throttled" default:"20" min:"0" doc:"Messages inside the window of a sender who has come near a lock (six tenths of it; from eight tenths on nothing of his goes out, and from the first bad message on nothing that looks bad, too, by less the more of his mail did; nothing at all while half of it does and that is half of what locks). 0: no limit."`
	Probation        Duration `toml:"probation" default:"24h" min:"0s" max:"30d" doc:"How long after a lock half of what locks is enough to lock again."`
	ScoreSlow        int      `toml:"score_slow" default:"15" min:"0" max:"100" doc:"Reputation, 0 to 100 where 100 is worst, from which on a sender is throttled. 0 here and below: never."`
	ScoreHeld        int      `toml:"score_held" default:"55" min:"0" max:"100" doc:"Reputation from which on nothing of his goes out until it is better."`
	ScoreAlarm       int      `toml:"score_alarm" default:"80" min:"0" max:"100" doc:"Reputation from which on the log alarms, too."`
	ProbationPerHour int      `toml:"probation_per_hour" default:"100" min:"0" doc:"Messages per hour meanwhile. 0: no limit."`
	ByLink           int      `toml:"unlocks_by_link" default:"3" min:"0" max:"100" doc:"How often a user may end automatic locks by the link in the notice of one (see [public]), until a person sets the number back. 0: there is no link. Who is locked again within an hour of it has no further links."`
}

// User is one outgoing user.
type User struct {
	Name           string   `toml:"name" required:"true" doc:"Name of the user in logs, commands and counters."`
	Prefixes       []Prefix `toml:"prefixes" required:"true" doc:"Source prefixes and addresses; the longest match over all users wins."`
	Mode           string   `toml:"mode" enum:"intercept|shadow|observe|pass|reject|drop" inherit:"intercept.default_mode" doc:"What happens to new mail connections from his prefixes. Left out, they have the mode of the longest prefix around them that has one: of another user, of [[mode]], or made at run time."`
	Fail           string   `toml:"fail" enum:"open|closed" inherit:"intercept.default_fail" doc:"What happens to them when the proxy is dead."`
	Delivery       string   `toml:"delivery" enum:"auto|managed|own" inherit:"delivery.mode" doc:"From which address the user's mail leaves."`
	Withheld       string   `toml:"withheld" enum:"451|spool" inherit:"delivery.withheld" doc:"What becomes of the user's mail that the filter neither lets go nor refuses, as delivery.withheld."`
	Deferred       string   `toml:"deferred" enum:"pass|spool" inherit:"delivery.deferred" doc:"What becomes of the user's mail that a destination puts off, as delivery.deferred."`
	Auth           string   `toml:"auth" enum:"relay|refuse" inherit:"delivery.auth" doc:"AUTH of the user's clients at destinations."`
	StartTLS       string   `toml:"starttls" enum:"terminate|pass|strip" inherit:"tls.starttls" doc:"What becomes of STARTTLS of the user's clients, where the destination has no rule of its own."`
	StartTLSReason string   `toml:"starttls_reason" inherit:"tls.starttls_reason" doc:"Why, for log and list. strip needs one."`
	TLS            string   `toml:"tls" enum:"opportunistic|required|verified" inherit:"delivery.tls" doc:"How the leg to destinations is protected for the user's mail, as delivery.tls."`
	Contact        string   `toml:"contact" doc:"Mailbox of the person who answers for the user."`
	Language       string   `toml:"language" inherit:"notice.language" doc:"Language of notices to him, as notice.language."`
	Bind           []Bind   `toml:"bind" doc:"Where his packets come from: a neighbour in the same segment who borrows the address is dropped and counted."`
	Limits         Limits   `toml:"limits" inherit:"limits" doc:"The user's own limits; keys left out inherit those of [limits]."`
	Lock           Lock     `toml:"lock" inherit:"lock" doc:"The user's own lock settings; keys left out inherit those of [lock]."`

	Content UserContent `toml:"content" inherit:"content" doc:"The user's own settings of the content filter; keys left out inherit those of [content]."`

	Sender   Sender   `toml:"sender" inherit:"sender" doc:"The user's own rules about senders; keys left out inherit those of [sender]."`
	Identity Identity `toml:"identity" inherit:"identity" doc:"How the senders inside this user are told; keys left out inherit those of [identity]."`

	ModeSet, FailSet bool `toml:"-"` // mode and fail stand in the file
}

// Bind ties a user's prefixes to an interface, an Ethernet address, or both.
type Bind struct {
	Prefix    Prefix `toml:"prefix" doc:"One of the user's prefixes, as it stands there. Left out: all of them that have no bind of their own."`
	Interface string `toml:"interface" doc:"Name of the customer interface by which the packets come. While there is none of that name they are dropped."`
	MAC       string `toml:"mac" doc:"Ethernet address that they have, such as 02:00:5e:10:00:07. Where a router of the customer stands between, it is the router's."`
}

// SMTP bounds the dialogue with clients.
type SMTP struct {
	BareNewline     string   `toml:"bare_newline" default:"normalise" enum:"normalise|refuse" doc:"A bare LF in a message becomes CRLF, or the message is refused. It never ends a message; a bare CR is always refused."`
	Greeting        string   `toml:"greeting" default:"own" enum:"own|mirror" doc:"own: greeting and reply to EHLO carry gateway.name. mirror: the destination's own greeting and name, so the greeting waits for it; where it cannot be asked so early (from a customer's own address, for a locked user) it is our own. Every other reply of ours carries gateway.name."`
	CommandTimeout  Duration `toml:"command_timeout" default:"5m" min:"5s" max:"1h" doc:"How long a client may be silent between commands (RFC 5321 4.5.3.2.7)."`
	DataTimeout     Duration `toml:"data_timeout" default:"3m" min:"5s" max:"1h" doc:"How long a client may be silent inside a message (RFC 5321 4.5.3.2.5)."`
	NoopInterval    Duration `toml:"noop_interval" default:"75s" min:"1s" max:"5m" doc:"Between two NOOP to a destination while a client uploads slowly. One that leaves all the same is asked again for the same recipients at the end of the message; where it answers otherwise, the client hears 451."`
	FilterTimeout   Duration `toml:"filter_timeout" default:"30s" min:"1s" max:"5m" doc:"Time for all checks of one message together."`
	FinWait         Duration `toml:"fin_wait" default:"2s" max:"30s" doc:"How long we wait after 221 for the client to close, so that it may use its port again at once."`
	GreetingWait    Duration `toml:"greeting_wait" default:"60s" max:"4m" doc:"How long a connection above the session limits waits for its greeting before it gets 421."`
	Sessions        int      `toml:"sessions" default:"20000" min:"1" doc:"Connections open at once; more wait in the kernel's queue."`
	BodyMemory      Size     `toml:"body_memory" default:"1MiB" min:"64KiB" max:"64MiB" doc:"A message up to this size is kept in memory, a larger one goes on to a file in spill_dir."`
	BodyMemoryTotal Size     `toml:"body_memory_total" default:"512MiB" min:"1MiB" doc:"Memory for messages on their way, all sessions together; above it bodies go to files."`
	SpillDir        string   `toml:"spill_dir" default:"/var/lib/sluice/spill" doc:"Directory for large messages on their way. Its files have no name and vanish with the process."`
	Drain           Duration `toml:"drain" default:"25s" max:"60s" doc:"How long a planned restart waits for transactions to finish."`
}

// Store is the state of sluiced.
type Store struct {
	Dir string `toml:"dir" default:"/var/lib/sluice" doc:"Directory of the database and of the self-made certificate."`
}

// Log is the message log.
type Log struct {
	Dir       string   `toml:"dir" default:"/var/log/sluice" doc:"Directory of the message log's segments."`
	Retention Duration `toml:"retention" default:"35d" min:"1h" doc:"How long log lines are kept."`
}

// API is the HTTP API.
type API struct {
	Socket string `toml:"socket" default:"/run/sluice/api.sock" doc:"Unix socket of the API, mode 0660. Whoever may open it may lock and unlock users."`
	Group  string `toml:"group" doc:"Group of the socket; sluiced must be a member. Empty: its own group."`
	Listen string `toml:"listen" doc:"Address and port on loopback, like 127.0.0.1:8460, where programs use the API that show a token (sluice token). For those on other hosts put a TLS proxy in front. Empty: nowhere."`
}
