package message

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

func TestDomain(t *testing.T) {
	t.Parallel()
	for a, want := range map[Address]string{
		"": "", "a": "", "a@": "", "a@example.org": "example.org", `"a@b"@example.org`: "example.org", "@example.org": "example.org",
	} {
		if got := a.Domain(); got != want {
			t.Errorf("domain of %q is %q, want %q", a, got, want)
		}
	}
}

func TestHeaderAndBody(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ data, header, body string }{
		"empty":                {"", "", ""},
		"usual":                {"A: 1\r\nB-c :  2 \r\n\r\nbody\r\n", "A=1 B-c=2", "body\r\n"},
		"folded":               {"A: 1\r\n 2\r\n\t3\r\nB: 4\r\n\r\nx", "A=1\r\n 2\r\n\t3 B=4", "x"},
		"no header":            {"\r\nA: 1\r\n\r\n", "", "A: 1\r\n\r\n"},
		"no body":              {"A: 1\r\n", "A=1", ""},
		"empty body":           {"A: 1\r\n\r\n", "A=1", ""},
		"no line end":          {"A: 1", "A=1", ""},
		"empty value":          {"A:\r\nB:\r\n\r\n", "A= B=", ""},
		"stops where no field": {"A: 1\r\nno field\r\nB: 2\r\n\r\nx", "A=1", "x"},
		"colon first":          {": 1\r\nB: 2\r\n\r\n", "", ""},
		"colon in the value":   {"A: b: c\r\n\r\n", "A=b: c", ""},
	} {
		var got []string
		for n, v := range Header([]byte(c.data)) {
			got = append(got, fmt.Sprintf("%s=%s", n, v))
		}
		if h := strings.Join(got, " "); h != c.header {
			t.Errorf("%s: header %q, want %q", name, h, c.header)
		}
		if b := string(Body([]byte(c.data))); b != c.body {
			t.Errorf("%s: body %q, want %q", name, b, c.body)
		}
	}
	for range Header([]byte("A: 1\r\nB: 2\r\n\r\n")) {
		break // a reader may leave early
	}
}

func FuzzHeader(f *testing.F) {
	f.Add([]byte("A: 1\r\n 2\r\nB:3\r\n\r\nbody"))
	f.Add([]byte(":\n \n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		n := 0
		for name, value := range Header(data) {
			if bytes.IndexByte(name, ':') >= 0 {
				t.Errorf("name %q", name)
			}
			n += len(name) + len(value)
		}
		if n > len(data) || len(Body(data)) > len(data) {
			t.Errorf("%d bytes of fields in %d", n, len(data))
		}
	})
}
