package config

import (
	"bytes"
	"fmt"
	"os"

	"github.com/pelletier/go-toml/v2"
)

// Load reads and checks the file at path. What is wrong with it comes back as Errors, all of it at once.
func Load(path string) (*Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("could not read the configuration: %w; `sluice setup` writes one, --config names another", err)
	}
	return Parse(path, data)
}

// Parse checks data as if it had been read from file.
func Parse(file string, data []byte) (*Config, error) {
	doc, errs := scan(file, data)
	if len(errs) > 0 {
		return nil, errs
	}
	c := &Config{File: file}
	dec := toml.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(c); err != nil {
		return nil, decodeErrors(file, err)
	}
	fill(c, doc)
	c.Intercept.FailSet = doc.has("intercept.default_fail")
	for i := range c.User {
		key := fmt.Sprintf("user[%d].", i)
		c.User[i].ModeSet, c.User[i].FailSet = doc.has(key+"mode"), doc.has(key+"fail")
	}
	if errs := validate(c, doc); len(errs) > 0 {
		return nil, errs
	}
	return c, nil
}
