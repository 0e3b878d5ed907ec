package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"sluice/proxy/durable"
	"sluice/proxy/tlspolicy"
)

// stsFile keeps MTA-STS policies in one file, which is there whole or not at all. It is written seldom: a policy holds for
// weeks.
type stsFile string

// Load reads the policies; without a file there are none.
func (f stsFile) Load() (all []tlspolicy.Kept, err error) {
	text, err := os.ReadFile(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil {
		return nil, fmt.Errorf("could not read MTA-STS policies in %s: %w", string(f), err)
	}
	return all, nil
}

// Save writes the policies.
func (f stsFile) Save(all []tlspolicy.Kept) error {
	text, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return durable.WriteFile(string(f), text, 0o600)
}
