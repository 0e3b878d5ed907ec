package policy

import "fmt"

// ContentAction says what is done with mail of one class (CON1).
type ContentAction uint8

// The actions. The zero value leaves a class to what is usual for it.
const (
	UsualAction    ContentAction = iota // spam is refused, unsure mail delivered
	DeliverMail                         // it is only said in the log
	DelayMail                           // it is put off, or held at the smarthost, and judged again
	QuarantineMail                      // a copy is held
	RefuseMail                          // 550
	TagMail                             // it is delivered, and a header field says so
	RiskMail                            // it leaves through the pool of risky mail alone
	DiscardMail                         // it is taken and goes nowhere
)

var contentActions = [...]string{"", "deliver", "delay", "quarantine", "reject", "tag", "high-risk", "discard"}

// String returns the setting's name in configuration and API.
func (a ContentAction) String() string {
	if int(a) < len(contentActions) {
		return contentActions[a]
	}
	return "?"
}

// ParseContentAction reads the setting's name.
func ParseContentAction(name string) (ContentAction, error) {
	for i, n := range contentActions {
		if n == name {
			return ContentAction(i), nil
		}
	}
	return 0, fmt.Errorf("action %q is unknown; use deliver, tag, delay, high-risk, quarantine, reject or discard", name)
}

// MarshalText returns the setting's name.
func (a ContentAction) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads the setting's name.
func (a *ContentAction) UnmarshalText(text []byte) error {
	v, err := ParseContentAction(string(text))
	if err == nil {
		*a = v
	}
	return err
}
