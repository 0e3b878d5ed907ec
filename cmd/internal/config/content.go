package config

// Content are the settings of the content filter.
type Content struct {
	BlockSpam bool     `toml:"block_spam" default:"true" doc:"Refuse what the content filter takes for spam or phishing. Off: it is only said in the log."`
	Unsure    float64  `toml:"unsure" default:"0.80" min:"0.05" max:"1" doc:"Probability that a message is bad from which it counts as unsure. It is delivered, and the log explains it."`
	Spam      float64  `toml:"spam" default:"0.98" min:"0.5" max:"1" doc:"Probability from which it counts as spam."`
	Failure   string   `toml:"failure" default:"plugin" enum:"plugin|defer|go-on" doc:"What becomes of a message that a plug-in or a list by DNS could not be asked about. plugin: what [[plugin]] or [[dnslist]] says. defer: 451 4.3.0. go-on: without that opinion."`
	OnSpam    string   `toml:"on_spam" default:"reject" enum:"deliver|tag|delay|high-risk|quarantine|reject|discard" doc:"What becomes of spam and phishing. reject: 550. quarantine: a copy is held, see [quarantine]. delay: it is put off with 451 and judged again when it comes after content.wait, with what was learnt meanwhile; at the smarthost it is taken and waits in the queue. high-risk: it leaves through the delivery pool of class risk alone; on an intercepted connection the destination is given the envelope anew from there, and what cannot leave that way is put off with 451. tag: it is delivered with X-Spam-Flag: YES and X-Spam-Status. deliver: the log tells. discard: it is answered 250 and goes nowhere, if content.discard allows it."`
	OnUnsure  string   `toml:"on_unsure" default:"deliver" enum:"deliver|tag|delay|high-risk|quarantine|reject" doc:"What becomes of unsure mail, likewise; a tag is X-Spam-Status: Unsure alone. What is still unsure after it was delayed is delivered."`
	Discard   bool     `toml:"discard" default:"false" doc:"Whether on_spam may be discard, here or for a user. Its sender believes that such a message went out, and nobody has a copy: where this is off, what says discard is refused."`
	Wait      Duration `toml:"wait" default:"10m" min:"10s" max:"24h" doc:"How long what is delayed waits until it is judged again."`
	Learned   string   `toml:"learned" default:"auto" enum:"auto|never|always|off" doc:"What the learned part of the filter may do. auto: it refuses once the model has proved itself here, by 5,000 messages that it took for good, and no more than 0.02 % beside them that it would have refused and nobody has called bad; before, it only says so. never: it only says so. always: it refuses at once. off: it does not look at messages, which then cost no time; the test texts for spam and viruses are found still."`
	Lessons   int      `toml:"lessons_per_source" default:"50" min:"1" max:"10000" doc:"How many messages a day one source of reports may teach the model; an operator's commands may a hundred times as many."`
}

// Campaign says how copies of one message are found and when they are held.
type Campaign struct {
	Window     Duration `toml:"window" default:"6h" min:"10m" max:"48h" doc:"For so long after its last copy a message is remembered."`
	Remember   int      `toml:"remember" default:"1000000" min:"10000" max:"20000000" doc:"Kinds of messages that are remembered at most, the latest ones; each takes some 250 bytes of memory."`
	Act        string   `toml:"act" default:"hold" enum:"say|hold|quarantine|reject" doc:"What becomes of further copies once a rule is met. hold: they are withheld until a person has looked (sluice campaign). quarantine: likewise, and a copy of each is held. reject: they are refused for good. say: nothing, the log tells what would have been."`
	Copies     int      `toml:"copies" default:"5" min:"2" max:"10000" doc:"The rule burst: so many copies to different recipients, whoever sends them ..."`
	Share      float64  `toml:"share" default:"0.5" min:"0.1" max:"1" doc:"... of which the content filter takes at least this share for bad; an unsure one counts half, one next to that by its probability."`
	Users      int      `toml:"users" default:"3" min:"2" max:"1000" doc:"The rule users: so many outgoing users send the same ..."`
	Strangers  int      `toml:"strangers" default:"5" min:"0" max:"1000" doc:"The rule strangers: so many copies, to four times as many recipients and more, whose content is not clearly good, go to people who are new to a sender that usually writes to people he knows. 0: no such rule."`
	UsersShare float64  `toml:"users_share" default:"0.3" min:"0.1" max:"1" doc:"... and at least this share of it is taken for bad."`
}

// Quarantine says how messages are held.
type Quarantine struct {
	KeyFile   string   `toml:"key_file" doc:"File with the keys of held messages, readable by sluiced alone (mode 0600); it is made where it is missing. Keep a copy of it elsewhere, and not beside copies of the messages. Empty: quarantine.key in store.dir."`
	Retention Duration `toml:"retention" default:"14d" min:"1h" max:"90d" doc:"How long a message is held; then it is deleted."`
	Space     Size     `toml:"space" default:"10GiB" min:"1MiB" doc:"Bytes of messages that are held at most; then mail that should be held is put off with 451."`
	Answer    string   `toml:"answer" default:"550" enum:"550|451" doc:"What the client of an intercepted connection hears of a message of which a copy is held. 550: it is refused, and whoever releases the copy delivers it. 451: the client keeps it and comes again; once the copy was released it hears 250 and nothing is delivered twice. At the smarthost it hears 250."`
}

// Reports says where complaints come in, and which addresses are traps.
type Reports struct {
	Folder string   `toml:"folder" doc:"Folder, or Maildir, into which a mail server puts reports about mail of this gateway: by the Abuse Reporting Format (RFC 5965), or mails with the message attached. A file is read within seconds of being renamed into it, and removed; what is no report goes into its folder refused. sluiced must be allowed to write there, by ReadWritePaths= in a drop-in of its unit, too, where it is not below /var/lib/sluice. Empty: none; sluice report hands them in by command."`
	Traps  []string `toml:"traps" doc:"Addresses that nobody has, or domains all of whose addresses nobody has. A message to one is refused and learnt as spam, and counts as lock.traps says."`
}

// UserContent are those that a user may have of his own.
type UserContent struct {
	BlockSpam bool     `toml:"block_spam" doc:"Refuse what the content filter takes for spam or phishing."`
	Unsure    float64  `toml:"unsure" min:"0.05" max:"1" doc:"Probability from which his messages count as unsure."`
	Spam      float64  `toml:"spam" min:"0.5" max:"1" doc:"Probability from which they count as spam."`
	Failure   string   `toml:"failure" enum:"plugin|defer|go-on" doc:"What becomes of his messages where a plug-in or a list could not be asked, as content.failure."`
	OnSpam    string   `toml:"on_spam" enum:"deliver|tag|delay|high-risk|quarantine|reject|discard" doc:"What becomes of his spam and phishing."`
	OnUnsure  string   `toml:"on_unsure" enum:"deliver|tag|delay|high-risk|quarantine|reject" doc:"What becomes of his unsure mail."`
	Wait      Duration `toml:"wait" min:"10s" max:"24h" doc:"How long what is delayed waits until it is judged again."`
}
