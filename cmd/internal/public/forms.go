package public

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"
)

// view is what a page shows.
type view struct {
	*words
	Look    Look
	Title   string
	Message string // says what happened; "" on pages that only show
	Good    bool   // it went well

	Query   string
	Found   []page
	Page    *page
	Refusal *Refusal
	To      string // to how many recipients
	State   string // of an appeal
	M       string // the message in the link
	Lock    *Lock
	May     bool // the button is there
}

// when is how times stand on pages.
func when(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// When shows a time.
func (v *view) When(t time.Time) string { return when(t) }

// Stamp is a time for programs.
func (v *view) Stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func (s *Server) show(w http.ResponseWriter, r *http.Request, status int, v *view) {
	v.words, v.Look = s.words(r), s.o.Look()
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Language", v.Lang)
	w.WriteHeader(status)
	if err := s.html.ExecuteTemplate(w, "page", v); err != nil {
		s.o.Log.Debug("could not write a page", "err", err)
	}
}

// say shows a page that says one thing.
func (s *Server) say(w http.ResponseWriter, r *http.Request, status int, text string) {
	s.show(w, r, status, &view{Title: text})
}

func (s *Server) serveStyle(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/css; charset=utf-8")
	w.Header().Set("Cache-Control", "max-age=3600")
	_, _ = w.Write(s.style) // a browser that left needs no answer
}

func (s *Server) serveIndex(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query().Get("q")
	q = strings.ToValidUTF8(q[:min(len(q), 200)], "")
	s.show(w, r, http.StatusOK, &view{Title: s.words(r).Codes, Query: q, Found: search(s.pages, q)})
}

func (s *Server) serveCode(w http.ResponseWriter, r *http.Request) {
	if v, status := s.code(w, r, r.URL.Query().Get("m")); v != nil {
		s.show(w, r, status, v)
	}
}

// code is the page of a code, with the message that a link names; nil where it was answered already.
func (s *Server) code(w http.ResponseWriter, r *http.Request, m string) (*view, int) {
	p, ok := find(s.pages, r.PathValue("code"))
	if !ok {
		s.say(w, r, http.StatusNotFound, s.words(r).NotFound)
		return nil, 0
	}
	v := &view{Title: p.Title, Page: &p, M: m}
	if m == "" {
		return v, http.StatusOK
	}
	id, err := s.o.Links.Message(m)
	if err != nil {
		return nil, s.forged(w, r)
	}
	ref, err := s.o.Desk.Refused(r.Context(), id)
	switch {
	case errors.Is(err, ErrUnknown):
		v.M, v.Message = "", s.words(r).NotHere
		return v, http.StatusOK
	case err != nil:
		s.fail(w, r, err)
		return nil, 0
	}
	v.Refusal, v.To = ref, s.words(r).To1
	if ref.Recipients != 1 {
		v.To = fmt.Sprintf(s.words(r).ToMany, ref.Recipients)
	}
	v.State = map[string]string{"open": s.words(r).AppealedHint, "approved": s.words(r).Approved, "denied": s.words(r).Denied}[ref.Appeal]
	return v, http.StatusOK
}

// forged answers a link that is not ours. Whoever has many of them is tried no more.
func (s *Server) forged(w http.ResponseWriter, r *http.Request) int {
	if !s.mistakes.allow(s.guest(r), s.o.Now()) {
		s.say(w, r, http.StatusTooManyRequests, s.words(r).TooMany)
	} else {
		s.say(w, r, http.StatusNotFound, s.words(r).Forged)
	}
	return 0
}

func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	s.o.Log.Error("a public page failed", "path", strings.SplitN(r.URL.Path, "/", 3)[1], "err", err)
	s.say(w, r, http.StatusInternalServerError, s.words(r).Failed)
}

// appeal takes a "this is not spam".
func (s *Server) appeal(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		s.say(w, r, http.StatusBadRequest, s.words(r).TooLong)
		return
	}
	v, _ := s.code(w, r, r.PostForm.Get("m"))
	if v == nil {
		return
	}
	text := r.PostForm.Get("text")
	switch {
	case v.Refusal == nil:
		s.show(w, r, http.StatusNotFound, v)
		return
	case len(text) > mostText || !utf8.ValidString(text):
		v.Message = s.words(r).TooLong
		s.show(w, r, http.StatusRequestEntityTooLarge, v)
		return
	case v.Refusal.Appeal != "": // once a message
		s.show(w, r, http.StatusOK, v)
		return
	case !s.writes.allow(s.guest(r), s.o.Now()):
		s.say(w, r, http.StatusTooManyRequests, s.words(r).TooMany)
		return
	}
	err := s.o.Desk.Appeal(r.Context(), Appeal{Message: v.Refusal.ID, Text: strings.TrimSpace(text), From: s.guest(r)})
	switch {
	case errors.Is(err, ErrMany):
		s.say(w, r, http.StatusTooManyRequests, s.words(r).AppealMany)
	case errors.Is(err, ErrUnknown):
		s.say(w, r, http.StatusNotFound, s.words(r).NotHere)
	case err != nil:
		s.fail(w, r, err)
	default:
		v.Refusal.Appeal, v.Message, v.Good, v.State = "open", s.words(r).Appealed, true, s.words(r).AppealedHint
		s.show(w, r, http.StatusOK, v)
	}
}

// lock finds the lock of a link; nil where it was answered already.
func (s *Server) lock(w http.ResponseWriter, r *http.Request) *Lock {
	ticket, err := s.o.Links.Ticket(r.PathValue("token"), s.o.Now())
	switch {
	case errors.Is(err, ErrExpired):
		s.say(w, r, http.StatusGone, s.words(r).Expired)
		return nil
	case err != nil:
		s.forged(w, r)
		return nil
	}
	l, err := s.o.Desk.Locked(r.Context(), ticket)
	if err == nil {
		return l
	}
	if text := s.refused(r, err); text != "" {
		v := &view{Title: text, Lock: l}
		s.show(w, r, http.StatusGone, v)
		return nil
	}
	s.fail(w, r, err)
	return nil
}

// refused is why a lock cannot be ended by link; "" for a failure of ours.
func (s *Server) refused(r *http.Request, err error) string {
	w := s.words(r)
	for _, one := range []struct {
		err  error
		text string
	}{{ErrOver, w.Over}, {ErrUnknown, w.Over}, {ErrManual, w.Manual}, {ErrNever, w.Never}, {ErrUsed, w.Used}, {ErrWithdrawn, w.Withdrawn}} {
		if errors.Is(err, one.err) {
			return one.text
		}
	}
	return ""
}

// showLock shows a lock and the button. It changes nothing.
func (s *Server) showLock(w http.ResponseWriter, r *http.Request) {
	if l := s.lock(w, r); l != nil {
		s.show(w, r, http.StatusOK, &view{Title: s.words(r).Locked, Lock: l, May: true})
	}
}

// unlock ends a lock.
func (s *Server) unlock(w http.ResponseWriter, r *http.Request) {
	if !s.writes.allow(s.guest(r), s.o.Now()) {
		s.say(w, r, http.StatusTooManyRequests, s.words(r).TooMany)
		return
	}
	l := s.lock(w, r)
	if l == nil {
		return
	}
	err := s.o.Desk.Unlock(r.Context(), l.Ticket, s.guest(r))
	switch text := s.refused(r, err); {
	case err == nil:
		s.show(w, r, http.StatusOK, &view{Title: s.words(r).Unlocked, Message: s.words(r).UnlockedHint, Good: true})
	case text != "":
		s.say(w, r, http.StatusGone, text)
	default:
		s.fail(w, r, err)
	}
}
