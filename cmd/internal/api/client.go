package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"syscall"
	"time"
)

// Client speaks to the API on a unix socket.
type Client struct {
	Token  string // shown with each request, unless it is empty
	socket string
	http   http.Client
}

// NewClient returns a client of the API at socket. Nothing is opened before the first request, and each has a connection of its own: one
// that stood idle may be a process's that has handed over and goes.
func NewClient(socket string) *Client {
	c := &Client{socket: socket}
	c.http.Transport = &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}
	return c
}

// Do makes one request, with in as its body unless it is nil, as JSON unless it is a reader, and reads the answer into out unless that is nil. The
// error is a *Problem when the daemon, or the way to it, said no.
func (c *Client) Do(ctx context.Context, method, path string, in, out any) error {
	res, err := c.send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(res.Body).Decode(out); err != nil {
		return fmt.Errorf("could not read the daemon's answer to %s %s: %w; are command and daemon of one version?", method, path, err)
	}
	return nil
}

// Fetch writes the body of the answer to a GET to w as it is.
func (c *Client) Fetch(ctx context.Context, path string, w io.Writer) error {
	res, err := c.send(ctx, "GET", path, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(w, res.Body); err != nil {
		return fmt.Errorf("could not read the daemon's answer to GET %s: %w", path, err)
	}
	return nil
}

// Follow hands over the lines of the message log that q selects as they come, until ctx ends.
func (c *Client) Follow(ctx context.Context, q Query, take func(*Message) error) error {
	v := q.Values()
	v.Set("follow", "1")
	res, err := c.send(ctx, "GET", "/v1/log?"+v.Encode(), nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	lines := bufio.NewReader(res.Body)
	for {
		line, err := lines.ReadBytes('\n')
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, io.EOF) {
			return &Problem{Code: "ended", What: "the daemon ended the stream", Remedy: "it was stopped or restarted: run the command again"}
		}
		if err != nil {
			return fmt.Errorf("could not go on reading the log: %w", err)
		}
		var m struct {
			Message
			Error *Problem `json:"error"`
		}
		if err := json.Unmarshal(line, &m); err != nil {
			return fmt.Errorf("could not read a line of the log: %w; are command and daemon of one version?", err)
		}
		if m.Error != nil {
			return m.Error
		}
		if err := take(&m.Message); err != nil {
			return err
		}
	}
}

// Values writes q as the parameters of GET /v1/log.
func (q Query) Values() url.Values {
	v := url.Values{}
	set := func(name, value string) {
		if value != "" {
			v.Set(name, value)
		}
	}
	set("user", q.User)
	set("status", q.Status)
	set("id", q.ID)
	set("ticket", q.Ticket)
	set("campaign", q.Campaign)
	set("identity", q.Identity)
	set("from", q.From)
	set("to", q.To)
	set("code", q.Code)
	if q.Target.IsValid() {
		v.Set("target", q.Target.String())
	}
	for _, w := range q.Where {
		v.Add("where", w)
	}
	if !q.Since.IsZero() {
		v.Set("since", q.Since.Format(time.RFC3339))
	}
	if !q.Until.IsZero() {
		v.Set("until", q.Until.Format(time.RFC3339))
	}
	if q.Client.IsValid() {
		v.Set("client", q.Client.String())
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	return v
}

func (c *Client) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	b, raw := in.(io.Reader) // a list goes as it is
	if in != nil && !raw {
		j, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		b = bytes.NewReader(j)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://sluice"+path, b)
	if err != nil {
		return nil, err
	}
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if res.StatusCode >= 200 && res.StatusCode < 300 {
		return res, nil
	}
	defer res.Body.Close()
	var e struct{ Error *Problem }
	if err := json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&e); err != nil || e.Error == nil {
		return nil, fmt.Errorf("the daemon answered %s to %s %s", res.Status, method, path)
	}
	e.Error.Status = res.StatusCode
	return nil, e.Error
}

// unreachable says why the daemon could not be spoken to, and what helps.
func (c *Client) unreachable(err error) error {
	p := &Problem{Code: "unreachable", What: fmt.Sprintf("could not reach sluiced at %s: %v", c.socket, cause(err))}
	switch {
	case errors.Is(err, os.ErrPermission):
		p.Remedy = "become root, or a member of the socket's group (`ls -l " + c.socket + "`)"
	case errors.Is(err, os.ErrNotExist):
		p.Remedy = "start it with `systemctl start sluiced`, or name its socket with --socket"
	case errors.Is(err, syscall.ECONNREFUSED):
		p.Remedy = "it is not running: `systemctl status sluiced`, `journalctl -u sluiced`"
	default:
		p.Remedy = "see `systemctl status sluiced`"
	}
	return p
}

// cause strips what net and url put around an error of the system.
func cause(err error) error {
	var n syscall.Errno
	if errors.As(err, &n) {
		return n
	}
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
