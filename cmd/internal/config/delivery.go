package config

import (
	"net/netip"
	"time"
)

// Delivery says how mail leaves.
type Delivery struct {
	Mode           string      `toml:"mode" default:"auto" enum:"auto|managed|own" doc:"auto: from a delivery address of the gateway where that does no harm, which the DNS tells: the destination is a mail exchanger of the recipient's domain, and SPF of the sender's domain is pass, none or neutral for the address, or the user's last mail from that domain was signed (DKIM) by its author's domain, as this one has to be, too. Otherwise, and where the DNS does not answer within 2 seconds, from the customer's own address. managed: from a delivery address wherever there is one of the destination's family. own: from the customer's own address."`
	Auth           string      `toml:"auth" default:"relay" enum:"relay|refuse" doc:"AUTH of a client. relay: passed on to a destination that offers it, from the customer's own address; nothing of it is kept. refuse: never offered."`
	Prefixes       []Prefix    `toml:"prefixes" doc:"Prefixes routed to this host that hold delivery addresses; sluice-intercept makes them local."`
	Address        []Address   `toml:"address" doc:"A delivery address. At least one is needed where the mode is managed; a family without one delivers from the customer's own address."`
	Pool           []Pool      `toml:"pool" doc:"A pool of delivery addresses for some users, senders, or kinds of mail."`
	List           []BlockList `toml:"list" doc:"A DNS list of bad senders that no delivery address may be on."`
	CheckEvery     Duration    `toml:"check_every" default:"15m" min:"1s" max:"1d" doc:"How often delivery addresses are checked: PTR, HELO name and A or AAAA agree, and no list has them. One that fails is not used until it is good again, as long as at least half of its pool and family, and one, are left. One that is not on this host, and outside of delivery.prefixes, is never used."`
	WarmUp         []int       `toml:"warm_up" default:"50,100,200,400,800,1600,3200,6400,12800,25600" doc:"Messages that a new address may send to one provider on its first day, on its second, and so on; after that any number. A provider is who runs the mail exchangers of the recipient's domain."`
	PerHour        int         `toml:"messages_per_address_and_hour" default:"0" min:"0" doc:"Messages from one delivery address to one provider in an hour of the clock; another address of the pool, else with mode auto the customer's own, takes the others, else they are put off. 0: no limit."`
	PerAddress     int         `toml:"sessions_per_address" default:"0" min:"0" doc:"Connections at once from one delivery address to one destination; further ones wait for up to 10 seconds, and are put off then. 0: no limit."`
	ConnectTimeout Duration    `toml:"connect_timeout" default:"25s" min:"1s" max:"5m" doc:"How long a destination may take to accept a connection."`
	CommandTimeout Duration    `toml:"command_timeout" default:"4m" min:"10s" max:"30m" doc:"How long a destination may take to reply before the end of data; to greet, and to answer EHLO, 2 minutes at most. A client waits five minutes for the answer (RFC 5321 4.5.3.2)."`
	AnswerTimeout  Duration    `toml:"answer_timeout" default:"9m" min:"30s" max:"9m30s" doc:"Time from the client's final dot to our answer, scan and destination together. A client waits 10 minutes (RFC 5321 4.5.3.2.6)."`
	Reuse          Duration    `toml:"reuse" default:"15s" max:"5m" doc:"How long a connection to a destination stands idle for the same user's next mail from the same delivery address. 0s: it ends with the client's. Connections from a customer's own address are never kept."`
	Chunks         bool        `toml:"chunks" default:"false" doc:"Messages of up to 256 KiB go to a destination that offers CHUNKING (RFC 3030) in one chunk, which saves a round trip. false: by DATA."`
	EarlyData      string      `toml:"early_data" default:"auto" enum:"auto|never|always" doc:"When a destination hears DATA. auto: with the recipients, where the client pipelined it behind them and the destination offers PIPELINING; that saves a round trip. The message itself waits for the verdict (but see stream), and one that does not go on ends with the connection, without a message. After such a one DATA waits for the verdict for an hour, as long as anything speaks against the user, and with SIZE above smtp.body_memory. always: also where the client waits for 354; it hears that from here then, and a refusal of DATA behind its message. never: DATA waits for the verdict."`
	Stream         Size        `toml:"stream" default:"0B" max:"1GiB" doc:"Bytes from which on a large message goes onward while it still comes, which shortens the wait behind its end; 1MiB or more. That much of it is judged first, and has to be without any objection; what makes it a message, the final dot or the last chunk, leaves once the whole is judged. Where that is not good, or changes anything of the message or its way, the connection is reset before its end, so the destination has none, and the client hears what he would hear otherwise; in the next hour nothing of this user goes ahead. Not for users of whom anything is known but good, after AUTH, with deferred = spool, where the mail is to be signed (dkim), or its way depends on a signature. What asks others (DNS lists, plug-ins) is asked at the end. 0B: nothing of a message leaves before it is judged."`
	TLS            string      `toml:"tls" default:"opportunistic" enum:"opportunistic|required|verified" doc:"How the leg to a destination is protected that has no rule in delivery.protect. opportunistic: encrypted where the destination can, with any certificate, else in plain text; a destination whose handshake fails is tried again after 10 minutes, then after twice as long each time. required: encrypted, with any certificate, else recipients get 451 4.7.5. verified: with a trusted certificate for a mail exchanger of the recipient's domain. TLS is 1.2 or newer in any case, and a client that encrypts is never carried on in plain text."`
	TLSRoots       string      `toml:"tls_roots" doc:"PEM file with the authorities that are trusted where a certificate is verified. Empty: those of the system."`
	Protect        []Protect   `toml:"protect" doc:"How the leg to one destination is protected, whoever sends. A recipient whose rule is stricter than that of the first one of the same message gets 452 4.5.3, so that the client sends to him apart."`
	Withheld       string      `toml:"withheld" default:"451" enum:"451|spool" doc:"What a client hears of mail that the filter neither lets go nor refuses. 451: it keeps the mail and comes again. spool: 250; the mail is on hold in the queue until somebody releases or deletes it (sluice queue), and leaves to the mail exchangers of its domains then. Never so where it could not: from a customer's own address, after AUTH, to a destination that is no mail exchanger of its domain; then 451."`
	Deferred       string      `toml:"deferred" default:"pass" enum:"pass|spool" doc:"What a client hears when a destination puts mail off. pass: the destination's own answer. spool: 250, and the mail is tried again from here; under the same conditions as withheld, and where a notice of failure can go to the user's contact or to a sender who logged in. Of several recipients the first one's answer decides."`
	HopLimit       int         `toml:"hop_limit" default:"100" min:"10" max:"500" doc:"Received headers above which a message is a loop (RFC 5321 6.3)."`
}

// Address is one delivery address.
type Address struct {
	Address  netip.Addr `toml:"address" required:"true" doc:"IPv4 or IPv6 address, on this host or inside delivery.prefixes."`
	Helo     string     `toml:"helo" required:"true" doc:"Name given in EHLO. The address's PTR and the name's A or AAAA must agree with it."`
	NewSince time.Time  `toml:"new_since" doc:"When it first sends (RFC 3339, such as 2027-01-31T00:00:00Z): from then on it is warmed up by delivery.warm_up. Left out: it is warm."`
	Weight   int        `toml:"weight" default:"1" min:"0" max:"1000" doc:"Share of the traffic in relation to the other addresses of its family. 0: none."`
}
