package api

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// ImportLine ties a prefix to a user, and perhaps to a mode.
type ImportLine struct {
	Prefix netip.Prefix
	User   string
	Mode   string // "": none of its own
}

// Imported is what an import did.
type Imported struct {
	Users    int     `json:"users" doc:"in the list"`
	Prefixes int     `json:"prefixes"`
	Modes    int     `json:"modes"`
	Added    int     `json:"added" doc:"users"`
	Removed  int     `json:"removed" doc:"users"`
	Seconds  float64 `json:"seconds" doc:"until it was in force"`
	Warning  string  `json:"warning,omitempty" doc:"what is not yet so"`
}

// Importer takes a list of users. Who is the operator's account.
type Importer interface {
	Import(ctx context.Context, who string, lines []ImportLine, replace bool, reason string) (*Imported, error)
}

const (
	maxImport      = 256 << 20 // bytes of a list
	maxImportLines = 1<<20 + 1<<15
)

func (s *Server) importUsers(r *http.Request) (any, error) {
	lines, err := ParseImport(r.Body)
	if err != nil {
		return nil, err
	}
	q := r.URL.Query()
	reason := q.Get("reason")
	if reason == "" {
		reason = "import"
	}
	if err := checkReason(reason); err != nil {
		return nil, err
	}
	return s.back.Import(r.Context(), who(r.Context()), lines, q.Get("replace") == "1", reason)
}

// ParseImport reads lines of prefix,user[,mode]. Empty lines and those that begin with # are passed over, and so is a
// first line "prefix,user,mode". The error names the line.
func ParseImport(r io.Reader) ([]ImportLine, error) {
	var lines []ImportLine
	at := make(map[netip.Prefix]int)
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 0, 4096), 4096)
	n := 0
	for sc.Scan() {
		n++
		text := strings.TrimSpace(sc.Text())
		if text == "" || text[0] == '#' || n == 1 && strings.HasPrefix(text, "prefix,user") {
			continue
		}
		l, err := importLine(text)
		if err != nil {
			return nil, invalid(fmt.Sprintf("line %d: %s", n, err.What), err.Remedy)
		}
		if first, twice := at[l.Prefix]; twice {
			return nil, invalid(fmt.Sprintf("line %d: %s stands on line %d already", n, l.Prefix, first), "give a prefix to one user, once")
		}
		if len(lines) == maxImportLines {
			return nil, invalid(fmt.Sprintf("line %d: more than %d prefixes", n, maxImportLines), "give whole networks instead of single addresses")
		}
		at[l.Prefix] = n
		lines = append(lines, l)
	}
	if err := sc.Err(); err != nil {
		return nil, invalid(fmt.Sprintf("line %d could not be read: %v", n+1, err), "write lines of prefix,user or prefix,user,mode")
	}
	return lines, nil
}

func importLine(text string) (l ImportLine, bad *Problem) {
	fields := strings.Split(text, ",")
	for i := range fields {
		fields[i] = strings.TrimSpace(fields[i])
	}
	if len(fields) < 2 || len(fields) > 3 || fields[1] == "" {
		return l, invalid(fmt.Sprintf("%.80q is not prefix,user or prefix,user,mode", text), "correct it")
	}
	p, err := ParsePrefix(fields[0])
	if err != nil {
		return l, err.(*Problem)
	}
	l = ImportLine{Prefix: p, User: fields[1]}
	if len(fields) == 3 {
		l.Mode = fields[2]
	}
	if l.Mode != "" && (l.Mode == "canary" || !slices.Contains(sourceModes, l.Mode)) {
		return l, invalid(fmt.Sprintf("%q is not a mode that a list can give", l.Mode), "use intercept, shadow, observe, pass, reject or drop; or leave it out")
	}
	return l, nil
}
