package sender

import (
	"errors"
	"strings"

	"sluice/filter/message"
	"sluice/filter/policy"
)

// errAuthors: receivers compare a signature with the domain of one author (RFC 7489 6.6.1).
var errAuthors = errors.New("it has not one author")

// AuthorDomain is the domain of a message's one author, as the DNS has it. Header is the beginning of the message.
func AuthorDomain(header []byte) (string, error) {
	from, err := message.Authors(header)
	if err != nil {
		return "", err
	}
	if len(from) != 1 {
		return "", errAuthors
	}
	return policy.ALabel(from[0].Domain())
}

// MaySign tells whether a user, or who logged in, may have mail signed in the name of a domain: it is one of his, or his login's (FRM1).
func MaySign(set *policy.Sender, login, domain string) bool {
	return set.Domains.Has(domain) || login != "" && sameDomain(domain, login[strings.LastIndexByte(login, '@')+1:])
}
