package engines

import (
	"runtime"

	"couplet/classic"
	"couplet/proactor"
	"couplet/proactor/ring"
	"couplet/reactor"
)

// here is this build on this machine.
var here = machine{builtins(), ring.Probe}

// builtins lists the engines of this build, best first.
func builtins() []builtin {
	var list []builtin
	if ring.Binding != "none" {
		list = append(list, builtin{Uring, proactor.New})
	}
	if runtime.GOOS == "linux" {
		list = append(list, builtin{Epoll, reactor.New})
	}
	return append(list, builtin{Goroutine, classic.New})
}
