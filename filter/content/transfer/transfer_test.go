package transfer

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
)

// base64Plainly decodes byte by byte.
func base64Plainly(src []byte) (dst []byte) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	var sixes []byte
	flush := func() {
		switch len(sixes) {
		case 4:
			dst = append(dst, sixes[0]<<2|sixes[1]>>4, sixes[1]<<4|sixes[2]>>2, sixes[2]<<6|sixes[3])
		case 3:
			dst = append(dst, sixes[0]<<2|sixes[1]>>4, sixes[1]<<4|sixes[2]>>2)
		case 2:
			dst = append(dst, sixes[0]<<2|sixes[1]>>4)
		}
		sixes = sixes[:0]
	}
	for i, c := range src {
		switch v := strings.IndexByte(alphabet, c); {
		case v >= 0:
			if sixes = append(sixes, byte(v)); len(sixes) == 4 {
				flush()
			}
		case c == '=':
			flush()
		case c == '-' && (i == 0 || src[i-1] == '\n'):
			flush()
			return dst
		}
	}
	flush()
	return dst
}

// quotedPlainly decodes byte by byte.
func quotedPlainly(src []byte) (dst []byte) {
	for i := 0; i < len(src); i++ {
		if src[i] != '=' {
			dst = append(dst, src[i])
			continue
		}
		if rest := bytes.TrimLeft(src[i+1:], " \t\r"); len(rest) > 0 && rest[0] == '\n' {
			i = len(src) - len(rest)
			continue
		}
		if i+2 < len(src) {
			const digits = "0123456789abcdef"
			hi, lo := strings.IndexByte(digits, lower(src[i+1])), strings.IndexByte(digits, lower(src[i+2]))
			if hi >= 0 && lo >= 0 {
				dst = append(dst, byte(hi<<4|lo))
				i += 2
				continue
			}
		}
		dst = append(dst, '=')
	}
	return dst
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'F' {
		return c | 0x20
	}
	return c
}

// same reports where src is not decoded as it is byte by byte, behind what was there before.
func same(t *testing.T, src []byte) {
	t.Helper()
	for name, x := range map[string]struct {
		got, want []byte
	}{
		"base64":           {AppendBase64([]byte("before"), src), base64Plainly(src)},
		"quoted-printable": {AppendQuoted([]byte("before"), src), quotedPlainly(src)},
	} {
		if !bytes.Equal(x.got, append([]byte("before"), x.want...)) {
			t.Fatalf("%s: %q became %q, want %q", name, src, x.got, x.want)
		}
	}
}

// TestDecodedByteByByte: whatever stands there is decoded as it is byte by byte.
func TestDecodedByteByByte(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(5, 1))
	alphabets := []string{"ABCDabcd01+/", "ABCDabcd01+/==\r\n", "QUJD\n-=", "=3D=0a=\n text", "= \t\r\n=4", "a plain text with few of them, and long =", "\x00\x3d\xbd\xff=\x80gG09"}
	for round := range 600 {
		all := alphabets[r.IntN(len(alphabets))]
		src := make([]byte, r.IntN([]int{12, 80, 600, 90_000}[[]int{0, 1, 2, 0, 1, 2, 0, 1, 2, 3}[round%10]]))
		for i := range src {
			src[i] = all[r.IntN(len(all))]
		}
		same(t, src)
	}
}

func FuzzDecoded(f *testing.F) {
	f.Add([]byte("SGVsbG8=\r\nHello=3D=\r\n you = here=zz\r\n--"))
	f.Fuzz(same)
}
