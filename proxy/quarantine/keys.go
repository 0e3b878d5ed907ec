package quarantine

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"sluice/proxy/durable"
)

// keyring are the keys of the key file: one a line, id, key in base64, date; the last is the one that seals.
type keyring struct {
	path string
	ids  []string
	keys map[string][]byte
	text []byte
}

const keyHead = "# Keys of held messages, the newest last. Without them nobody reads what is held; keep a copy elsewhere.\n"

// openKeys reads the key file, and makes it with a first key where it is missing; fresh tells so.
func openKeys(path string) (k *keyring, fresh bool, err error) {
	k = &keyring{path: path, keys: map[string][]byte{}}
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return k, true, k.add(time.Now())
	}
	if err != nil {
		return nil, false, fmt.Errorf("could not read the key file of held messages: %w", err)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, false, fmt.Errorf("the key file of held messages, %s, may be read by others (mode %04o); chmod 600 it", path, st.Mode().Perm())
	}
	if k.text, err = os.ReadFile(path); err != nil {
		return nil, false, fmt.Errorf("could not read the key file of held messages: %w", err)
	}
	if err := k.parse(); err != nil {
		return nil, false, fmt.Errorf("could not read the key file of held messages, %s: %w; put a copy back", path, err)
	}
	return k, false, nil
}

func (k *keyring) parse() error {
	for in := bufio.NewScanner(bytes.NewReader(k.text)); in.Scan(); {
		f := strings.Fields(in.Text())
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		if len(f) < 2 {
			return fmt.Errorf("the line of key %s ends early", f[0])
		}
		key, err := base64.StdEncoding.DecodeString(f[1])
		if err != nil || len(key) != chacha20poly1305.KeySize {
			return fmt.Errorf("key %s is none", f[0])
		}
		k.ids, k.keys[f[0]] = append(k.ids, f[0]), key
	}
	if len(k.ids) == 0 {
		return errors.New("there is no key in it")
	}
	return nil
}

// add makes a key that seals from now on, and writes the file. After an error nothing has changed.
func (k *keyring) add(now time.Time) error {
	key, id := make([]byte, chacha20poly1305.KeySize), make([]byte, 4)
	_, _ = rand.Read(key) // never fails
	_, _ = rand.Read(id)
	name := hex.EncodeToString(id)
	text := slices.Clone(k.text)
	if len(text) == 0 {
		text = []byte(keyHead)
	}
	text = fmt.Appendf(text, "%s %s %s\n", name, base64.StdEncoding.EncodeToString(key), now.UTC().Format(time.DateOnly))
	if err := durable.WriteFile(k.path, text, 0o600); err != nil {
		return fmt.Errorf("could not write the key file of held messages: %w", err)
	}
	k.text, k.ids, k.keys[name] = text, append(k.ids, name), key
	return nil
}

// keepLast drops all keys but the newest ones.
func (k *keyring) keepLast(n int) error {
	if len(k.ids) <= n {
		return nil
	}
	ids, keys := k.ids[len(k.ids)-n:], map[string][]byte{}
	text := []byte(keyHead)
	for _, id := range ids {
		keys[id] = k.keys[id]
		for line := range bytes.Lines(k.text) {
			if bytes.HasPrefix(line, []byte(id+" ")) {
				text = append(text, line...)
			}
		}
	}
	if err := durable.WriteFile(k.path, text, 0o600); err != nil {
		return fmt.Errorf("could not write the key file of held messages: %w", err)
	}
	k.text, k.ids, k.keys = text, slices.Clone(ids), keys
	return nil
}

// seal seals a message's own key under the newest one; id ties it to the message.
func (k *keyring) seal(own []byte, id string) (keyID string, sealed []byte) {
	keyID = k.ids[len(k.ids)-1]
	return keyID, sealWith(k.keys[keyID], own, id)
}

func sealWith(key, own []byte, id string) []byte {
	aead, _ := chacha20poly1305.NewX(key) // the length is right
	nonce := make([]byte, chacha20poly1305.NonceSizeX)
	_, _ = rand.Read(nonce)
	return aead.Seal(nonce, nonce, own, []byte("own key of "+id))
}

// open returns a message's own key.
func (k *keyring) open(e *Entry) ([]byte, error) {
	key, ok := k.keys[e.KeyID]
	if !ok {
		return nil, fmt.Errorf("%w: %s was sealed under key %s, which is not in %s; put it back from a copy", ErrNoKey, e.ID, e.KeyID, k.path)
	}
	aead, _ := chacha20poly1305.NewX(key)
	if len(e.Key) < chacha20poly1305.NonceSizeX {
		return nil, damaged(e.ID, errors.New("its key is cut"))
	}
	own, err := aead.Open(nil, e.Key[:chacha20poly1305.NonceSizeX], e.Key[chacha20poly1305.NonceSizeX:], []byte("own key of "+e.ID))
	if err != nil {
		return nil, damaged(e.ID, errors.New("its key does not open"))
	}
	return own, nil
}
