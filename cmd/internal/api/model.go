package api

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Models shows, teaches and changes the model of the content filter. Who is the operator's account.
type Models interface {
	Model(ctx context.Context) (*Model, error)
	ExportModel(ctx context.Context, w io.Writer) error
	ImportModel(ctx context.Context, who string, r io.Reader, now bool) (*Model, error)
	UseModel(ctx context.Context, who, which string) (*Model, error)
	DropShadow(ctx context.Context, who string) (*Model, error)
	PreviousModel(ctx context.Context, who string) (*Model, error)
	Train(ctx context.Context, who string, data []byte, bad bool, source string) (*Lesson, error)
	Untrain(ctx context.Context, who string, data []byte) (*Lesson, error)
	ConfirmDoubt(ctx context.Context, who string, d Verdict) (*Model, error)
}

// Model is what the content filter judges by, and what that is worth here.
type Model struct {
	Name     string       `json:"name"`
	Built    time.Time    `json:"built"`
	From     []string     `json:"from,omitempty" doc:"sources of the messages that it was built of"`
	Good     int          `json:"good" doc:"messages learnt as good"`
	Bad      int          `json:"bad"`
	Lessons  int          `json:"lessons" doc:"messages learnt here that can be unlearnt"`
	Previous string       `json:"previous,omitempty" doc:"what POST /v1/model/back puts back"`
	Shadow   *ShadowModel `json:"shadow,omitempty" doc:"a model that judges beside it and decides nothing"`
	Learned  string       `json:"learned" doc:"the setting content.learned"`
	Acting   bool         `json:"acting" doc:"what was learnt refuses"`
	Missing  string       `json:"missing,omitempty" doc:"what it lacks for that"`
	Taken    int64        `json:"taken_for_good" doc:"messages of this network"`
	Wrong    int64        `json:"wrong" doc:"kinds of messages that it took for spam and people for good"`
	Doubts   []Doubt      `json:"doubts" doc:"kinds of messages that it would have refused, most frequent first"`
}

// ShadowModel is a model that judges all mail beside the one in use, and decides about none.
type ShadowModel struct {
	Name     string    `json:"name"`
	Built    time.Time `json:"built"`
	From     []string  `json:"from,omitempty"`
	Good     int       `json:"good" doc:"messages learnt as good"`
	Bad      int       `json:"bad"`
	Lessons  int       `json:"lessons" doc:"messages learnt here"`
	Since    time.Time `json:"since"`
	Judged   int64     `json:"judged" doc:"messages since then"`
	Both     int64     `json:"both" doc:"those that both models take for spam"`
	Alone    int64     `json:"alone" doc:"those that it alone takes for spam"`
	MissedBy int64     `json:"missed" doc:"those that the model in use alone takes for spam"`
	Ready    bool      `json:"ready" doc:"once in use it may refuse at once"`
	Missing  string    `json:"missing,omitempty" doc:"what it lacks for that"`
	Taken    int64     `json:"taken_for_good"`
	Wrong    int64     `json:"wrong"`
	Doubts   []Doubt   `json:"doubts" doc:"kinds of messages that it would have refused, most frequent first"`
}

// Doubt is a kind of message of which nobody has said whether it was bad.
type Doubt struct {
	ID          string    `json:"id" doc:"the first message of its kind, as the log has it"`
	At          time.Time `json:"at"`
	Count       int       `json:"count"`
	Probability float64   `json:"probability"`
}

// Verdict says of a doubt whether it was bad.
type Verdict struct {
	ID  string `json:"id"`
	Bad bool   `json:"bad"`
}

// Lesson is a message that was learnt, or unlearnt.
type Lesson struct {
	Digest string  `json:"digest" doc:"SHA-256 of the message with CRLF line ends"`
	Bad    bool    `json:"bad"`
	Source string  `json:"source"`
	Steps  float64 `json:"steps" doc:"how far the model moved; 0: it knew already"`
}

