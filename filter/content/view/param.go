package view

import (
	"bytes"
	"path"
	"strconv"
	"strings"
)

// param returns a parameter of a field's value (RFC 2045 5.1), or "". Continued and encoded ones (RFC 2231) are put
// together; what is malformed is read as far as it makes sense.
func param(value []byte, name string) string {
	var whole []byte
	charset, found := "", false
	for next := 0; ; {
		i := bytes.IndexByte(value, ';')
		if i < 0 {
			break
		}
		var key, val []byte
		key, val, value = cutParam(value[i+1:])
		if len(key) < len(name) || !strings.EqualFold(string(key[:len(name)]), name) {
			continue
		}
		rest := string(key[len(name):])
		if rest == "" {
			return string(val)
		}
		encoded := strings.HasSuffix(rest, "*")
		rest = strings.TrimSuffix(rest, "*")
		if rest != "" && rest != "*"+strconv.Itoa(next) {
			continue
		}
		if encoded {
			if next == 0 {
				charset, val = cutCharset(val)
			}
			val = unpercent(val)
		}
		whole, found = append(whole, val...), true
		next++
	}
	if !found {
		return ""
	}
	return string(toUTF8(nil, whole, charset))
}

// cutParam splits "key=value; rest".
func cutParam(s []byte) (key, val, rest []byte) {
	eq := bytes.IndexAny(s, "=;")
	if eq < 0 || s[eq] == ';' {
		return nil, nil, s[max(eq, 0):]
	}
	key, s = bytes.TrimSpace(s[:eq]), bytes.TrimLeft(s[eq+1:], " \t\r\n")
	if len(s) == 0 || s[0] != '"' {
		end := bytes.IndexByte(s, ';')
		if end < 0 {
			end = len(s)
		}
		return key, bytes.TrimSpace(s[:end]), s[end:]
	}
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return key, val, s[i+1:]
		case '\\':
			if i++; i < len(s) {
				val = append(val, s[i])
			}
		case '\r', '\n':
		default:
			val = append(val, s[i])
		}
	}
	return key, val, nil
}

// cutCharset splits charset'language'text.
func cutCharset(val []byte) (charset string, text []byte) {
	p := bytes.SplitN(val, []byte{'\''}, 3)
	if len(p) < 3 {
		return "", val
	}
	return string(p[0]), p[2]
}

func unpercent(s []byte) []byte {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if n, err := strconv.ParseUint(string(s[i+1:i+3]), 16, 8); err == nil {
				out = append(out, byte(n))
				i += 2
				continue
			}
		}
		out = append(out, s[i])
	}
	return out
}

// fileName returns the name under which a part would be saved, without folders.
func (r *Reader) fileName(h *header) string {
	name := param(h.disposition, "filename")
	if name == "" {
		name = param(h.contentType, "name")
	}
	if name == "" {
		return ""
	}
	name = string(r.words([]byte(name[:min(len(name), 1024)])))
	if name = path.Base(strings.ReplaceAll(name, `\`, "/")); name == "." || name == "/" {
		return ""
	}
	return name
}
