// Package api serves Sluice's HTTP API on a unix socket, and holds the client that the command sluice speaks it with.
package api

import (
	"net/netip"
	"time"
)

// Status is the gateway at a glance.
type Status struct {
	Gateway   string            `json:"gateway" doc:"name of the gateway"`
	Version   string            `json:"version"`
	PID       int               `json:"pid"`
	Started   time.Time         `json:"started"`
	Accepting bool              `json:"accepting" doc:"the accept loop runs and is not draining"`
	Queue     Queue             `json:"queue"`
	Helper    Helper            `json:"helper"`
	Flows     int               `json:"flows" doc:"connections open now"`
	Waiting   int               `json:"waiting" doc:"connections that wait for their greeting because their source is at its cap"`
	Users     int               `json:"users"`
	Locks     int               `json:"locks" doc:"users locked now"`
	Messages  map[string]uint64 `json:"messages" doc:"messages since start by status: delivered, refused, deferred, ambiguous, lost"`
	Addresses []Address         `json:"addresses" doc:"delivery addresses"`
	Config    Config            `json:"config"`
	Log       LogStats          `json:"log"`
	Observer  Observer          `json:"observer"`
	Unread    Unread            `json:"unread"`
	Onward    OnwardTLS         `json:"onward" doc:"how the leg to destinations is encrypted"`
	Spool     Spool             `json:"spool" doc:"mail that waits to be delivered"`
	Plugins   []Plugin          `json:"plugins" doc:"programs that are asked for their opinion; none are needed"`
	DNSLists  []DNSList         `json:"dns_lists" doc:"lists that are asked by DNS"`
	Webhooks  []Webhook         `json:"webhooks,omitempty" doc:"servers that hear of events"`
	Wrong     FalsePositives    `json:"false_positives" doc:"how much of what was stopped was found to be good"`
}

// Spool is what waits on disk.
type Spool struct {
	Deliveries int    `json:"deliveries" doc:"messages, each to the recipients of one domain"`
	Held       int    `json:"held" doc:"of these, on hold until somebody releases them"`
	Bytes      int64  `json:"bytes" doc:"on disk"`
	Error      string `json:"error,omitempty" doc:"why nothing is taken any more"`
}

// Webhook is how one server that hears of events does.
type Webhook struct {
	Name     string     `json:"name"`
	URL      string     `json:"url"`
	Waiting  int        `json:"waiting" doc:"events that it was not told yet"`
	Heard    uint64     `json:"heard" doc:"events since start"`
	Dead     bool       `json:"dead,omitempty" doc:"it failed five times in a row"`
	Failures int        `json:"failures,omitempty" doc:"in a row"`
	Since    *time.Time `json:"since,omitempty" doc:"of the first of them"`
	Error    string     `json:"error,omitempty"`
}

// Queue is the kernel's accept queue of the listening socket.
type Queue struct {
	Waiting int `json:"waiting"`
	Limit   int `json:"limit"`
}

// Helper is what sluice-intercept says about itself and the kernel.
type Helper struct {
	Connected      bool        `json:"connected"`
	Error          string      `json:"error,omitempty" doc:"why it is not connected"`
	Version        string      `json:"version,omitempty"`
	PID            int         `json:"pid,omitempty"`
	Path           string      `json:"path,omitempty" doc:"tcx, clsact or nftables"`
	PathReason     string      `json:"path_reason,omitempty"`
	Heartbeat      string      `json:"heartbeat,omitempty" doc:"alive, restarting, stale or never"`
	HeartbeatAgeMS int64       `json:"heartbeat_age_ms,omitempty"`
	Interfaces     []Interface `json:"interfaces,omitempty"`
	Sources        int         `json:"sources,omitempty" doc:"prefixes in the kernel's source table"`
	Locks          int         `json:"locks,omitempty" doc:"locks in the kernel"`
	Unguarded      bool        `json:"unguarded,omitempty" doc:"no guard stands at the uplinks, since no source is closed"`
	Bypasses       []Bypass    `json:"bypasses,omitempty" doc:"ways around the proxy that are open now"`
	Elsewhere      []Elsewhere `json:"elsewhere,omitempty" doc:"sources whose mail connections do not come through the gateway, the latest first"`
	Problems       []string    `json:"problems,omitempty"`
}

