package control

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// raw speaks to the server as another version of the proxy might.
type raw struct {
	t *testing.T
	c *net.UnixConn
}

func rawDial(t *testing.T, path string) *raw {
	t.Helper()
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return &raw{t, c}
}

func (r *raw) say(packets ...string) {
	r.t.Helper()
	for _, p := range packets {
		if _, err := r.c.Write([]byte(p)); err != nil {
			r.t.Fatal(err)
		}
	}
}

func (r *raw) hear() *Reply {
	r.t.Helper()
	b := make([]byte, MaxPacket)
	n, err := r.c.Read(b)
	if err != nil {
		r.t.Fatal(err)
	}
	rep := new(Reply)
	if err := json.Unmarshal(b[:n], rep); err != nil {
		r.t.Fatal(err)
	}
	return rep
}

// TestNewerProxy: what an older helper does not know it ignores or refuses, and nothing else suffers.
func TestNewerProxy(t *testing.T) {
	t.Parallel()
	h := &fakeHelper{}
	r := rawDial(t, serve(t, h, anyone))
	for name, tc := range map[string]struct {
		packets []string
		code    string
		text    string
	}{
		"a key more":       {packets: []string{`{"v":1,"id":7,"op":"status","more_detail":{"deep":[1]}}`}},
		"a key in a list":  {packets: []string{`{"v":1,"id":7,"op":"users","sources":[{"prefix":"192.0.2.0/24","user":1,"mode":"drop","fail":"open","colour":"red"}]}`}},
		"an operation":     {packets: []string{`{"v":1,"id":7,"op":"levitate","height":3}`}, code: CodeUnknown, text: "restart it"},
		"a word":           {packets: []string{`{"v":1,"id":7,"op":"put-users","sources":[{"prefix":"192.0.2.0/24","user":1,"mode":"levitate","fail":"open"}]}`}, code: CodeInvalid, text: "levitate"},
		"a word in a part": {packets: []string{`{"v":1,"id":7,"op":"users","more":true,"sources":[{"prefix":"192.0.2.0/24","user":1,"mode":"levitate","fail":"open"}]}`, `{"v":1,"id":7,"op":"users","sources":[]}`}, code: CodeInvalid, text: "levitate"},
		"in the last part": {packets: []string{`{"v":1,"id":7,"op":"users","more":true,"sources":[]}`, `{"v":1,"id":7,"op":"users","sources":[{"prefix":"192.0.2.0/24","user":1,"mode":"levitate","fail":"open"}]}`}, code: CodeInvalid, text: "levitate"},
		"another type":     {packets: []string{`{"v":1,"id":7,"op":"announce","for":"PT1M"}`}, code: CodeInvalid, text: "announce"},
	} {
		r.say(tc.packets...)
		rep := r.hear()
		if rep.ID != 7 || (rep.Err == nil) != (tc.code == "") {
			t.Errorf("%s: answered %+v", name, rep)
			continue
		}
		if rep.Err != nil && (rep.Err.Code != tc.code || !strings.Contains(rep.Err.Text, tc.text)) {
			t.Errorf("%s: refused with %q, %q", name, rep.Err.Code, rep.Err.Text)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.reqs) != 2 {
		t.Errorf("the helper was asked %d times, want twice", len(h.reqs))
	}
}

func TestOtherVersionIsToldWhy(t *testing.T) {
	t.Parallel()
	r := rawDial(t, serve(t, &fakeHelper{}, anyone))
	r.say(`{"v":2,"id":3,"op":"hello","novelty":true}`)
	if rep := r.hear(); rep.ID != 3 || rep.V != Version || rep.Err == nil || rep.Err.Code != CodeVersion || !strings.Contains(rep.Err.Text, "version 2") {
		t.Errorf("answered %+v %+v", rep, rep.Err)
	}
	if n, err := r.c.Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection stays open: %d, %v", n, err)
	}
}

// scripted is a helper of another version: it answers each packet with the next of its answers.
func scripted(t *testing.T, answers ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.sock")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		c, err := l.AcceptUnix()
		l.Close() // there is no lane
		if err != nil {
			return
		}
		defer c.Close()
		for _, a := range answers {
			if _, err := c.Read(make([]byte, MaxPacket)); err != nil {
				return
			}
			if _, err := c.Write([]byte(a)); err != nil {
				return
			}
		}
		_, _ = c.Read(make([]byte, 1)) // until the client leaves
	}()
	return path
}

func TestNewerHelper(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, w, err := Dial(ctx, scripted(t,
		`{"v":1,"id":1,"welcome":{"helper":"9","path":"carrier pigeon","local":null,"ports":[25],"delivery":null,"wings":2},"novelty":1}`,
		`{"v":1,"id":2,"status":{"helper":"9","pid":1,"path":"x","path_reason":"","interfaces":null,"heartbeat":"alive","heartbeat_age_ms":1,"listeners":null,"sources":1,"locks":0,"depth":{"a":1}}}`), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if w.Helper != "9" || len(w.Ports) != 1 {
		t.Errorf("welcome is %+v", w)
	}
	if st, err := c.Status(ctx); err != nil || st.Heartbeat != "alive" {
		t.Errorf("status is %+v, %v", st, err)
	}

	_, _, err = Dial(ctx, scripted(t, `{"v":2,"id":1,"welcome":{}}`), nil)
	if e, ok := errors.AsType[*Error](err); !ok || e.Code != CodeVersion || !strings.Contains(e.Text, "restart the older") {
		t.Errorf("a helper of another version: %v", err)
	}
}
