package api

// Plugin is a program that is asked for its opinion of messages.
type Plugin struct {
	Name      string           `json:"name"`
	Kind      string           `json:"kind" doc:"clamd, rspamd, spamd or milter"`
	Instances []PluginInstance `json:"instances"`
	Then      string           `json:"then" doc:"what happens to mail where an instance does not answer"`
	Asked     uint64           `json:"asked" doc:"messages since start"`
	Objected  uint64           `json:"objected" doc:"of them, those it objected to"`
	Failed    uint64           `json:"failed" doc:"messages without its opinion"`
	Deferred  uint64           `json:"deferred" doc:"of them, those put off"`
	Unseen    uint64           `json:"unseen" doc:"messages that were too large to be shown as a whole"`
	Busy      uint64           `json:"busy" doc:"of those without its opinion, those that found it busy"`
	Micros    uint64           `json:"microseconds" doc:"mean time of an answer"`
}

// PluginInstance is one address of a plug-in.
type PluginInstance struct {
	Address string `json:"address"`
	State   string `json:"state" doc:"unknown, alive, failing (the last answer was a failure) or dead (no message waits for it until it answers a ping)"`
	Error   string `json:"error,omitempty"`
}

// DNSList is a list that is asked by DNS.
type DNSList struct {
	Name     string `json:"name"`
	Zone     string `json:"zone"`
	Of       string `json:"of" doc:"source, sender or link"`
	State    string `json:"state" doc:"untested, good or out (it is not asked until a test goes well)"`
	Error    string `json:"error,omitempty" doc:"why it was taken out"`
	Asked    uint64 `json:"asked" doc:"questions since start"`
	Listed   uint64 `json:"listed" doc:"of them, those whose subject it has"`
	Refused  uint64 `json:"refused" doc:"of them, those by which mail was refused"`
	Failed   uint64 `json:"failed" doc:"questions without an answer, and messages while it was out"`
	Unmapped uint64 `json:"unmapped" doc:"answers that the configuration gives no meaning"`
}
