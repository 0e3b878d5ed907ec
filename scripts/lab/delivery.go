package lab

// The states of a delivery attempt.
const (
	Sent     = "sent"
	Deferred = "deferred"
	Bounced  = "bounced"
)

// Delivery is one attempt for one recipient, as a mail server logged it.
type Delivery struct {
	QueueID   string
	MessageID string // with angle brackets
	From, To  string
	Relay     string // host and address
	DSN       string // class.subject.detail, where the log has it
	Status    string // Sent, Deferred or Bounced
	Text      string // the log's reason
	Reply     string // the remote server's reply where the reason quotes one, else Text
}

// Key names a message at one recipient across servers and runs.
type Key struct{ MessageID, To string }

// Final is the last state of every message at every recipient.
func Final(attempts []Delivery) map[Key]Delivery {
	last := map[Key]Delivery{}
	for _, d := range attempts {
		last[Key{d.MessageID, d.To}] = d
	}
	return last
}

// With keeps the attempts to an address, "" for all, that ended in a status,
// "" for any.
func With(attempts []Delivery, to, status string) []Delivery {
	var out []Delivery
	for _, d := range attempts {
		if (to == "" || d.To == to) && (status == "" || d.Status == status) {
			out = append(out, d)
		}
	}
	return out
}
