package poetry_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "github.com/dsnet/compress" // the module that has Paradise Lost in its testdata

	"couplet"
	"couplet/poetry"
)

// paradiseLost is the whole of it, from the module's copy.
func paradiseLost(t *testing.T) []byte {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/dsnet/compress").Output()
	if err != nil {
		t.Skip("there is no go command to find the text with: ", err)
	}
	poem, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "brotli/testdata/plrabn12.txt"))
	if err != nil {
		t.Skip(err)
	}
	return poem
}

func TestParadiseLost(t *testing.T) {
	poem := paradiseLost(t)
	if len(poem) < 400_000 {
		t.Fatalf("Paradise Lost has %d bytes", len(poem))
	}
	onEach(t, func(t *testing.T, e couplet.Engine) {
		fast := serve(t, e, "tcp", poetry.NewFastServer(poem))
		small := serve(t, e, "tcp", slow(t, string(poem), 4000, 100*time.Microsecond))
		large := serve(t, e, "unix", slow(t, string(poem), 50_000, time.Millisecond))
		var addrs []poetry.Addr
		var poems [][]byte
		for range 20 {
			addrs = append(addrs, fast, small, large)
			poems = append(poems, poem, poem, poem)
		}
		checkWhole(t, fetchAll(t, e, poetry.FetchOptions{Record: true}, addrs...), poems)
	})
}
