//go:build !unix

package poetry

import "couplet"

// resetOnDeath does nothing here: see linger_unix.go.
func resetOnDeath(couplet.Transport, bool) {}