// Elsewhere is a source that got the answer to a mail connection which did not come through the gateway: his packets have
// another way out, or somebody borrows his address.
type Elsewhere struct {
	Address netip.Addr `json:"address"`
	User    string     `json:"user,omitempty"`
	Answers uint64     `json:"answers"`
	Last    time.Time  `json:"last"`
}

// Bypass is a way around the proxy that root has opened: new connections are forwarded untouched.
type Bypass struct {
	Prefix string     `json:"prefix,omitempty" doc:"of sources; left out: every source"`
	Since  time.Time  `json:"since"`
	Until  *time.Time `json:"until,omitempty" doc:"left out: until it is ended"`
	Reason string     `json:"reason"`
	By     string     `json:"by" doc:"who opened it"`
}

// Interface is one interface that the helper attached to, or wanted to.
type Interface struct {
	Name  string `json:"name"`
	Role  string `json:"role" doc:"customer or uplink"`
	Path  string `json:"path,omitempty" doc:"tcx, clsact, nftables, or empty when not attached"`
	Error string `json:"error,omitempty"`
}

// Address is one delivery address.
type Address struct {
	Address netip.Addr `json:"address"`
	Helo    string     `json:"helo"`
	Weight  int        `json:"weight"`
	Out     string     `json:"out,omitempty" doc:"why it is not used"`
}

// Config says which configuration is in force.
type Config struct {
	File   string    `json:"file"`
	Loaded time.Time `json:"loaded"`
	Error  string    `json:"error,omitempty" doc:"why the last reload was refused; the one before it is in force"`
}

// LogStats are the message log's own figures since start.
type LogStats struct {
	Records uint64 `json:"records"`
	Lost    uint64 `json:"lost" doc:"records that could not be written"`
	Bytes   uint64 `json:"bytes"`
}

// User is one outgoing user.
type User struct {
	ID         uint32         `json:"id"`
	Name       string         `json:"name"`
	Prefixes   []netip.Prefix `json:"prefixes"`
	Contact    string         `json:"contact,omitempty"`
	Origin     string         `json:"origin" doc:"config, command, or template for users made for unknown sources"`
	Mode       string         `json:"mode,omitempty" doc:"of his prefixes; several where they differ"`
	Canary     string         `json:"canary,omitempty" doc:"in mode canary: enforced or shadow"`
	Fail       string         `json:"fail,omitempty"`
	Flows      int            `json:"flows" doc:"connections open now"`
	Locked     bool           `json:"locked"`
	Ticket     string         `json:"ticket,omitempty" doc:"of the lock"`
	Auth       *Auth          `json:"auth,omitempty" doc:"how his attempts to authenticate at destinations ended"`
	Observed   *Observed      `json:"observed,omitempty" doc:"what sluice-observe saw of his forwarded flows since sluiced started"`
	WouldLocks int            `json:"would_locks,omitempty" doc:"locks that enforcement would have brought in shadow or observe since sluiced started"`
	Unread     *Unread        `json:"unread,omitempty"`
	Forwarded  *Forwarded     `json:"forwarded,omitempty"`
}

// Observer is the state of the passive path.
type Observer struct {
	Wanted      bool   `json:"wanted" doc:"some source or destination is in mode observe"`
	Present     bool   `json:"present" doc:"sluice-observe reports"`
	Flows       uint64 `json:"flows" doc:"begun since its start"`
	LostPieces  uint64 `json:"lost_pieces" doc:"pieces of flows that it was too slow for, or that could not be read"`
	LostFlows   uint64 `json:"lost_flows" doc:"flows that it had no memory for"`
	LostRecords uint64 `json:"lost_records" doc:"records that sluiced did not take in time"`
}

// ObserveReport tells what enforcement would have done with what was observed.
type ObserveReport struct {
	Observer Observer       `json:"observer"`
	Since    time.Time      `json:"since" doc:"when the counts began: the start of sluiced"`
	Users    []ObservedUser `json:"users"`
}

// ObservedUser is one line of the report.
type ObservedUser struct {
	User string `json:"user"`
	Mode string `json:"mode"`
	Observed
	WouldLocks int `json:"would_locks" doc:"locks that enforcement would have brought"`
}

