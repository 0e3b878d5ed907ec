package api

import (
	"net/http"
	"time"
)

// LockRules are the settings of the rules that lock beside the count and share of a short window; 0 switches a rule off.
type LockRules struct {
	Never            bool    `json:"never" doc:"no lock at all, not even by hand"`
	DayCount         int     `json:"day_count"`
	DayShare         float64 `json:"day_share"`
	AverageCount     int     `json:"average_count"`
	Average          float64 `json:"average_score"`
	Viruses          int     `json:"viruses"`
	Phish            int     `json:"phish"`
	Traps            int     `json:"traps"`
	Complaints       int     `json:"complaints"`
	RemoteSpam       int     `json:"remote_spam"`
	Unknown          int     `json:"unknown_recipients"`
	UnknownShare     float64 `json:"unknown_share"`
	Guesses          int     `json:"guesses"`
	ForwardedShare   float64 `json:"forwarded_share"`
	Identities       int     `json:"identities"`
	Throttled        int     `json:"throttled"`
	Probation        int     `json:"probation" doc:"seconds"`
	ProbationPerHour int     `json:"probation_per_hour"`
	ScoreSlow        int     `json:"score_slow" doc:"reputation that throttles"`
	ScoreHeld        int     `json:"score_held" doc:"reputation that holds"`
	ScoreAlarm       int     `json:"score_alarm" doc:"reputation that alarms"`
	UnlocksByLink    int     `json:"unlocks_by_link" doc:"by the link of a notice, before only a person may unlock"`
}

// Standing is how far a sender has come towards a lock.
type Standing struct {
	Rung      string   `json:"rung" doc:"free, watched, throttled, held or locked"`
	Cause     string   `json:"cause,omitempty" doc:"what speaks most against him"`
	Probation bool     `json:"probation,omitempty" doc:"a lock of his ended lately: half of what locks does so again"`
	Score     int      `json:"score" doc:"reputation, 0 to 100; 100 is worst"`
	Factors   []Factor `json:"factors,omitempty" doc:"what the score is made of"`
}

// Factor is one part of a reputation.
type Factor struct {
	Name   string `json:"name"`
	Points int    `json:"points"`
	Why    string `json:"why"`
}

// UndoRequest asks for all that a check locked by itself to be unlocked.
type UndoRequest struct {
	Check string    `json:"check"`
	Since time.Time `json:"since" doc:"only locks that are younger"`
}

// ReplayRequest proposes settings of locks for a look at the log.
type ReplayRequest struct {
	Since    time.Time         `json:"since"`
	Settings map[string]string `json:"settings,omitempty" doc:"by name, as of a user, for everybody; the rest is as it stands"`
}

// Replay tells whom proposed settings would have locked.
type Replay struct {
	Since    time.Time    `json:"since"`
	Whole    bool         `json:"whole" doc:"false: the log was too long, and was read from since on"`
	Messages int          `json:"messages"`
	Users    int          `json:"users"`
	Locks    []ReplayLock `json:"locks"`
}

// ReplayLock is whom they would have locked.
type ReplayLock struct {
	User     string    `json:"user"`
	Identity string    `json:"identity,omitempty"`
	First    time.Time `json:"first"`
	Rule     string    `json:"rule"`
	Reason   string    `json:"reason"`
	Count    int       `json:"count" doc:"how often"`
}

func (s *Server) replay(r *http.Request) (any, error) {
	var q ReplayRequest
	if err := body(r, &q); err != nil {
		return nil, err
	}
	if q.Since.IsZero() {
		return nil, invalid("a replay needs a moment to begin from", `say {"since": "2026-01-02T15:00:00Z", "settings": {"lock_spam_count": "3"}}`)
	}
	return s.back.Replay(r.Context(), q)
}

func (s *Server) conductRoutes() []route {
	return []route{
		{method: "POST", path: "/v1/replay", summary: "run proposed settings of locks over the log: whom they would have locked", in: ReplayRequest{}, out: Replay{}, serve: s.replay},
		{method: "POST", path: "/v1/undo", summary: "lift all automatic locks of a check since a moment", in: UndoRequest{}, out: []Lock{}, serve: s.undo},
	}
}

func (s *Server) undo(r *http.Request) (any, error) {
	var u UndoRequest
	if err := body(r, &u); err != nil {
		return nil, err
	}
	if u.Check == "" || u.Since.IsZero() {
		return nil, invalid("an undo needs a check and a moment", `say {"check": "content", "since": "2026-01-02T15:00:00Z"}`)
	}
	return s.back.Undo(r.Context(), who(r.Context()), u)
}
