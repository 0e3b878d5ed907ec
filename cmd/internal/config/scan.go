package config

import (
	"cmp"
	"errors"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// document knows which keys stand in the file, and on which line. Keys of tables in arrays carry their index:
// "user[0].limits.message_size".
type document struct {
	file   string
	lines  map[string]int
	counts map[string]int // tables seen per array of tables
}

// line is where key stands, else where the nearest table around it does, else 1.
func (d *document) line(key string) int {
	for {
		if n, ok := d.lines[key]; ok {
			return n
		}
		i := strings.LastIndexByte(key, '.')
		if i < 0 {
			return 1
		}
		key = key[:i]
	}
}

func (d *document) has(key string) bool { _, ok := d.lines[key]; return ok }

// scanner compares the file with the schema, key by key.
type scanner struct {
	document
	parser unstable.Parser
	ends   []int // where each line ends; the parser counts from the beginning each time it is asked
	errs   Errors
}

// scan reads data and reports every key that is unknown or holds a value that cannot stand there.
func scan(file string, data []byte) (*document, Errors) {
	s := &scanner{document: document{file: file, lines: map[string]int{}, counts: map[string]int{}}}
	root := schema(reflect.TypeFor[Config]())
	for i, c := range data {
		if c == '\n' {
			s.ends = append(s.ends, i)
		}
	}
	s.parser.Reset(data)
	here, fields := "", root
	for s.parser.NextExpression() {
		switch e := s.parser.Expression(); e.Kind {
		case unstable.Table, unstable.ArrayTable:
			here, fields = s.header(e, root)
		case unstable.KeyValue:
			s.keyValue(e, here, fields)
		}
	}
	if err := s.parser.Error(); err != nil {
		s.syntax(data, err)
	}
	return &s.document, s.errs.sorted()
}

func (s *scanner) syntax(data []byte, err error) {
	e := Error{File: s.file, What: err.Error(), Remedy: "see https://toml.io for the syntax"}
	var pe *unstable.ParserError
	if errors.As(err, &pe) {
		e.What = pe.Message
		e.Line = 1
		if off := cap(data) - cap(pe.Highlight); off >= 0 && off <= len(data) {
			e.Line += strings.Count(string(data[:off]), "\n")
		}
	}
	s.errs = append(s.errs, e)
}

func (s *scanner) lineOf(n *unstable.Node) int {
	before, _ := slices.BinarySearch(s.ends, int(n.Raw.Offset))
	return before + 1
}

func (s *scanner) report(line int, key, what, remedy string) {
	s.errs = append(s.errs, Error{File: s.file, Line: line, Key: key, What: what, Remedy: remedy})
}

// header follows a [table] or [[table]] line. Fields is nil where the table is unknown: its keys are passed over,
// since the one report says it all.
func (s *scanner) header(e *unstable.Node, fields []*field) (here string, _ []*field) {
	for it := e.Key(); it.Next(); {
		name, line := string(it.Node().Data), s.lineOf(it.Node())
		f := find(fields, name)
		here = join(here, name)
		switch {
		case f == nil || f.children == nil:
			s.unknown(line, here, name, fields, "table")
			return here, nil
		case f.list && e.Kind == unstable.ArrayTable && it.IsLast():
			here += "[" + strconv.Itoa(s.counts[here]) + "]"
			s.counts[here[:strings.LastIndexByte(here, '[')]]++
		case f.list && (it.IsLast() || s.counts[here] == 0):
			s.report(line, here, "one ["+here+"] cannot stand here", "write [["+here+"]], once for each "+name)
			return here, nil
		case f.list:
			here += "[" + strconv.Itoa(s.counts[here]-1) + "]"
		case e.Kind == unstable.ArrayTable && it.IsLast():
			s.report(line, here, "there is only one such table", "write ["+here+"]")
			return here, nil
		}
		if _, ok := s.lines[here]; !ok {
			s.lines[here] = line
		}
		fields = f.children
	}
	return here, fields
}

func (s *scanner) keyValue(e *unstable.Node, here string, fields []*field) {
	if fields == nil {
		return
	}
	for it := e.Key(); it.Next(); {
		name, line := string(it.Node().Data), s.lineOf(it.Node())
		f := find(fields, name)
		if f == nil {
			s.unknown(line, join(here, name), name, fields, "key")
			return
		}
		here = join(here, name)
		if first, ok := s.lines[here]; ok && it.IsLast() {
			s.report(line, here, "stands on line "+strconv.Itoa(first)+" already", "remove one of the two")
			return
		}
		s.lines[here] = line
		if it.IsLast() {
			s.value(e.Value(), f, here, line)
			return
		}
		if f.children == nil || f.list {
			s.report(line, here, "is not a table", "write "+name+" = …")
			return
		}
		fields = f.children
	}
}

func (s *scanner) value(v *unstable.Node, f *field, here string, line int) {
	switch {
	case f.list:
		s.tables(v, f, here, line)
	case f.children != nil:
		if v.Kind != unstable.InlineTable {
			s.report(line, here, "is a table", "write it as ["+here+"]")
			return
		}
		s.inline(v, f, here)
	case f.typ.Kind() == reflect.Slice:
		if v.Kind != unstable.Array {
			s.report(line, here, "is a list", "write it in brackets: ["+string(s.raw(v))+"]")
			return
		}
		for it := v.Children(); it.Next(); {
			s.scalar(it.Node(), f, f.typ.Elem(), here, line)
		}
	default:
		s.scalar(v, f, f.typ, here, line)
	}
}

func (s *scanner) tables(v *unstable.Node, f *field, here string, line int) {
	if v.Kind != unstable.Array {
		s.report(line, here, "is a list of tables", "write [["+here+"]], once for each")
		return
	}
	for it := v.Children(); it.Next(); {
		if it.Node().Kind != unstable.InlineTable {
			s.report(line, here, "is a list of tables", "write [["+here+"]], once for each")
			return
		}
		at := here + "[" + strconv.Itoa(s.counts[here]) + "]"
		s.counts[here]++
		s.lines[at] = line
		s.inline(it.Node(), f, at)
	}
}

func (s *scanner) inline(v *unstable.Node, f *field, here string) {
	for it := v.Children(); it.Next(); {
		s.keyValue(it.Node(), here, f.children)
	}
}

func (s *scanner) scalar(v *unstable.Node, f *field, t reflect.Type, here string, line int) {
	if v.Raw.Length > 0 && v.Kind != unstable.Array && v.Kind != unstable.InlineTable {
		line = s.lineOf(v)
	}
	if want, ok := fits(v.Kind, t); !ok {
		s.report(line, here, article(strings.ToLower(v.Kind.String()))+" cannot stand here", want)
		return
	}
	if t == timeType {
		return
	}
	text := string(v.Data)
	value, err := parse(t, text)
	if err == nil {
		err = f.bounds(value, text)
	}
	if err != nil {
		what, remedy, _ := strings.Cut(err.Error(), "; ")
		s.report(line, here, what, remedy)
	}
}

// fits reports whether a TOML value of kind k can be read as t, and what to write where it cannot.
func fits(k unstable.Kind, t reflect.Type) (remedy string, ok bool) {
	switch {
	case t == timeType:
		return "write a date with time and zone, like 2027-01-31T00:00:00Z", k == unstable.DateTime
	case isText(t):
		return "write " + article(kind(t)) + " in quotes", k == unstable.String
	case t.Kind() == reflect.String:
		return "write a text in quotes", k == unstable.String
	case t.Kind() == reflect.Bool:
		return "write true or false, without quotes", k == unstable.Bool
	case t.Kind() == reflect.Float64:
		return "write a number, without quotes", k == unstable.Float || k == unstable.Integer
	}
	return "write a whole number, without quotes", k == unstable.Integer
}

func (s *scanner) raw(v *unstable.Node) []byte {
	if v.Kind == unstable.String {
		return []byte(strconv.Quote(string(v.Data)))
	}
	return v.Data
}

func (s *scanner) unknown(line int, key, name string, fields []*field, what string) {
	remedy := "known here: " + strings.Join(names(fields), ", ")
	if near := cmp.Or(nearest(name, names(fields)), akin(name, names(fields))); near != "" {
		remedy = "did you mean " + strconv.Quote(near) + "?"
	}
	s.report(line, key, "there is no such "+what, remedy)
}

func join(here, name string) string {
	if here == "" {
		return name
	}
	return here + "." + name
}

// nearest returns the candidate that is few letters away from name, or "".
func nearest(name string, candidates []string) string {
	best, bestDist := "", 0
	for _, c := range candidates {
		d := distance(name, c)
		if d <= max(2, len(c)/3) && (best == "" || d < bestDist) {
			best, bestDist = c, d
		}
	}
	return best
}

// akin returns the only candidate that has a word of name in it, or "".
func akin(name string, candidates []string) string {
	found := ""
	for _, c := range candidates {
		if !shareWord(name, c) {
			continue
		}
		if found != "" {
			return ""
		}
		found = c
	}
	return found
}

// shareWord tells whether two keys have a word in common, be it in the plural. Short ones (per, to, of) say nothing.
func shareWord(a, b string) bool {
	for w := range strings.SplitSeq(a, "_") {
		for v := range strings.SplitSeq(b, "_") {
			if len(w) > 3 && strings.TrimSuffix(w, "s") == strings.TrimSuffix(v, "s") {
				return true
			}
		}
	}
	return false
}

// distance is the Levenshtein distance of a and b in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diag
			if a[i] != b[j] {
				cost++
			}
			diag = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

func article(noun string) string {
	if strings.ContainsRune("aeiou", rune(noun[0])) {
		return "an " + noun
	}
	return "a " + noun
}