// Forwarded counts mail that came from elsewhere and was only passed on, since sluiced started.
type Forwarded struct {
	Messages int `json:"messages"`
	Sent     int `json:"sent" doc:"delivered, or kept for delivery"`
	Bad      int `json:"bad" doc:"spam, phishing or viruses; they have a rule of their own among those that lock"`
}

// Auth counts attempts to authenticate at destinations that were passed on, since start.
type Auth struct {
	Accepted int `json:"accepted"`
	Refused  int `json:"refused" doc:"many of them: somebody guesses passwords from here"`
}

// Observed counts what was read in passing of flows that mode observe forwards.
type Observed struct {
	Flows             int            `json:"flows"`
	Opaque            int            `json:"opaque" doc:"flows that went on under STARTTLS: nobody knows what was in them"`
	OpaqueShare       float64        `json:"opaque_share" doc:"of the flows, 0 to 1"`
	Unread            int            `json:"unread" doc:"flows of which parts were lost or could not be read: more may have been said"`
	Messages          int            `json:"messages" doc:"transactions whose MAIL was seen"`
	Accepted          int            `json:"accepted" doc:"messages that the destination took"`
	Recipients        int            `json:"recipients"`
	RefusedRecipients int            `json:"refused_recipients"`
	WouldRefuse       map[string]int `json:"would_refuse,omitempty" doc:"messages that enforcement would have refused, or one of their recipients, by public code"`
}

// WouldRefused is how many messages enforcement would have refused, or one of their recipients.
func (o *Observed) WouldRefused() (n int) {
	for _, c := range o.WouldRefuse {
		n += c
	}
	return n
}

// UserDetail is a user with what holds for him.
type UserDetail struct {
	User
	Settings Settings          `json:"settings"`
	Kernel   map[string]uint64 `json:"kernel,omitempty" doc:"the kernel's counters of this user"`
	Unlocks  int               `json:"unlocks" doc:"automatic unlocks so far"`
	Standing Standing          `json:"standing"`
	Bound    []string          `json:"bound,omitempty" doc:"where his packets have to come from"`
}

// Settings are a user's effective settings. Times are in seconds, sizes in bytes; 0 is no limit.
type Settings struct {
	Delivery             string    `json:"delivery" doc:"managed, own or auto"`
	MessagesPerHour      int       `json:"messages_per_hour"`
	RecipientsPerHour    int       `json:"recipients_per_hour"`
	RecipientsPerMessage int       `json:"recipients_per_message"`
	MessageSize          int64     `json:"message_size"`
	SessionsPerSource    int       `json:"sessions_per_source"`
	SessionsPerPair      int       `json:"sessions_per_pair"`
	ConnectionsPerSecond int       `json:"connections_per_second" doc:"that the kernel hands to the proxy; 0 is no limit"`
	LockAutomatic        bool      `json:"lock_automatic"`
	LockSpamCount        int       `json:"lock_spam_count"`
	LockSpamShare        float64   `json:"lock_spam_share"`
	LockWindow           int       `json:"lock_window"`
	LockTime             int       `json:"lock_time"`
	LockMaxUnlocks       int       `json:"lock_max_unlocks"`
	LockExplained        int       `json:"lock_explained_per_minute"`
	LockKeepPassed       bool      `json:"lock_keep_passed" doc:"whether open connections past the proxy outlive a lock"`
	LockRules            LockRules `json:"lock_rules"`
	OnwardTLS            string    `json:"tls" doc:"of the leg to destinations without a rule: opportunistic, required or verified"`
	StartTLS             string    `json:"starttls" doc:"terminate, pass or strip"`
	StartTLSReason       string    `json:"starttls_reason,omitempty"`
	KeepWithheld         bool      `json:"keep_withheld" doc:"mail that the filter neither lets go nor refuses is on hold in the queue"`
	KeepDeferred         bool      `json:"keep_deferred" doc:"mail that a destination puts off is tried again from here"`
	DKIM                 string    `json:"dkim" doc:"which of his mail is signed: off, unsigned or always"`
	DKIMSelector         string    `json:"dkim_selector,omitempty" doc:"of the key that signs; left out: his domains' current ones"`
}

