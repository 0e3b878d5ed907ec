package rules

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// The bounds of looking into archives.
const (
	maxInflate = 2 << 20 // bytes that are inflated for one message
	maxInside  = 3       // archives inside archives
	maxMembers = 500
	bombRatio  = 200 // times that a member grows, from 1 MiB on
)

// archive looks into one archive. It reads the headers that stand before the members, so that the beginning of a file is
// enough.
type archive struct {
	c      *checker
	name   string
	budget *int
}

// look finds out by its first bytes what data is.
func (a *archive) look(data []byte, depth int) {
	switch {
	case bytes.HasPrefix(data, []byte("PK\x03\x04")):
		a.zip(data, depth)
	case bytes.HasPrefix(data, []byte("Rar!\x1a\x07\x00")):
		a.rar4(data)
	case bytes.HasPrefix(data, []byte("Rar!\x1a\x07\x01\x00")):
		a.rar5(data)
	case bytes.HasPrefix(data, []byte("7z\xbc\xaf\x27\x1c")):
		if bytes.Contains(data[max(0, len(data)-4096):], []byte{0x06, 0xf1, 0x07, 0x01}) { // the method AES-256 with SHA-256
			a.c.fire(&fileEncrypted, a.name)
		}
	case bytes.HasPrefix(data, []byte{0x1f, 0x8b}):
		a.gzip(data, depth)
	}
}

// zip walks over the local headers (APPNOTE 4.3.7).
func (a *archive) zip(data []byte, depth int) {
	for n := 0; n < maxMembers && len(data) >= 30 && bytes.HasPrefix(data, []byte("PK\x03\x04")); n++ {
		flags, method := binary.LittleEndian.Uint16(data[6:]), binary.LittleEndian.Uint16(data[8:])
		packed, size := int(binary.LittleEndian.Uint32(data[18:])), int(binary.LittleEndian.Uint32(data[22:]))
		start := 30 + int(binary.LittleEndian.Uint16(data[26:]))
		body := start + int(binary.LittleEndian.Uint16(data[28:]))
		if body > len(data) {
			return
		}
		name := string(data[30:start])
		where := a.name + " contains " + strings.ToValidUTF8(name[:min(len(name), 100)], "?")
		a.member(name, where, flags&1 != 0, packed, size)
		streamed := flags&8 != 0 && packed == 0 // sizes follow the member: its end is where its stream ends
		content := data[body:]
		if !streamed {
			content = content[:min(packed, len(content))]
		}
		used := len(content)
		if a.inner(name) || streamed {
			inflated, in := a.unpack(method, flags, content)
			if used = len(content); streamed {
				used = in
			}
			if a.inner(name) && len(inflated) > 0 {
				a.nested(inflated, where, depth)
			}
		}
		if streamed && (method != 8 || flags&1 != 0) {
			data = nextMember(content)
			continue
		}
		data = data[min(body+used, len(data)):]
		if streamed {
			data = nextMember(data)
		}
	}
}

// nextMember returns data from the next local header on.
func nextMember(data []byte) []byte {
	if i := bytes.Index(data, []byte("PK\x03\x04")); i >= 0 {
		return data[i:]
	}
	return nil
}

