package proxy

import (
	"encoding/base64"
	"errors"
	"strings"

	"sluice/intercept/flow"
	"sluice/proxy/auth"
	"sluice/proxy/smtp"
)

// The answers of a smarthost about logins (RFC 4954 section 6).
var (
	authPlain   = answer{538, smtp.Enhanced{5, 7, 11}, "begin TLS first, a password is not for others to read"}
	authWrong   = answer{535, smtp.Enhanced{5, 7, 8}, "wrong login or password"}
	authBusy    = answer{454, smtp.Enhanced{4, 7, 0}, "the login cannot be checked now, try again later"}
	authShut    = answer{421, smtp.Enhanced{4, 7, 0}, "too many wrong passwords from this address, try again later"}
	authCancel  = answer{501, smtp.Enhanced{5, 7, 0}, "authentication cancelled"}
	authGarbled = answer{501, smtp.Enhanced{5, 5, 2}, "this is not base64"}
	authDone    = answer{235, smtp.Enhanced{2, 7, 0}, "welcome"}
)

// mostAttempts is how many wrong passwords one session may try.
const mostAttempts = 3

// houseAuth lets a client log in (RFC 4954).
func (s *session) houseAuth(cmd *smtp.Command) {
	defer s.conn.WipeInput()
	args := strings.Fields(string(cmd.Arg))
	switch {
	case s.helo == "":
		s.say(sayHelloFirst)
		return
	case s.tx.open:
		s.say(authInMail)
		return
	case s.who.Login != "":
		s.say(authAlready)
		return
	case s.house.Logins == nil:
		s.say(notImplemented)
		return
	case !s.secure.Load():
		s.say(authPlain)
		return
	case len(args) == 0 || len(args) > 2:
		s.say(authUnknown)
		return
	}
	var who Client
	var checked error
	server := auth.Server(strings.ToUpper(args[0]), func(login, password string) error {
		who, checked = s.house.Logins.Login(&s.ctx, s.flow.Client.Addr(), login, password)
		return checked
	})
	if server == nil {
		s.say(authUnknown)
		return
	}
	var response []byte
	if len(args) == 2 {
		var bad bool
		if response, bad = unbase64(args[1]); bad {
			s.say(authGarbled)
			return
		}
	}
	for {
		challenge, done, err := server.Next(response)
		if done || err != nil {
			s.loggedIn(&who, checked, err)
			return
		}
		s.conn.WriteReply(334, smtp.Enhanced{}, base64.StdEncoding.EncodeToString(challenge))
		line, err := s.conn.ReadSecret(smtp.MaxAuthLine)
		if err != nil {
			s.unread(err)
			return
		}
		if string(line) == "*" {
			s.say(authCancel)
			return
		}
		var bad bool
		if response, bad = unbase64(string(line)); bad {
			s.say(authGarbled)
			return
		}
	}
}

// unbase64 reads what a client says in the dialogue; "=" is nothing (RFC 4954 section 4).
func unbase64(text string) (b []byte, bad bool) {
	if text == "=" {
		return []byte{}, false
	}
	b, err := base64.StdEncoding.DecodeString(text)
	if b == nil {
		b = []byte{}
	}
	return b, err != nil
}

// loggedIn answers the end of a dialogue.
func (s *session) loggedIn(who *Client, checked, err error) {
	switch {
	case errors.Is(checked, auth.ErrShut):
		s.leave(authShut)
		return
	case errors.Is(checked, auth.ErrBusy):
		s.say(authBusy)
		s.note = checked.Error()
		return
	case err != nil: // wrong, or against the rules of the mechanism
		s.note = "the login was refused"
		s.attempts++
		s.say(authWrong)
		if s.attempts >= mostAttempts {
			s.leave(tooManyErrors)
		}
		return
	}
	if !s.srv.become(s, who.User) {
		s.leave(crowdedUser)
		return
	}
	s.who = who
	if u := s.srv.cfg.Policy.Settings(who.User.ID); u != nil {
		s.user = u
	}
	s.explains.Store(s.locked())
	s.note = "logged in as " + who.Login
	s.offerHouse()
	s.say(authDone)
}

// become makes the session one of a user's; false where he has as many as he may.
func (s *Server) become(ss *session, u flow.User) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := ss.flow.User.ID
	if old == u.ID {
		ss.flow.User = u
		return true
	}
	if most := ss.set.UserSessions; most > 0 && s.users[u.ID] >= most {
		return false
	}
	if s.users[old]--; s.users[old] == 0 {
		delete(s.users, old)
	}
	s.users[u.ID]++
	ss.flow.User = u
	return true
}
