package store

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// The states of an appeal.
const (
	AppealOpen     = "open"
	AppealApproved = "approved"
	AppealDenied   = "denied"
)

// Appeal says that a message was no spam.
type Appeal struct {
	ID       string          `json:"id"`
	At       time.Time       `json:"at"`
	Message  string          `json:"message"` // its id in the log
	User     uint32          `json:"user"`
	UserName string          `json:"user_name"`
	Text     string          `json:"text,omitempty"` // a stranger's
	From     string          `json:"from"`           // his address
	Code     string          `json:"code"`
	Held     string          `json:"held,omitempty"` // number of the held copy
	Evidence json.RawMessage `json:"evidence"`       // the log's record of the message
	State    string          `json:"state"`
	By       string          `json:"by,omitempty"`
	Why      string          `json:"why,omitempty"`
	Done     time.Time       `json:"done,omitzero"`
	Did      string          `json:"did,omitempty"` // what followed
}

// Errors of appeals.
var (
	ErrNoAppeal = errors.New("no such appeal")
	ErrAppealed = errors.New("the message was appealed before")
	ErrMany     = errors.New("there are many open appeals of the user")
)

// AddAppeal keeps a new appeal, unless its user has most open ones already.
func (s *Store) AddAppeal(a Appeal, most int) error {
	text, err := json.Marshal(&a)
	if err != nil {
		return err
	}
	err = s.update(func(tx *sql.Tx) error {
		var open, same int
		err := tx.QueryRow(`SELECT (SELECT count(*) FROM appeals WHERE user = ? AND state = 'open'), (SELECT count(*) FROM appeals WHERE message = ?)`, a.User, a.Message).Scan(&open, &same)
		switch {
		case err != nil:
			return err
		case same > 0:
			return ErrAppealed
		case open >= most:
			return ErrMany
		}
		_, err = tx.Exec(`INSERT INTO appeals (id, at, message, user, state, appeal) VALUES (?, ?, ?, ?, ?, ?)`, a.ID, stamp(a.At), a.Message, a.User, a.State, string(text))
		return err
	})
	if err != nil {
		return fmt.Errorf("could not keep the appeal: %w", err)
	}
	return nil
}

// AppealOf returns the appeal of a message, if there is one.
func (s *Store) AppealOf(message string) (Appeal, bool, error) {
	all, err := s.appeals(`message = ?`, 1, message)
	if err != nil || len(all) == 0 {
		return Appeal{}, false, err
	}
	return all[0], true, nil
}

// Appeals lists appeals, newest first: those of an id or a state, where these are not empty.
func (s *Store) Appeals(id, state string, most int) ([]Appeal, error) {
	where, args := []string{"1 = 1"}, []any{}
	if id != "" {
		where, args = append(where, "id = ?"), append(args, id)
	}
	if state != "" {
		where, args = append(where, "state = ?"), append(args, state)
	}
	return s.appeals(strings.Join(where, " AND "), most, args...)
}

func (s *Store) appeals(where string, most int, args ...any) ([]Appeal, error) {
	rows, err := s.read.Query(`SELECT appeal FROM appeals WHERE `+where+` ORDER BY at DESC, id LIMIT ?`, append(args, most)...)
	if err != nil {
		return nil, fmt.Errorf("could not read the appeals: %w", err)
	}
	defer rows.Close()
	var all []Appeal
	for rows.Next() {
		var text []byte
		var a Appeal
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		if err := json.Unmarshal(text, &a); err != nil {
			return nil, fmt.Errorf("could not read an appeal: %w", err)
		}
		all = append(all, a)
	}
	return all, rows.Err()
}

// DecideAppeal keeps what was decided of an open appeal, and leaves a line in the audit log.
func (s *Store) DecideAppeal(a Appeal, act Act) error {
	text, err := json.Marshal(&a)
	if err != nil {
		return err
	}
	err = s.change(act, func(tx *sql.Tx) error {
		res, err := tx.Exec(`UPDATE appeals SET state = ?, appeal = ? WHERE id = ? AND state = 'open'`, a.State, string(text), a.ID)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, ErrNoAppeal)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("could not decide appeal %s: %w", a.ID, err)
	}
	return nil
}

// OpenAppeals tells how many appeals wait.
func (s *Store) OpenAppeals() (n int, err error) {
	err = s.read.QueryRow(`SELECT count(*) FROM appeals WHERE state = 'open'`).Scan(&n)
	return n, err
}

// CountVerdicts adds to what was stopped as bad on a day, and what of it was found to be good.
func (s *Store) CountVerdicts(day time.Time, stopped, wrong uint64) error {
	_, err := s.write.Exec(`INSERT INTO verdicts (day, stopped, wrong) VALUES (?, ?, ?) ON CONFLICT (day) DO UPDATE SET stopped = stopped + excluded.stopped, wrong = wrong + excluded.wrong`,
		day.UTC().Format(time.DateOnly), int64(stopped), int64(wrong))
	if err != nil {
		return fmt.Errorf("could not count verdicts: %w", err)
	}
	return nil
}

// Verdicts returns what was stopped as bad since a day, and what of it was found to be good.
func (s *Store) Verdicts(since time.Time) (stopped, wrong uint64, err error) {
	err = s.read.QueryRow(`SELECT coalesce(sum(stopped), 0), coalesce(sum(wrong), 0) FROM verdicts WHERE day >= ?`, since.UTC().Format(time.DateOnly)).Scan(&stopped, &wrong)
	if err != nil {
		err = fmt.Errorf("could not read the counts of verdicts: %w", err)
	}
	return stopped, wrong, err
}
