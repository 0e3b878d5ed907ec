// Package codes holds the pages that explain the public codes of refusals, one file a code.
package codes

import "embed"

// Pages are the files, named CODE.md.
//
//go:embed *.md
var Pages embed.FS
