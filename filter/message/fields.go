package message

import "bytes"

// Fields is what one look at a header finds, for those who would each look for a few fields. The zero value knows nothing.
type Fields struct {
	Looked bool   // else nothing below is known
	Traced bool   // there is a Received field
	Passed bool   // there is a field that those write who pass mail on: Resent-From, X-Forwarded-To, X-Forwarded-For, Delivered-To
	Listed bool   // there is a field of mailing lists: List-Id, List-Post
	Froms  int    // From fields
	From   []byte // value of the first, without the blanks around it; part of what was looked at
}

// Look finds the fields in a message's header, as Header goes over them.
func Look(data []byte) Fields {
	f := Fields{Looked: true}
	for len(data) > 0 && data[0] != '\r' {
		end := fieldEnd(data)
		colon := bytes.IndexByte(data[:end], ':')
		if colon <= 0 {
			break
		}
		f.note(Name(data[:colon]), data[colon+1:end])
		data = data[end:]
	}
	return f
}

// Moved has what is part of one slice be that part of another with the same content.
func (f *Fields) Moved(from, to []byte) {
	if n := len(f.From); n > 0 {
		at := cap(from) - cap(f.From)
		f.From = to[at : at+n]
	}
}

func (f *Fields) note(name, value []byte) {
	switch len(name) {
	case len("From"):
		if is(name, "From") {
			if f.Froms++; f.Froms == 1 {
				f.From = bytes.TrimSpace(value)
			}
		}
	case len("List-Id"):
		f.Listed = f.Listed || is(name, "List-Id")
	case len("List-Post"):
		f.Listed = f.Listed || is(name, "List-Post")
	case len("Received"):
		f.Traced = f.Traced || is(name, "Received")
	case len("Resent-From"), len("X-Forwarded-To"), len("X-Forwarded-For"), len("Delivered-To"):
		f.Passed = f.Passed || passes(name)
	}
}

// passes tells whether a field's name is one of those that passed-on mail has.
func passes(name []byte) bool {
	return is(name, "Resent-From") || is(name, "X-Forwarded-To") || is(name, "X-Forwarded-For") || is(name, "Delivered-To")
}
