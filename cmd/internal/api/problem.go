package api

// Finding is one line of a check-up.
type Finding struct {
	Check  string `json:"check"`
	State  string `json:"state" doc:"ok, warn or fail"`
	Text   string `json:"text"`
	Remedy string `json:"remedy,omitempty"`
}

// The states of a finding.
const (
	OK   = "ok"
	Warn = "warn"
	Fail = "fail"
)

// Problem is an error as the API tells it.
type Problem struct {
	Status int    `json:"-"` // of HTTP
	Code   string `json:"code" doc:"stable word for programs"`
	What   string `json:"message"`
	Remedy string `json:"remedy,omitempty"`
}

// Error tells the problem with its remedy.
func (p *Problem) Error() string {
	if p.Remedy == "" {
		return p.What
	}
	return p.What + "; " + p.Remedy
}