// member judges what an archive's header tells of one member.
func (a *archive) member(name, where string, encrypted bool, packed, size int) {
	if encrypted {
		a.c.fire(&fileEncrypted, where)
	}
	if size > 1<<20 && packed > 0 && size/packed > bombRatio {
		a.c.fire(&fileBomb, fmt.Sprintf("%s, %d bytes out of %d", where, size, packed))
	}
	if strings.HasSuffix(strings.ToLower(name), "vbaproject.bin") {
		a.c.fire(&fileMacro, where)
	}
	a.c.fileName(name[strings.LastIndexAny(name, `/\`)+1:], where, true)
}

// inner reports whether a member is an archive itself.
func (a *archive) inner(name string) bool { return archives[ending(name)] }

// unpack returns a member's content as far as the budget goes, and how many bytes of src it took.
func (a *archive) unpack(method, flags uint16, src []byte) (out []byte, used int) {
	switch {
	case flags&1 != 0:
		return nil, len(src)
	case method == 0:
		return src, len(src)
	case method != 8 || *a.budget <= 0:
		return nil, len(src)
	}
	in := bytes.NewReader(src)
	r := flate.NewReader(in)
	out, _ = io.ReadAll(io.LimitReader(r, int64(*a.budget))) // a broken stream is read as far as it goes
	*a.budget -= len(out) + 1024
	return out, len(src) - in.Len()
}

// nested looks into an archive inside another.
func (a *archive) nested(data []byte, where string, depth int) {
	a.c.fire(&fileNested, where)
	if depth+1 >= maxInside {
		return
	}
	inner := *a
	inner.name = where
	inner.look(data, depth+1)
}

// gzip looks at the single member of a gzip file.
func (a *archive) gzip(data []byte, depth int) {
	if len(data) < 18 || data[3]&^0x1f != 0 || data[3]&0x04 != 0 {
		return
	}
	head := data[10:]
	name := strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(a.name), ".gz"), ".z")
	if data[3]&0x08 != 0 {
		i := bytes.IndexByte(head, 0)
		if i < 0 {
			return
		}
		name, head = string(head[:i]), head[i+1:]
	}
	a.c.fileName(name, a.name+" contains "+strings.ToValidUTF8(name[:min(len(name), 100)], "?"), true)
	out, used := a.unpack(8, 0, head)
	if len(out) > 1<<20 && used > 0 && len(out)/used > bombRatio {
		a.c.fire(&fileBomb, fmt.Sprintf("%s, %d bytes out of %d", a.name, len(out), used))
	}
	if program(out) {
		a.c.fire(&fileInside, a.name)
	}
	if a.inner(name) && !strings.HasSuffix(name, ".tar") && len(out) > 0 {
		a.nested(out, a.name+" contains "+name, depth)
	}
}

// rar4 walks over the blocks of an old RAR archive.
func (a *archive) rar4(data []byte) {
	data = data[7:]
	for n := 0; n < maxMembers && len(data) >= 7; n++ {
		kind, flags, size := data[2], binary.LittleEndian.Uint16(data[3:]), int(binary.LittleEndian.Uint16(data[5:]))
		if kind == 0x73 && flags&0x80 != 0 {
			a.c.fire(&fileEncrypted, a.name+" (its list of files, too)")
			return
		}
		if size < 7 || size > len(data) {
			return
		}
		if kind == 0x74 && size > 32 {
			packed, whole := int(binary.LittleEndian.Uint32(data[7:])), int(binary.LittleEndian.Uint32(data[11:]))
			if end := 32 + int(binary.LittleEndian.Uint16(data[26:])); end <= size {
				name, _, _ := strings.Cut(string(data[32:end]), "\x00")
				a.member(name, a.name+" contains "+strings.ToValidUTF8(name[:min(len(name), 100)], "?"), flags&4 != 0, packed, whole)
			}
			size += packed
		}
		data = data[min(size, len(data)):]
	}
}

// rar5 walks over the blocks of a new RAR archive.
func (a *archive) rar5(data []byte) {
	data = data[8:]
	for n := 0; n < maxMembers && len(data) > 5; n++ {
		size, k := binary.Uvarint(data[4:])
		if k <= 0 || size == 0 || size > uint64(len(data)-4-k) {
			return
		}
		head := data[4+k : 4+k+int(size)]
		rest := data[4+k+int(size):]
		var f [2]uint64 // kind, flags
		head = uvarints(head, f[:])
		kind, flags := f[0], f[1]
		if kind == 4 {
			a.c.fire(&fileEncrypted, a.name+" (its list of files, too)")
			return
		}
		var extra, packed [1]uint64
		if flags&1 != 0 {
			head = uvarints(head, extra[:])
		}
		if flags&2 != 0 {
			head = uvarints(head, packed[:])
		}
		if kind == 2 {
			a.rar5File(head, extra[0], packed[0])
		}
		data = rest[min(packed[0], uint64(len(rest))):]
	}
}

// rar5File reads the header of a file: its fields, its name, and in the extra area whether it is encrypted.
func (a *archive) rar5File(head []byte, extra, packed uint64) {
	var f [3]uint64 // flags, size, attributes
	head = uvarints(head, f[:])
	if f[0]&2 != 0 {
		head = head[min(4, len(head)):]
	}
	if f[0]&4 != 0 {
		head = head[min(4, len(head)):]
	}
	var g [3]uint64 // compression, system, length of the name
	head = uvarints(head, g[:])
	name := string(head[:min(g[2], uint64(len(head)))])
	encrypted := false
	if extra > 0 && extra <= uint64(len(head)) {
		var r [2]uint64 // size, type
		uvarints(head[uint64(len(head))-extra:], r[:])
		encrypted = r[1] == 1
	}
	a.member(name, a.name+" contains "+strings.ToValidUTF8(name[:min(len(name), 100)], "?"), encrypted, int(min(packed, 1<<40)), int(min(f[1], 1<<40)))
}

// uvarints reads as many numbers as to has and returns what follows.
func uvarints(b []byte, to []uint64) []byte {
	for i := range to {
		v, k := binary.Uvarint(b)
		if k <= 0 {
			return nil
		}
		to[i], b = v, b[k:]
	}
	return b
}