const (
	maxTaught = 64 << 20 // bytes of a message
	maxModel  = 64 << 20 // bytes of a model's file
)

func (s *Server) modelRoutes() []route {
	return []route{
		{method: "GET", path: "/v1/model", summary: "the model of the content filter, and what it is worth here", out: Model{},
			serve: func(r *http.Request) (any, error) { return s.back.Model(r.Context()) }},
		{method: "GET", path: "/v1/model/file", summary: "the model as a file", raw: func(w http.ResponseWriter, r *http.Request) error {
			w.Header().Set("Content-Type", "application/octet-stream")
			return s.back.ExportModel(r.Context(), w)
		}},
		{method: "PUT", path: "/v1/model/file", summary: "put another model in shadow; the body is its file", out: Model{}, limit: maxModel, query: []param{{"now", "1: in the place of the one in use at once"}},
			serve: func(r *http.Request) (any, error) {
				return s.back.ImportModel(r.Context(), who(r.Context()), r.Body, r.URL.Query().Get("now") == "1")
			}},
		{method: "POST", path: "/v1/model/use", summary: "put the model in shadow into use, or the shipped one", out: Model{}, query: []param{{"model", "shadow, or shipped"}},
			serve: func(r *http.Request) (any, error) {
				which := r.URL.Query().Get("model")
				if which != "shadow" && which != "shipped" {
					return nil, invalid(fmt.Sprintf("model=%s is neither shadow nor shipped", which), "say which is meant")
				}
				return s.back.UseModel(r.Context(), who(r.Context()), which)
			}},
		{method: "DELETE", path: "/v1/model/shadow", summary: "end the shadow", out: Model{},
			serve: func(r *http.Request) (any, error) { return s.back.DropShadow(r.Context(), who(r.Context())) }},
		{method: "POST", path: "/v1/model/back", summary: "put back the model before the last import, or before the day's first lesson", out: Model{},
			serve: func(r *http.Request) (any, error) { return s.back.PreviousModel(r.Context(), who(r.Context())) }},
		{method: "POST", path: "/v1/model/train", summary: "teach a message; the body is the message", out: Lesson{}, limit: maxTaught, serve: s.train,
			query: []param{{"class", "spam or ham"}, {"source", "who says so, where it is not the operator: each has a budget a day"}}},
		{method: "POST", path: "/v1/model/untrain", summary: "take back what was learnt of a message; the body is the message", out: Lesson{}, limit: maxTaught, serve: s.untrain},
		{method: "POST", path: "/v1/model/doubts", summary: "say of a kind of message that would have been refused whether it was bad", in: Verdict{}, out: Model{}, serve: s.confirm},
	}
}

func (s *Server) train(r *http.Request) (any, error) {
	q := r.URL.Query()
	class := q.Get("class")
	if class != "spam" && class != "ham" {
		return nil, invalid(fmt.Sprintf("class=%s is neither spam nor ham", class), "say which it is")
	}
	data, err := mailOf(r)
	if err != nil {
		return nil, err
	}
	return s.back.Train(r.Context(), who(r.Context()), data, class == "spam", q.Get("source"))
}

func (s *Server) untrain(r *http.Request) (any, error) {
	data, err := mailOf(r)
	if err != nil {
		return nil, err
	}
	return s.back.Untrain(r.Context(), who(r.Context()), data)
}

// mailOf reads a request's body that is a message.
func mailOf(r *http.Request) ([]byte, error) {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, invalid(fmt.Sprintf("could not read the message: %v", err), "send at most 64 MiB")
	}
	if len(data) == 0 {
		return nil, invalid("there is no message", "send it as the request's body")
	}
	return data, nil
}

func (s *Server) confirm(r *http.Request) (any, error) {
	var v Verdict
	if err := body(r, &v); err != nil {
		return nil, err
	}
	return s.back.ConfirmDoubt(r.Context(), who(r.Context()), v)
}
