//go:build linux

package engines_test

import (
	"bytes"
	"context"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"couplet"
	"couplet/engines"
)

// held counts what an engine could leave behind.
type held struct{ descriptors, goroutines, mappings int }

func holds(t *testing.T) held {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return held{len(fds), runtime.NumGoroutine(), bytes.Count(maps, []byte("anon_inode"))}
}

func TestAThousandStartsLeaveNothing(t *testing.T) {
	for _, name := range engines.Names() {
		t.Run(name, func(t *testing.T) {
			cycle := func() {
				e, err := engines.Open(name, couplet.Config{Loops: 2})
				if err != nil {
					t.Skip(err)
				}
				shut(t, e)
			}
			cycle() // what the runtime itself opens, it opens now
			before := holds(t)
			for range 1000 {
				cycle()
			}
			left(t, before)
		})
	}
}

// Whichever descriptor it is that an engine does not get any more, it gives back the others.
func TestAStartWithoutDescriptorsLeavesNothing(t *testing.T) {
	for _, name := range engines.Names() {
		t.Run(name, func(t *testing.T) {
			e, err := engines.Open(name, couplet.Config{Loops: 3})
			if err != nil {
				t.Skip(err)
			}
			shut(t, e) // what the runtime itself opens, it has opened now
			before := holds(t)
			var limit unix.Rlimit
			if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
				t.Fatal(err)
			}
			defer unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
			failed := 0
			for few := uint64(3); ; few++ {
				if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: few, Max: limit.Max}); err != nil {
					t.Fatal(err)
				}
				e, err := engines.Open(name, couplet.Config{Loops: 3})
				if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
					t.Fatal(err)
				}
				if err == nil {
					shut(t, e)
					break
				}
				failed++
			}
			left(t, before)
			if failed == 0 && name != "goroutine" { // which needs none
				t.Error("no start failed")
			}
		})
	}
}

func shut(t *testing.T, e couplet.Engine) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := e.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
}

// left waits until no more is held than before.
func left(t *testing.T, before held) {
	t.Helper()
	var after held
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); runtime.Gosched() {
		after = holds(t)
		if after.descriptors <= before.descriptors && after.goroutines <= before.goroutines && after.mappings <= before.mappings {
			return
		}
	}
	t.Errorf("before: %+v; after: %+v", before, after)
}
