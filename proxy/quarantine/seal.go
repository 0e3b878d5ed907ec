package quarantine

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"io"

	"golang.org/x/crypto/chacha20poly1305"
)

// A file is its magic and then pieces of the text, each sealed by itself. The nonce is the number of the piece and whether
// it is the last one, so that none can be left out, repeated or moved: the key is used for one file alone.
const (
	magic = "sluice held 1\n"
	piece = 64 << 10
)

// sealer seals what is written to it.
type sealer struct {
	w    io.Writer
	aead cipher.AEAD
	n    uint64
	buf  []byte // not sealed yet, at most one piece
	out  []byte
}

func newSealer(w io.Writer, key []byte) (*sealer, error) {
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, err
	}
	_, err = io.WriteString(w, magic)
	return &sealer{w: w, aead: aead, buf: make([]byte, 0, piece)}, err
}

func nonceOf(n uint64, last bool) []byte {
	b := make([]byte, chacha20poly1305.NonceSizeX)
	binary.LittleEndian.PutUint64(b, n)
	if last {
		b[8] = 1
	}
	return b
}

// Write implements io.Writer. A whole piece waits until it is known whether it is the last.
func (s *sealer) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		if len(s.buf) == piece {
			if err := s.flush(false); err != nil {
				return n, err
			}
		}
		k := copy(s.buf[len(s.buf):piece], p)
		s.buf = s.buf[:len(s.buf)+k]
		n, p = n+k, p[k:]
	}
	return n, nil
}

func (s *sealer) flush(last bool) error {
	s.out = s.aead.Seal(s.out[:0], nonceOf(s.n, last), s.buf, []byte(magic))
	s.n++
	s.buf = s.buf[:0]
	_, err := s.w.Write(s.out)
	return err
}

// Close seals the last piece; it does not close what it wrote to.
func (s *sealer) Close() error { return s.flush(true) }

var errTampered = errors.New("it is not what was written")

// unseal returns the text of a file.
func unseal(file, key []byte) ([]byte, error) {
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, err
	}
	if len(file) < len(magic) || string(file[:len(magic)]) != magic {
		return nil, errTampered
	}
	file = file[len(magic):]
	text := make([]byte, 0, len(file))
	for n := uint64(0); ; n++ {
		size := min(len(file), piece+aead.Overhead())
		last := size == len(file)
		if text, err = aead.Open(text, nonceOf(n, last), file[:size], []byte(magic)); err != nil {
			return nil, errTampered
		}
		if file = file[size:]; last {
			return text, nil
		}
	}
}
