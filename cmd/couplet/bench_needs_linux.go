package main

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"couplet"
	"couplet/bench"
	"couplet/engines"
)

// others is what can be compared where there is no io_uring.
const others = "--engines epoll,goroutine"

// needs is nil unless p needs of this machine or of the agent's what is not to be had:
// every sample would fail for the same reason.
func needs(p bench.Plan) error {
	for _, name := range p.Candidates {
		if !needsUring(name) {
			continue
		}
		if p.Remote != nil && p.Remote.Tier() == "none" {
			return fmt.Errorf("%s cannot be measured: there is no io_uring on the agent's machine; couplet doctor says there what is in the way, or compare what works: %s", name, others)
		}
		if p.Remote == nil {
			e, err := engines.Open(engines.Uring, couplet.Config{})
			if err != nil {
				return fmt.Errorf("%s cannot be measured: %w", name, advised(err, others))
			}
			e.Shutdown(context.Background())
		}
		break
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	for _, w := range p.Workloads {
		if whole, err := w.WithDefaults(); err == nil {
			w = whole // to be named as it will be measured
		}
		if n := uint64(w.Connections) + ownFiles; n > limit.Cur {
			return fmt.Errorf("%s needs %d descriptors in one process, and %d are allowed; take fewer --connections, or raise the limit: ulimit -n %[2]d", w, n, limit.Cur)
		}
	}
	return nil
}

// ownFiles is how many descriptors a server or the generator has beside its
// connections, and some to spare.
const ownFiles = 32

// needsUring reports whether a candidate runs on io_uring.
func needsUring(candidate string) bool {
	return strings.HasPrefix(strings.TrimPrefix(candidate, "c-"), engines.Uring)
}
