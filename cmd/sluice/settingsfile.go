package main

import (
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"sluice/cmd/internal/api"
)

// writeSettings writes rows, which are sorted by user, as CSV or TOML.
func writeSettings(w io.Writer, form string, rows []api.SettingRow) error {
	switch form {
	case "csv":
		c := csv.NewWriter(w)
		if err := c.Write([]string{"user", "key", "value"}); err != nil {
			return err
		}
		for _, r := range rows {
			if err := c.Write([]string{r.User, r.Key, r.Value}); err != nil {
				return err
			}
		}
		c.Flush()
		return c.Error()
	case "toml":
		last := ""
		for i, r := range rows {
			if i == 0 || r.User != last {
				if i > 0 {
					fmt.Fprintln(w)
				}
				fmt.Fprintf(w, "[%s]\n", tomlString(r.User))
				last = r.User
			}
			fmt.Fprintf(w, "%s = %s\n", tomlString(r.Key), tomlString(r.Value))
		}
		return nil
	}
	return usageError{fmt.Errorf("--format %q is not known; use csv or toml", form)}
}

// tomlString writes a basic string; all else than quotes, backslashes and controls stands for itself.
func tomlString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// readSettings reads what writeSettings wrote; - is CSV from the standard input.
func readSettings(path string) ([]api.SettingRow, error) {
	if strings.HasSuffix(path, ".toml") {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("could not read the settings: %w", err)
		}
		rows, err := tomlRows(text)
		if err != nil {
			return nil, fmt.Errorf("could not read the settings in %s: %w", path, err)
		}
		return rows, nil
	}
	f := os.Stdin
	if path != "-" {
		var err error
		if f, err = os.Open(path); err != nil {
			return nil, fmt.Errorf("could not read the settings: %w", err)
		}
		defer f.Close() // only read
	}
	rows, err := csvRows(f)
	if err != nil {
		return nil, fmt.Errorf("could not read the settings in %s: %w", path, err)
	}
	return rows, nil
}

func csvRows(r io.Reader) ([]api.SettingRow, error) {
	c := csv.NewReader(r)
	c.FieldsPerRecord, c.Comment = 3, '#'
	var rows []api.SettingRow
	for {
		f, err := c.Read()
		if errors.Is(err, io.EOF) {
			return rows, nil
		}
		if err != nil {
			return nil, err
		}
		if len(rows) == 0 && f[0] == "user" && f[1] == "key" {
			continue
		}
		rows = append(rows, api.SettingRow{User: f[0], Key: f[1], Value: f[2]})
	}
}

func tomlRows(text []byte) ([]api.SettingRow, error) {
	var users map[string]map[string]any
	if err := toml.Unmarshal(text, &users); err != nil {
		return nil, err
	}
	var rows []api.SettingRow
	for user, settings := range users {
		for key, v := range settings {
			value := ""
			switch v := v.(type) {
			case string:
				value = v
			case int64:
				value = strconv.FormatInt(v, 10)
			case float64:
				value = strconv.FormatFloat(v, 'g', -1, 64)
			case bool:
				value = strconv.FormatBool(v)
			default:
				return nil, fmt.Errorf("%s of user %s is neither a string, a number nor true or false; keys with dots are quoted, \"messages_per_day.action\" = \"reject\"", key, user)
			}
			rows = append(rows, api.SettingRow{User: user, Key: key, Value: value})
		}
	}
	slices.SortFunc(rows, func(x, y api.SettingRow) int {
		return cmp.Or(strings.Compare(x.User, y.User), strings.Compare(x.Key, y.Key))
	})
	return rows, nil
}
