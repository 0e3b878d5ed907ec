package scanner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"

	"sluice/filter"
)

// rspamd asks Rspamd's worker by HTTP.
type rspamd struct {
	http *http.Client
	url  string
}

const rspamdAnswer = 1 << 20

func newRspamd(o *Options, address string) *rspamd {
	nw, at := network(address)
	host := at
	if nw == "unix" {
		host = "localhost"
	}
	return &rspamd{url: "http://" + host, http: &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, nw, at)
			},
			MaxIdleConnsPerHost: o.AtOnce, DisableCompression: true, MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (r *rspamd) ping(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url+"/ping", nil)
	if err != nil {
		return err
	}
	body, err := r.do(req)
	if err == nil && strings.TrimSpace(string(body)) != "pong" {
		err = garbage("ping", body)
	}
	return err
}

// rspamdResult is what counts of the answer.
type rspamdResult struct {
	Action   string            `json:"action"`
	Score    *float64          `json:"score"`
	Required float64           `json:"required_score"`
	Symbols  map[string]symbol `json:"symbols"`
	Messages map[string]words  `json:"messages"`
}

type symbol struct {
	Score float64 `json:"score"`
}

// words are a text, or anything else that a script of the site puts there.
type words struct{ text string }

// UnmarshalJSON takes a text and passes over the rest.
func (m *words) UnmarshalJSON(b []byte) error {
	_ = json.Unmarshal(b, &m.text) // what is no text is not for a client
	return nil
}

func (r *rspamd) ask(ctx context.Context, q *question) ([]filter.Hit, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url+"/checkv2", q.reader())
	if err != nil {
		return nil, err
	}
	req.ContentLength = q.size
	m := q.m
	for name, value := range map[string]string{
		"From": string(m.Envelope.From), "Helo": m.Helo, "Ip": m.Flow.Client.Addr().Unmap().String(), "Queue-Id": m.ID,
		"User": userOf(q), // whoever is known is judged as a sender of one's own, not as a stranger
	} {
		if value = short(value, 320); value != "" {
			req.Header[name] = []string{value}
		}
	}
	for _, to := range m.Envelope.To[:min(len(m.Envelope.To), 100)] {
		req.Header["Rcpt"] = append(req.Header["Rcpt"], short(string(to), 320))
	}
	body, err := r.do(req)
	if err != nil {
		return nil, err
	}
	var res rspamdResult
	if err := json.Unmarshal(body, &res); err != nil || res.Score == nil || res.Action == "" {
		return nil, errors.Join(garbage("checkv2", body), err)
	}
	return res.hits()
}

func userOf(q *question) string {
	if q.m.Login != "" {
		return q.m.Login
	}
	return q.m.Flow.User.Name
}

func (r *rspamd) do(req *http.Request) ([]byte, error) {
	resp, err := r.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, rspamdAnswer))
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode == http.StatusRequestEntityTooLarge:
		return nil, fmt.Errorf("%w: raise max_message in Rspamd's options, or lower max_size here", errTooLarge)
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("HTTP status %d: %.60q", resp.StatusCode, body)
	}
	return body, nil
}

// leastPoints is from how many points on an opinion is told that is no objection.
const leastPoints = 1

// hits is what Rspamd's action comes to. Greylisting and rewriting are for mail that comes in: here they are opinions.
func (r *rspamdResult) hits() ([]filter.Hit, error) {
	h := filter.Hit{Code: "RSPAMD", Weighs: true, Points: *r.Score, Evidence: fmt.Sprintf("%s, score %.2f of %.2f: %s", short(r.Action, 40), *r.Score, r.Required, r.worst())}
	switch r.Action {
	case "no action":
		if *r.Score < leastPoints {
			return nil, nil
		}
		h.Text = "Rspamd finds little in the message"
	case "greylist", "add header", "rewrite subject", "quarantine":
		h.Text = "Rspamd finds the message suspicious"
	case "soft reject":
		h.Class, h.Action, h.SMTP, h.Enhanced, h.Text = filter.Policy, filter.Defer, 451, "4.7.1", "message is not accepted now"
	case "reject":
		h.Class, h.Action, h.SMTP, h.Enhanced, h.Text = filter.Spam, filter.Reject, 550, "5.7.1", "message looks like spam"
	default:
		return nil, fmt.Errorf("action %.40q is unknown", r.Action)
	}
	if text := short(r.Messages["smtp_message"].text, 150); text != "" && h.Action != filter.None {
		h.Text = text
	}
	return []filter.Hit{h}, nil
}

// worst names the symbols that speak most against the message.
func (r *rspamdResult) worst() string {
	var names []string
	for name, s := range r.Symbols {
		if s.Score > 0 {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		if d := r.Symbols[b].Score - r.Symbols[a].Score; d != 0 {
			return map[bool]int{true: 1, false: -1}[d > 0]
		}
		return strings.Compare(a, b)
	})
	var out []string
	for _, name := range names[:min(len(names), 8)] {
		out = append(out, fmt.Sprintf("%s %+.2f", short(name, 40), r.Symbols[name].Score))
	}
	return strings.Join(out, ", ")
}