// NewUser asks for a user to be added.
type NewUser struct {
	Name     string         `json:"name"`
	Prefixes []netip.Prefix `json:"prefixes"`
	Contact  string         `json:"contact,omitempty"`
}

// Flow is one open connection.
type Flow struct {
	ID       string         `json:"id"`
	User     string         `json:"user"`
	Client   netip.AddrPort `json:"client"`
	Target   netip.AddrPort `json:"target"`
	Helo     string         `json:"helo,omitempty"`
	State    string         `json:"state" doc:"where the dialogue stands: waiting, idle, envelope, data, verdict, onward, sent, unread or closing"`
	Since    time.Time      `json:"since"`
	Messages int            `json:"messages"`
	TLS      bool           `json:"tls"`
	Ticket   string         `json:"ticket,omitempty" doc:"of the lock on the user"`
}

// Lock is one lock, in force or past.
type Lock struct {
	Ticket    string       `json:"ticket"`
	User      string       `json:"user"`
	Identity  string       `json:"identity,omitempty" doc:"of the user, where it alone is locked"`
	Check     string       `json:"check,omitempty" doc:"that spoke last, of an automatic lock"`
	Rule      string       `json:"rule,omitempty" doc:"that was met: virus, trap, phish, firm, spam, spam-day, complaints, remote, recipients, guessing, or what asked for the lock"`
	Prefix    netip.Prefix `json:"prefix" doc:"by which the user was attributed"`
	Code      string       `json:"code" doc:"public code of the reason"`
	Reason    string       `json:"reason"`
	By        string       `json:"by" doc:"who locked"`
	Automatic bool         `json:"automatic"`
	Since     time.Time    `json:"since"`
	Until     *time.Time   `json:"until,omitempty" doc:"left out: until a person unlocks"`
	Account   string       `json:"account,omitempty" doc:"with all of whose users he was locked"`
	Score     int          `json:"score,omitempty" doc:"reputation when an automatic lock began; 100 is worst"`
	Factors   []Factor     `json:"factors,omitempty" doc:"what it was made of"`
	Evidence  []Evidence   `json:"evidence,omitempty"`
	Ended     *time.Time   `json:"ended,omitempty"`
	EndedBy   string       `json:"ended_by,omitempty"`
	EndedWhy  string       `json:"ended_why,omitempty"`
	Cut       int          `json:"cut,omitempty" doc:"sessions that were ended at once, after a lock with cut"`
	Left      int          `json:"left,omitempty" doc:"sessions that pass on their destination's answer first, after a lock with cut"`
	Warning   string       `json:"warning,omitempty" doc:"what is not yet so, after a change"`
}

// Evidence is one message that led to a lock.
type Evidence struct {
	Message string    `json:"message" doc:"id of the message"`
	Time    time.Time `json:"time"`
	Code    string    `json:"code"`
	Text    string    `json:"text,omitempty"`
}

// LockRequest asks for a lock by hand.
type LockRequest struct {
	User     string `json:"user" doc:"name of the user, or an address whose user is meant"`
	Identity string `json:"identity,omitempty" doc:"lock this identity of his alone"`
	Seconds  int    `json:"seconds" doc:"how long; 0 until a person unlocks"`
	Reason   string `json:"reason"`
	Cut      bool   `json:"cut,omitempty" doc:"end the user's open connections at once, but for those whose message has gone whole to its destination"`
}

// UnlockRequest asks for a lock to be lifted.
type UnlockRequest struct {
	User     string `json:"user" doc:"name of the user, or an address whose user is meant"`
	Identity string `json:"identity,omitempty" doc:"of his, where it alone is locked"`
	Reason   string `json:"reason,omitempty"`
	Reset    bool   `json:"reset,omitempty" doc:"the numbers of his automatic unlocks and of those by link begin anew, those of his identities too; so where nobody is locked as well"`
}

