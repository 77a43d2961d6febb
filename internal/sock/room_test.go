//go:build linux

package sock

import (
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// An accept that found no place in the table of descriptors stalled its loop while
// the kernel made a larger one.
func TestTheTableOfDescriptorsGrewWhileServing(t *testing.T) {
	if os.Getenv("COUPLET_ROOM") == "" { // the table is the process's: it takes a new one
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), "COUPLET_ROOM=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	table := func() (slots, used int) {
		text, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Skip(err)
		}
		m := regexp.MustCompile(`(?m)^FDSize:\s*(\d+)$`).FindSubmatch(text)
		if m == nil {
			t.Skip("/proc/self/status does not tell the size of the table")
		}
		slots, _ = strconv.Atoi(string(m[1]))
		open, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip(err)
		}
		return slots, len(open)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	_, used := table()
	MakeRoom()
	slots, now := table()
	if want := int(min(limit.Cur, room)); slots < want {
		t.Errorf("room for %d descriptors, want %d", slots, want)
	}
	if now != used {
		t.Errorf("%d descriptors are open, %d were", now, used)
	}
}
