package view

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/ianaindex"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/traditionalchinese"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/encoding/unicode/utf32"
)

// TestEveryCharset: text in each charset that the decoder knows is read; whatever else is said to be in it is bounded UTF-8.
func TestEveryCharset(t *testing.T) {
	t.Parallel()
	all := slices.Concat(charmap.All, japanese.All, korean.All, simplifiedchinese.All, traditionalchinese.All, unicode.All, utf32.All)
	noise := make([]byte, 300<<10)
	r := rand.New(rand.NewPCG(3, 4))
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	read, names := new(Reader), 0
	for _, e := range all {
		name, err := ianaindex.MIME.Name(e)
		if err != nil {
			if name, err = htmlindex.Name(e); err != nil {
				continue // no mail can name it
			}
		}
		names++
		want := "plain words "
		for _, c := range "Grüße, ÆØłğ Здравствуйте Ελλάδα שלום مرحبا สวัสดี 日本語 テキスト 한국어 简体中文 繁體 " {
			b, err := e.NewEncoder().Bytes([]byte(string(c)))
			if back, _ := e.NewDecoder().Bytes(b); err == nil && string(back) == string(c) && (c > ' ' || want[len(want)-1] != ' ') {
				want += string(c)
			}
		}
		coded, err := e.NewEncoder().Bytes([]byte(want))
		if err != nil {
			t.Fatal(err)
		}
		v := read.Read([]byte("Content-Type: text/plain; charset=" + strings.ToUpper(name) + "\nContent-Transfer-Encoding: base64\n\n" + b64(string(coded))))
		if got := strings.TrimPrefix(string(v.Text), "\ufeff"); got != strings.TrimSpace(want)+"\n" && got != want+"\n" {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
		v = read.Read(append([]byte("Content-Type: text/html; charset="+name+"\n\n"), noise...))
		within(t, v)
		text := bytes.TrimSuffix(v.Text, []byte("\n"))
		for cut := 0; cut < utf8.UTFMax && !utf8.Valid(text); cut++ { // the bound may be within a character
			text = text[:len(text)-1]
		}
		if !utf8.Valid(text) {
			t.Errorf("%s: noise is no UTF-8", name)
		}
	}
	if names < 40 {
		t.Errorf("%d charsets", names)
	}
}

// TestBytewise: what is read byte by byte reads as the library reads it.
func TestBytewise(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(7, 8))
	for _, e := range charmap.All {
		m, ok := e.(*charmap.Charmap)
		if !ok || m.DecodeByte('A') != 'A' {
			continue
		}
		for n := range 200 {
			src := make([]byte, n)
			for i := range src {
				if src[i] = byte(r.Uint32()); r.IntN(4) > 0 {
					src[i] &= 0x7f
				}
			}
			want, err := m.NewDecoder().Bytes(src)
			if got := bytewise([]byte("x"), src, m); err != nil || string(got) != "x"+string(want) {
				t.Fatalf("%v: %q reads %q, want %q, %v", m, src, got, want, err)
			}
		}
	}
}