// Message is one line of the message log: a message, or a session that never became one.
type Message struct {
	ID         string         `json:"id"`
	Time       time.Time      `json:"time"`
	DurationMS int64          `json:"duration_ms"`
	User       string         `json:"user"`
	Holder     string         `json:"holder,omitempty" doc:"who held the source then, where the history of its prefix names another one than user"`
	Client     netip.AddrPort `json:"client"`
	Target     netip.AddrPort `json:"target"`
	Helo       string         `json:"helo,omitempty"`
	Identity   string         `json:"identity,omitempty" doc:"the finer sender inside the user"`
	From       string         `json:"from"`
	To         []Recipient    `json:"to,omitempty"`
	Size       int64          `json:"size"`
	Status     string         `json:"status" doc:"delivered, refused, deferred, ambiguous, lost, no-message, observed, withheld or queued"`
	Class      string         `json:"class" doc:"clean, policy, spam, phish or virus; where the status is observed, unjudged for what was not wholly read and opaque for what cannot be"`
	Code       string         `json:"code,omitempty" doc:"public code of the reason that decided"`
	Hits       []Hit          `json:"hits,omitempty"`
	Reply      string         `json:"reply,omitempty" doc:"what the client was told last"`
	Meaning    string         `json:"meaning,omitempty" doc:"of what the destination said last, where it refused: other, temporary, unknown, quota, spam, blocked, rate, greylist or policy"`
	Remote     string         `json:"remote,omitempty" doc:"what the destination said last"`
	Source     string         `json:"source,omitempty" doc:"address the mail left from"`
	Way        string         `json:"way,omitempty" doc:"why it left from there, where not because a setting says so"`
	Signed     string         `json:"signed,omitempty" doc:"the domain that signed it here (DKIM) and the selectors of its keys, or no: and why not"`
	TLSIn      string         `json:"tls_in,omitempty"`
	TLSOut     string         `json:"tls_out,omitempty"`
	UnreadOut  int64          `json:"unread_out,omitempty" doc:"bytes from the client that passed encrypted to the destination"`
	UnreadIn   int64          `json:"unread_in,omitempty" doc:"and back"`
	TLSTerms   string         `json:"tls_terms,omitempty" doc:"what the onward leg had to be, and who says so"`
	TLSTrust   string         `json:"tls_trust,omitempty" doc:"what the authorities say of the destination's certificate"`
	TLSPolicy  string         `json:"tls_policy,omitempty" doc:"what the first recipient's domain asks for: dane, mta-sts enforce, mta-sts testing, none or unknown"`
	TLSResult  string         `json:"tls_result,omitempty" doc:"ok, or what is not as it asks; nothing depends on it"`
	Campaign   string         `json:"campaign,omitempty" doc:"the same for all copies of a message; a campaign where there are several"`
	Forwarded  bool           `json:"forwarded,omitempty" doc:"it came from elsewhere and was only passed on"`
	Ticket     string         `json:"ticket,omitempty"`
	Shadow     bool           `json:"shadow,omitempty" doc:"the mail went its way untouched, whatever the verdict"`
	Would      string         `json:"would,omitempty" doc:"in shadow and observe: the reply of ours that would have stopped it"`
	WaitedMS   int64          `json:"waited_ms,omitempty" doc:"for the greeting, because the source was at its caps"`
	Obstacle   string         `json:"obstacle,omitempty" doc:"what ended a session without a message: tls, the handshake with our certificate failed; cap, 421 for too many sessions"`
	Note       string         `json:"note,omitempty"`
}

// Recipient is one RCPT and what the client heard to it.
type Recipient struct {
	Address string `json:"address"`
	Code    int    `json:"code"`
	Reply   string `json:"reply"`
}

// Hit is one check's opinion.
type Hit struct {
	Check    string  `json:"check"`
	Code     string  `json:"code"`
	Class    string  `json:"class"`
	Action   string  `json:"action"`
	Points   float64 `json:"points,omitempty"`
	Text     string  `json:"text,omitempty"`
	Evidence string  `json:"evidence,omitempty"`
}

// Query selects lines of the message log. Zero fields select everything.
type Query struct {
	Since, Until time.Time
	User         string
	Status       string
	ID           string // of a message or a flow
	Ticket       string
	Campaign     string // id of a campaign, or of the message that might become one
	Identity     string
	From, To     string // address or domain
	Client       netip.Prefix
	Target       netip.Addr
	Code         string
	Where        []string // as ParseWhere reads them
	Limit        int      // 0 is 100
}

// Counters are figures since start, by name.
type Counters struct {
	Daemon map[string]uint64 `json:"daemon" doc:"of sluiced"`
	Kernel map[string]uint64 `json:"kernel,omitempty" doc:"of the data path"`
}
