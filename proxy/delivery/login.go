package delivery

import (
	"encoding/base64"
	"fmt"

	"sluice/proxy/relay"
	"sluice/proxy/smtp"
)

// login authenticates at a relay, within TLS alone.
func login(s *relay.Session, up *Upstream) error {
	c := s.Caps()
	refuse := func(text string) error {
		return &relay.Failure{Code: 454, Enh: smtp.Enhanced{4, 7, 0}, Text: text}
	}
	var lines []string
	b64 := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
	switch {
	case !c.Encrypted:
		return refuse("the relay does not encrypt, and a password is not sent in the clear")
	case smtp.HasFold(c.Auth, "PLAIN"):
		lines = []string{"AUTH PLAIN " + b64("\x00"+up.User+"\x00"+up.Password)}
	case smtp.HasFold(c.Auth, "LOGIN"):
		lines = []string{"AUTH LOGIN", b64(up.User), b64(up.Password)}
	default:
		return refuse("the relay offers neither AUTH PLAIN nor AUTH LOGIN")
	}
	for i, line := range lines {
		r, err := s.Say([]byte(line))
		switch {
		case err != nil:
			return err
		case i == len(lines)-1 && r.Class() == 2:
			return nil
		case i == len(lines)-1 || r.Code != 334:
			return refuse(fmt.Sprintf("the relay refuses the login: %d %s", r.Code, r.Text()))
		}
	}
	return nil
}
