//go:build labtest

package scenarios

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// Every scenario holds without Sluice: it describes what clients, MX hosts and
// networks do by themselves.
func TestScenariosWithoutSluice(t *testing.T) {
	testscript.Run(t, Params("testdata", false))
}

// And it holds with Sluice in the path, but for what a line marks [!sluice].
func TestScenariosThroughSluice(t *testing.T) {
	testscript.Run(t, Params("testdata", true))
}
