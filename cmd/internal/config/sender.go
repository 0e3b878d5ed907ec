package config

// Sender says who a user may be as the sender of a message.
type Sender struct {
	RequireDomain bool     `toml:"require_from_domain" default:"false" doc:"Envelope sender and header From must be of the user's domains, else 550. Notices (the null sender), mailing lists and mail that is recognised as forwarded are exempt."`
	Domains       []string `toml:"from_domains" doc:"The user's domains, such as customer.example; .customer.example for all below it."`
	Mailbox       string   `toml:"require_from_mailbox" default:"off" enum:"off|listed|found" doc:"Envelope sender and header From must be mailboxes of the user, else 550; exempt is what require_from_domain exempts. listed: those of from_mailboxes, and who logged in as a mailbox. found: also those that were used in his good, delivered mail on three days, at least 20 hours apart. What follows a + is not compared."`
	Mailboxes     []string `toml:"from_mailboxes" doc:"The user's mailboxes, such as office@customer.example; sluice users senders shows those that were found and takes them over."`
	Learn         string   `toml:"from_mailboxes_learnt_until" doc:"The last day, like 2027-01-31 (UTC), on which require_from_mailbox = found lets every mailbox pass, so that those in use are found; from the next on only listed and found ones. Empty: no such time."`
	Valid         bool     `toml:"valid_sender_required" default:"false" doc:"The envelope sender's domain must take mail: it has an MX, or an address. One that says that it takes none (RFC 7505) is 550 5.7.27."`
	Defer         bool     `toml:"valid_sender_defer" default:"false" doc:"Where the DNS does not tell within two seconds: true has the client try again (451), false lets the mail go on."`
	RefuseNull    bool     `toml:"refuse_null_sender" default:"false" doc:"Refuse mail with the null sender, notices included."`
	DMARC         string   `toml:"dmarc_prediction" default:"off" enum:"off|log|refuse" doc:"Mail that would fail DMARC where the domain in its From asks to reject that: neither a signature of the domain, nor an envelope sender in it. log: it is said in the log. refuse: 550 with the reason."`
	Hello         bool     `toml:"helo_checks" default:"true" doc:"A name in EHLO that is doubtful stands in the log, and adds a little to the probability of mail whose content is doubtful: no host name, an IP address without brackets, localhost, a name like host.local, one that is known not to be in the DNS; a little more a large mail provider's, the recipient's own domain, this gateway's. It refuses nothing by itself."`
	DKIM          string   `toml:"dkim" default:"off" enum:"off|unsigned|always" doc:"Signing (DKIM) of the user's mail with keys that sluice dkim makes, in the name of the domain in From, if it is one of from_domains or of who logged in; else of dkim.domain. unsigned: what carries no valid signature of its author's domain. always: all. What cannot be signed goes without, and the log says why."`
	DKIMSelector  string   `toml:"dkim_selector" doc:"Selector of the key that signs for the user's domains. Empty, and where that key was replaced: each domain's current ones."`
}

// Identity tells the finer senders inside a user.
type Identity struct {
	Method            string   `toml:"method" default:"none" enum:"none|sender|login|header" doc:"none: a user is one sender. sender: by the envelope sender. login: by who logged in at the smarthost. header: by a header field that the user's own servers write; limits of the user count whatever it says."`
	Headers           []string `toml:"headers" doc:"For method header: fields that are believed, tried in order. A field must occur exactly once; Received must be the topmost one and name one of hosts as its writer. X-AuthUser: the whole value, or by the known forms of X-PHP-Script, X-Get-Message-Sender-Via, X-Authenticated-Sender, and of Received as Postfix, Exim and Sendmail write it. X-Source-Dir: ^([^:]+) is a regular expression with one capturing group."`
	Hosts             []string `toml:"hosts" doc:"Names by which the user's own servers write Received fields. Empty: the name that the client gives in HELO."`
	MessagesPerHour   int      `toml:"messages_per_hour" default:"0" min:"0" doc:"Messages of each identity in any 60 minutes. 0: no limit but those of the user."`
	RecipientsPerHour int      `toml:"recipients_per_hour" default:"0" min:"0" doc:"Recipients of each identity in any 60 minutes."`
	MessagesPerDay    int      `toml:"messages_per_day" default:"0" min:"0" doc:"Messages of each identity in any 24 hours."`
	RecipientsPerDay  int      `toml:"recipients_per_day" default:"0" min:"0" doc:"Recipients of each identity in any 24 hours."`
	Remove            bool     `toml:"remove" doc:"The field that told is not sent on, unless it is Received or a signature covers it."`
}
