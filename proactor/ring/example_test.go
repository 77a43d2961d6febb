//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package ring_test

import (
	"fmt"
	"runtime"
	"time"

	"couplet/proactor/ring"
)

// One operation from entry to completion.
func Example() {
	caps, err := ring.Probe()
	if err != nil {
		fmt.Println(err) // says what to change
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r, err := ring.OpenForCaps(64, 256, caps)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer r.Close()

	s := r.SQE()
	s.Nop()
	s.UserData = 42
	for r.Ready() == 0 {
		if err := r.Wait(time.Second, 1); err != nil {
			fmt.Println(err)
			return
		}
	}
	n := r.Ready()
	for i := range n {
		c := r.CQE(i)
		fmt.Println("completed", c.UserData, "with", c.Res)
	}
	r.Advance(n)
}
