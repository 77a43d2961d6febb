//go:build linux

package poetry_test

import (
	"syscall"
	"testing"
	"time"

	"couplet"
	"couplet/poetry"
)

// Five thousand slow poems at once, on one loop: each comes whole.
func TestFiveThousandSlowPoems(t *testing.T) {
	const clients = 5000
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < 2*clients+100 {
		t.Skipf("needs %d descriptors, and may have %d: ulimit -n", 2*clients+100, limit.Cur)
	}
	if testing.Short() {
		t.Skip("takes long")
	}
	onEach(t, func(t *testing.T, e couplet.Engine) {
		poem := text(100)
		a := serve(t, e, "tcp", slow(t, string(poem), 10, 50*time.Millisecond))
		addrs, poems := make([]poetry.Addr, clients), make([][]byte, clients)
		for i := range addrs {
			addrs[i], poems[i] = a, poem
		}
		checkWhole(t, fetchAll(t, e, poetry.FetchOptions{}, addrs...), poems)
	})
}
