//go:build linux

package engines_test

import (
	"bytes"
	"context"
	"os"
	"runtime"
	"testing"
	"time"

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
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				defer cancel()
				if _, err := e.Shutdown(ctx); err != nil {
					t.Fatal(err)
				}
			}
			cycle() // what the runtime itself opens, it opens now
			before := holds(t)
			for range 1000 {
				cycle()
			}
			var after held
			for end := time.Now().Add(10 * time.Second); time.Now().Before(end); runtime.Gosched() {
				after = holds(t)
				if after.descriptors <= before.descriptors && after.goroutines <= before.goroutines && after.mappings <= before.mappings {
					return
				}
			}
			t.Errorf("before 1000 starts: %+v; after them: %+v", before, after)
		})
	}
}
