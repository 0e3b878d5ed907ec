package auth

import (
	"errors"

	"github.com/emersion/go-sasl"
)

// Mechanisms are those that Server knows, best first. Both show the password and are for encrypted sessions only.
var Mechanisms = []string{sasl.Plain, sasl.Login}

// Errors of a dialogue.
var (
	errIdentity = errors.New("an authorization identity that is not the login's own (RFC 4616)")
	errDialogue = errors.New("an answer that does not belong to the dialogue")
)

// Server leads a dialogue whose end is told to check; nil for a mechanism that is not known. The error of check comes out
// of the last Next.
func Server(mechanism string, check func(login, password string) error) sasl.Server {
	switch mechanism {
	case sasl.Plain:
		return sasl.NewPlainServer(func(identity, login, password string) error {
			if identity != "" && identity != login {
				return errIdentity
			}
			return check(login, password)
		})
	case sasl.Login:
		return &loginServer{check: check}
	}
	return nil
}

// loginServer asks for name and password in turn, in the words that old clients wait for (draft-murchison-sasl-login).
type loginServer struct {
	check func(login, password string) error
	name  string
	state int
}

const (
	wantsNothing = iota
	wantsName
	wantsPassword
	wantsNoMore
)

// Next implements sasl.Server. A client may send its name as the initial response.
func (s *loginServer) Next(response []byte) (challenge []byte, done bool, err error) {
	if s.state == wantsNothing {
		s.state = wantsName
		if response == nil {
			return []byte("Username:"), false, nil
		}
	}
	switch s.state {
	case wantsName:
		s.name, s.state = string(response), wantsPassword
		return []byte("Password:"), false, nil
	case wantsPassword:
		s.state = wantsNoMore
		return nil, true, s.check(s.name, string(response))
	}
	return nil, true, errDialogue
}
