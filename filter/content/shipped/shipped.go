// Package shipped holds the model that a gateway begins with.
package shipped

import (
	"bytes"
	_ "embed" // the model is part of the program
	"fmt"

	"sluice/filter/content/learn"
)

//go:embed model.bin
var file []byte

// Model returns a fresh copy of the shipped model.
func Model() (*learn.Model, error) {
	m, err := learn.Load(bytes.NewReader(file))
	if err != nil {
		return nil, fmt.Errorf("could not read the model inside the program: %w", err)
	}
	return m, nil
}
