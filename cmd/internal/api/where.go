package api

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Where is a condition on any member of a line of the message log.
type Where struct {
	member int
	op     string
	value  string
	number float64
	isNum  bool
}

// whereOps are the ways to compare, longer ones first.
var whereOps = []string{"!=", "<=", ">=", "=", "~", "<", ">"}

// messageMembers are the members of a Message by their names in JSON.
var messageMembers = func() map[string]int {
	m, t := map[string]int{}, reflect.TypeFor[Message]()
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		m[name] = i
	}
	return m
}()

// ParseWhere reads MEMBER and VALUE with =, != (the same, or not, letters without case), ~ (contains), or <, <=, >, >=
// (numbers) between them. Of lists one element is enough.
func ParseWhere(s string) (w Where, err error) {
	at, op := len(s), ""
	for _, o := range whereOps {
		if i := strings.Index(s, o); i >= 0 && (i < at || i == at && len(o) > len(op)) {
			at, op = i, o
		}
	}
	name := strings.TrimSpace(s[:at])
	i, ok := messageMembers[name]
	if op == "" || !ok {
		names := make([]string, 0, len(messageMembers))
		for n := range messageMembers {
			names = append(names, n)
		}
		slices.Sort(names)
		return w, invalid(fmt.Sprintf("%q asks for no member of a line", s), "write it like size>1000000, reply~greylisted or helo=mail.customer.example; there are "+strings.Join(names, ", "))
	}
	w = Where{member: i, op: op, value: strings.ToLower(strings.TrimSpace(s[at+len(op):]))}
	w.number, err = strconv.ParseFloat(w.value, 64)
	if w.isNum = err == nil; !w.isNum && (op[0] == '<' || op[0] == '>') {
		return w, invalid(fmt.Sprintf("%q compares with no number", s), "give a number behind "+op)
	}
	return w, nil
}

// Match tells whether a line meets the condition.
func (w Where) Match(m *Message) bool {
	any := false
	each(reflect.ValueOf(m).Elem().Field(w.member), func(text string) { any = any || w.fits(text) })
	if w.op == "!=" {
		return !any // fits compares for equality then
	}
	return any
}

func (w Where) fits(text string) bool {
	text = strings.ToLower(text)
	switch w.op {
	case "=", "!=":
		return text == w.value
	case "~":
		return strings.Contains(text, w.value)
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return false
	}
	switch w.op {
	case "<":
		return n < w.number
	case "<=":
		return n <= w.number
	case ">":
		return n > w.number
	}
	return n >= w.number
}

// each hands over the texts of a value: of a list those of all elements, of a struct those of all members.
func each(v reflect.Value, take func(string)) {
	switch x := v.Interface().(type) {
	case time.Time:
		take(x.UTC().Format(time.RFC3339))
		return
	case fmt.Stringer:
		take(x.String())
		return
	}
	switch v.Kind() {
	case reflect.Slice:
		if v.Len() == 0 {
			take("")
		}
		for i := range v.Len() {
			each(v.Index(i), take)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			each(v.Field(i), take)
		}
	default:
		take(fmt.Sprint(v.Interface()))
	}
}
