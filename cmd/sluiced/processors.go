package main

import (
	"os"
	"runtime"
)

// takeTwoProcessors has a machine with one processor run two threads of Go: one of them is kept for who has just come (see
// filter.NewTurns), and the kernel shares the processor between both. With one, each of the others' commands that pipeline
// without end has its turn before a good mail's next. GOMAXPROCS in the environment wins.
func takeTwoProcessors() {
	if os.Getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) == 1 {
		runtime.GOMAXPROCS(2)
	}
}
