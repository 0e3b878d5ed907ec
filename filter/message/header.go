package message

import "bytes"

// Header iterates over the header fields of data, a message with CRLF line ends, without copying: name is the field's
// name as written, value its body with folding left in. It stops at the empty line or at the first line that is no
// field (RFC 5322 2.2).
func Header(data []byte) func(yield func(name, value []byte) bool) {
	return func(yield func(name, value []byte) bool) {
		for len(data) > 0 && data[0] != '\r' {
			end := fieldEnd(data)
			colon := bytes.IndexByte(data[:end], ':')
			if colon <= 0 {
				return
			}
			if !yield(Name(data[:colon]), bytes.TrimSpace(data[colon+1:end])) {
				return
			}
			data = data[end:]
		}
	}
}

// Name cuts off the blanks that older mail has between a field's name and the colon (RFC 5322 4.5.8). It is asked of every
// field of every message.
func Name(b []byte) []byte {
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// Body returns what follows the empty line after the header, or nil where there is none.
func Body(data []byte) []byte {
	if bytes.HasPrefix(data, []byte("\r\n")) {
		return data[2:]
	}
	if i := bytes.Index(data, []byte("\r\n\r\n")); i >= 0 {
		return data[i+4:]
	}
	return nil
}

// fieldEnd returns the offset behind the field that starts data, its folded lines included.
func fieldEnd(data []byte) int {
	for i := 0; ; {
		nl := bytes.IndexByte(data[i:], '\n')
		if nl < 0 {
			return len(data)
		}
		i += nl + 1
		if i == len(data) || (data[i] != ' ' && data[i] != '\t') {
			return i
		}
	}
}
