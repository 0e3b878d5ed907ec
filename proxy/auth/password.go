package auth

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
)

// The cost of a hash: RFC 9106 leaves it to the site; 19 MiB and two passes are some 25 ms of one processor.
const (
	hashMemory = 19 << 10 // KiB
	hashPasses = 2
	hashLanes  = 1
	hashSalt   = 16 // bytes
	hashKey    = 32 // bytes
)

// Bounds of a password, in bytes.
const (
	LeastPassword = 8
	MostPassword  = 256
)

// Most that a stored hash may ask for, so that a damaged one cannot take all memory.
const (
	mostMemory = 256 << 10 // KiB
	mostPasses = 16
)

// Hash makes what is stored of a password: Argon2id in the PHC string format.
func Hash(password string) (string, error) {
	if n := len(password); n < LeastPassword || n > MostPassword || strings.ContainsRune(password, 0) {
		return "", fmt.Errorf("could not take the password: it has %d bytes or a NUL; give %d to %d bytes without NUL", n, LeastPassword, MostPassword)
	}
	salt := make([]byte, hashSalt)
	if _, err := rand.Read(salt); err != nil {
		return "", err
	}
	key := argon2.IDKey([]byte(password), salt, hashPasses, hashMemory, hashLanes, hashKey)
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, hashMemory, hashPasses, hashLanes,
		base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(key)), nil
}

var errHash = errors.New("the stored hash of the password is damaged; set the password again")

type parsed struct {
	memory, passes uint32
	lanes          uint8
	salt, key      []byte
}

func parseHash(encoded string) (p parsed, err error) {
	parts := strings.Split(encoded, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" {
		return p, errHash
	}
	var version int
	if _, err := fmt.Sscanf(parts[2], "v=%d", &version); err != nil || version != argon2.Version {
		return p, errHash
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &p.memory, &p.passes, &p.lanes); err != nil {
		return p, errHash
	}
	p.salt, err = base64.RawStdEncoding.DecodeString(parts[4])
	if err == nil {
		p.key, err = base64.RawStdEncoding.DecodeString(parts[5])
	}
	if err != nil || len(p.salt) < 8 || len(p.key) < 16 || p.memory < 8 || p.memory > mostMemory || p.passes < 1 || p.passes > mostPasses || p.lanes < 1 {
		return p, errHash
	}
	return p, nil
}

// verify tells whether the hash is the password's.
func verify(encoded, password string) (bool, error) {
	p, err := parseHash(encoded)
	if err != nil {
		return false, err
	}
	key := argon2.IDKey([]byte(password), p.salt, p.passes, p.memory, p.lanes, uint32(len(p.key)))
	return subtle.ConstantTimeCompare(key, p.key) == 1, nil
}
