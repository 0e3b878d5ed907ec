package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// Error is one thing wrong with a configuration file.
type Error struct {
	File   string
	Line   int // from 1
	Key    string
	What   string
	Remedy string
}

// Error tells file, line, key and remedy in one line.
func (e Error) Error() string {
	s := fmt.Sprintf("%s:%d: ", e.File, max(e.Line, 1))
	if e.Key != "" {
		s += e.Key + ": "
	}
	s += e.What
	if e.Remedy != "" {
		s += "; " + e.Remedy
	}
	return s
}

// Errors is everything wrong with a configuration file, in the order of its lines.
type Errors []Error

// Error tells one thing per line.
func (es Errors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

func (es Errors) sorted() Errors {
	slices.SortStableFunc(es, func(a, b Error) int { return a.Line - b.Line })
	return es
}

// decodeErrors turns what the library found into Errors: syntax, keys that stand twice.
func decodeErrors(file string, err error) Errors {
	var de *toml.DecodeError
	if !errors.As(err, &de) {
		return Errors{{File: file, What: err.Error(), Remedy: "see sluice.toml(5)"}}
	}
	line, _ := de.Position()
	return Errors{{
		File: file, Line: line, Key: strings.Join(de.Key(), "."),
		What: strings.TrimPrefix(de.Error(), "toml: "), Remedy: "see sluice.toml(5) and https://toml.io for the syntax",
	}}
}
