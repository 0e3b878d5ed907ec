package sign

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"
)

// testKeys are a key of each type, which nobody but the tests needs.
var testKeys = sync.OnceValue(func() (all []*Held) {
	for selector, kind := range map[string]string{"r": RSA, "e": Ed25519} {
		h, err := NewHeld("alice.example", selector, kind, time.Unix(1_800_000_000, 0))
		if err != nil {
			panic(err)
		}
		all = append(all, h)
	}
	return all
})

func keysOf(t testing.TB, all []*Held) (keys []*Key) {
	t.Helper()
	for _, h := range all {
		k, err := h.Key()
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	return keys
}

// signed puts the signatures before a message, whose body comes in small pieces.
func signed(t testing.TB, keys []*Key, head, body string, piece int) ([]byte, error) {
	t.Helper()
	fields, err := AppendSignatures(nil, keys, []byte(head), func(w io.Writer) error {
		for rest := body; rest != ""; {
			n := min(piece, len(rest))
			if _, err := io.WriteString(w, rest[:n]); err != nil {
				return err
			}
			rest = rest[n:]
		}
		return nil
	}, time.Now())
	return append(fields, head+body...), err
}

// verdicts are what a verifier that we did not write says of each signature.
func verdicts(t testing.TB, mail []byte) (all []error) {
	t.Helper()
	records := map[string]string{}
	for _, h := range testKeys() {
		records[h.Name()] = h.Record()
	}
	vs, err := dkim.VerifyWithOptions(bytes.NewReader(mail), &dkim.VerifyOptions{LookupTXT: func(name string) ([]string, error) {
		if r, ok := records[name]; ok {
			return []string{r}, nil
		}
		return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range vs {
		if v.Domain != "alice.example" {
			t.Errorf("signed by %s", v.Domain)
		}
		all = append(all, v.Err)
	}
	return all
}

const testHead = "Received: from x by y; today\r\nFROM : Alice <a@alice.example>\r\nTo: b@sink.example,\r\n\t c@sink.example\r\nSubject:  two  blanks\t\r\n  and a fold \r\n" +
	"Date: Sat, 21 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@alice.example>\r\nList-Unsubscribe: <https://alice.example/u>\r\nX-Empty:\r\nComments: \x0b odd \x85\r\n\r\n"

// TestSignaturesVerify: whatever the body, in whatever pieces, both signatures verify; what is changed, taken away or added does not.
func TestSignaturesVerify(t *testing.T) {
	t.Parallel()
	keys := keysOf(t, testKeys())
	bodies := []string{
		"", "\r\n", "\r\n\r\n\r\n", " \t\r\n \r\n", "text\r\n", "text", "text\r\n\r\n\r\n", "\r\n\r\ntext\r\n", " a  b \t\r\n\t\r\n  c\r\n",
		".\r\n..\r\n", "Grüße \xff\x00\x0b\x0c\x1f end \r\n", strings.Repeat("x", 3*canonicalBlock) + "\r\n", strings.Repeat("\r\n", 20_000) + "x\r\n", strings.Repeat("word word\r\n", 5000),
	}
	for i, body := range bodies {
		for _, piece := range []int{1, 7, 1 << 20} {
			if piece == 1 && len(body) > 1000 {
				continue
			}
			mail, err := signed(t, keys, testHead, body, piece)
			if err != nil {
				t.Fatal(err)
			}
			if v := verdicts(t, mail); len(v) != 2 || v[0] != nil || v[1] != nil {
				t.Errorf("body %d in pieces of %d: %v", i, piece, v)
			}
			for line := range strings.SplitSeq(string(mail[:len(mail)-len(testHead)-len(body)]), "\r\n") {
				if len(line) > 78+3 {
					t.Errorf("a line of %d characters: %s", len(line), line)
				}
			}
		}
	}
	mail, err := signed(t, keys, testHead, "text\r\n", 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ what, old, new string }{
		{"the body", "text\r\n", "texts\r\n"}, {"a field", "two  blanks", "two blanks!"}, {"one more From", "FROM :", "From: eve@evil.example\r\nFROM :"},
		{"one more Subject", "Subject:", "Subject: other\r\nSubject:"}, {"one more Reply-To", "Subject:", "Reply-To: eve@evil.example\r\nSubject:"},
		{"no link", "List-Unsubscribe:", "X-List-Unsubscribe:"}, {"another charset", "X-Empty:", "Content-Type: text/html\r\nX-Empty:"},
	} {
		spoilt := bytes.Replace(mail, []byte("\r\n"+c.old), []byte("\r\n"+c.new), 1)
		if c.old == "two  blanks" {
			spoilt = bytes.Replace(mail, []byte(c.old), []byte(c.new), 1)
		}
		if bytes.Equal(spoilt, mail) {
			t.Fatalf("%s is as it was", c.what)
		}
		if v := verdicts(t, spoilt); len(v) != 2 || v[0] == nil || v[1] == nil {
			t.Errorf("%s was changed: %v", c.what, v)
		}
	}
	for _, c := range []struct{ old, new string }{{"Received: from x", "Received: from elsewhere"}, {"two  blanks", "two blanks"}, {"text\r\n", "text  \r\n\r\n"}} {
		if v := verdicts(t, bytes.Replace(mail, []byte(c.old), []byte(c.new), 1)); len(v) != 2 || v[0] != nil || v[1] != nil {
			t.Errorf("%q instead of %q breaks it: %v", c.new, c.old, v)
		}
	}
}

// TestRandomMailVerifies: messages of random fields and bodies, in random pieces.
func TestRandomMailVerifies(t *testing.T) {
	t.Parallel()
	keys := keysOf(t, testKeys())[:1]
	if _, ok := keys[0].Signer.Public().(interface{ Size() int }); ok {
		keys = keysOf(t, testKeys())[1:] // the quick one
	}
	r := rand.New(rand.NewPCG(1, 2))
	some := func(words ...string) string {
		var b strings.Builder
		for range r.IntN(12) {
			b.WriteString(words[r.IntN(len(words))])
		}
		return b.String()
	}
	for range 2000 {
		head := ""
		for range r.IntN(8) {
			head += some("Sub", "ject", "To", "Cc", "X-", "Date", "Reply-To") + "x: " + some(" ", "\t", "a", "b@c", "\r\n ", "\r\n\t", ":", ";") + "\r\n"
		}
		head = strings.ReplaceAll(strings.ReplaceAll(head+"From: a@alice.example\r\nSubject:"+some(" ", "\t", "a", "\r\n x")+"\r\n\r\n", "\r\n \r\n", "\r\n"), "\r\n\t\r\n", "\r\n")
		if strings.HasPrefix(head, "x:") || strings.Contains(head, "\nx:") {
			head = strings.ReplaceAll(head, "x:", "X:")
		}
		body := some(" ", "\t", "\r\n", "text", ".", "\r\n\r\n")
		mail, err := signed(t, keys, head, body, 1+r.IntN(9))
		if errors.Is(err, errNotFields) {
			continue // a fold that is blank
		}
		if err != nil {
			t.Fatal(err)
		}
		if v := verdicts(t, mail); len(v) != 1 || v[0] != nil {
			t.Fatalf("%q: %v", mail, v)
		}
	}
}

// TestWhatCannotBeSigned says why, and signs nothing.
func TestWhatCannotBeSigned(t *testing.T) {
	t.Parallel()
	keys := keysOf(t, testKeys())
	for _, c := range []struct {
		head string
		want error
	}{
		{"Subject: x\r\n\r\n", errNoFrom}, {"", errNoFrom}, {"From: a@alice.example\r\nno field\r\n\r\n", errNotFields}, {": x\r\nFrom: a@alice.example\r\n\r\n", errNotFields},
		{"From: a@alice.example\r\n" + strings.Repeat("To: x@y.example\r\n", 500) + "\r\n", errTooMany},
	} {
		if mail, err := signed(t, keys, c.head, "x\r\n", 10); !errors.Is(err, c.want) || bytes.Contains(mail, []byte("DKIM")) {
			t.Errorf("%.40q: %v, want %v", c.head, err, c.want)
		}
	}
	lost := errors.New("the disk is gone")
	if _, err := AppendSignatures(nil, keys, []byte(testHead), func(io.Writer) error { return lost }, time.Now()); !errors.Is(err, lost) {
		t.Errorf("a body that cannot be read: %v", err)
	}
}

// TestRing: the newest key of each type that may signs, and what it takes the place of is named.
func TestRing(t *testing.T) {
	t.Parallel()
	at := time.Unix(1_800_000_000, 0)
	held := func(selector, kind string, hours int, change func(*Held)) *Held {
		h := testKeys()[0]
		if h.Type != kind {
			h = testKeys()[1]
		}
		return h.With(func(c *Held) {
			c.Selector, c.Made = selector, at.Add(time.Duration(hours)*time.Hour)
			if change != nil {
				change(c)
			}
		})
	}
	seen := func(h *Held) { h.Seen = at }
	r := NewRing([]*Held{held("a", RSA, 1, seen), held("b", RSA, 2, nil), held("c", Ed25519, 1, func(h *Held) { h.AtOnce = true })})
	signs := func(selector, want string) {
		t.Helper()
		keys, err := r.Keys(As{"alice.example", selector})
		var names []string
		for _, k := range keys {
			names = append(names, k.Selector)
		}
		if got := strings.Join(names, " "); err != nil || got != want {
			t.Errorf("selector %q: %q signs (%v), want %q", selector, got, err, want)
		}
	}
	signs("", "a c")
	signs("a", "a")
	signs("b", "")
	signs("x", "")
	if old := r.Superseded("alice.example"); len(old) != 0 || r.Has("bob.example") || !r.Has("alice.example") {
		t.Errorf("%d keys are superseded", len(old))
	}
	r.Put(held("b", RSA, 2, seen))
	signs("", "b c")
	old := r.Superseded("alice.example")
	if len(old) != 1 || old[0].Selector != "a" {
		t.Fatalf("superseded: %+v", old)
	}
	r.Put(old[0].With(func(h *Held) { h.Until = at }))
	signs("a", "b c") // who still names it has the current ones
	if r.Of("alice.example")[2].State() != Retired && r.Of("alice.example")[1].State() != Retired {
		t.Error("nothing is retired")
	}
	r.Put(&Held{Domain: "alice.example", Selector: "d", Err: errors.New("mode 0644")})
	if keys, err := r.Keys(As{Domain: "alice.example"}); len(keys) != 2 || err == nil || !strings.Contains(err.Error(), "0644") {
		t.Errorf("with an unreadable key %d sign, %v", len(keys), err)
	}
	r.Remove("alice.example", "d")
	for _, s := range []string{"a", "b", "c"} {
		r.Remove("alice.example", s)
	}
	if r.Has("alice.example") || len(r.All()) != 0 {
		t.Error("keys are left")
	}
	if _, err := held("x", RSA, 0, func(h *Held) { h.Secret = []byte("no key") }).Key(); err == nil {
		t.Error("a key of garbage")
	}
}

// TestPublished tells the record that a receiver believes from others.
func TestPublished(t *testing.T) {
	t.Parallel()
	for _, h := range testKeys() {
		good := h.Record()
		p := good[strings.Index(good, "p=")+2:]
		for _, c := range []struct {
			txt  []string
			want string
		}{
			{[]string{good}, ""}, {[]string{"k=" + h.Type + " ; p=" + p[:9] + " " + p[9:] + ";"}, ""}, {[]string{good + "; h=sha1:sha256; s=*; t=s"}, ""},
			{nil, "no record"}, {[]string{good, good}, "several"}, {[]string{"v=DKIM1; k=" + h.Type + "; p="}, "revoked"}, {[]string{"v=spf1 -all"}, "no p="},
			{[]string{strings.Replace(good, "p="+p[:4], "p=AAAA", 1)}, "another key"}, {[]string{good + "; h=sha1"}, "sha256"}, {[]string{good + "; s=tlsrpt"}, "email"},
			{[]string{strings.Replace(good, "DKIM1", "DKIM2", 1)}, "v=DKIM2"}, {[]string{strings.Replace(good, "k="+h.Type, "k=dsa", 1)}, "dsa"},
		} {
			switch err := h.Published(c.txt); {
			case c.want == "" && err != nil, c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("%.60q: %v, want %q", c.txt, err, c.want)
			}
		}
	}
}

func BenchmarkSignatures(b *testing.B) {
	for _, h := range testKeys() {
		k, err := h.Key()
		if err != nil {
			b.Fatal(err)
		}
		for _, size := range []int{2 << 10, 1 << 20} {
			body := bytes.Repeat([]byte("some words of a letter, and some more of them\r\n"), size/48)
			b.Run(fmt.Sprintf("%s-%dKiB", h.Type, size>>10), func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(len(body)))
				dst := make([]byte, 0, 2048)
				for b.Loop() {
					if _, err := AppendSignatures(dst, []*Key{k}, []byte(testHead), func(w io.Writer) error { _, err := w.Write(body); return err }, time.Now()); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// FuzzSignatures: whatever a stranger's header and body are, what is signed verifies, and what is not is refused with a reason.
func FuzzSignatures(f *testing.F) {
	f.Add(testHead, " a  b \r\n\r\n", 3)
	f.Add("From: a@alice.example\r\n \r\n\r\n", "\t\r\nx", 1)
	f.Add("From:\r\n\ta\r\nTo : b\r\n\r\n", "x\r\n \r\n.\r\n", 2)
	keys := keysOf(f, testKeys())
	if keys[0].Selector != "e" {
		keys = keys[1:]
	}
	f.Fuzz(func(t *testing.T, head, body string, piece int) {
		if piece < 1 || strings.ContainsAny(head+body, "\x00") || strings.Contains(strings.ReplaceAll(head+body, "\r\n", ""), "\n") || strings.Contains(strings.ReplaceAll(head+body, "\r\n", ""), "\r") {
			return // a message has no such lines
		}
		if strings.Index(head, "\r\n\r\n") != len(head)-4 || len(head) > 4<<10 || len(body) > 4<<10 {
			return
		}
		mail, err := signed(t, keys[:1], head, body, piece)
		if err != nil {
			return
		}
		if strings.Contains(strings.ToLower(head), "dkim-signature") || strings.Contains(head, "\r\n \r\n") || strings.Contains(head, "\r\n\t\r\n") {
			return // others sign, too; a verifier may take a blank line for the header's end
		}
		if v := verdicts(t, mail); len(v) != 1 || v[0] != nil {
			t.Errorf("%q: %v", mail, v)
		}
	})
}
