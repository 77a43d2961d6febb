package bench_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"couplet/bench"
)

// A report was written over the earlier one: a full disk or a kill left neither.
func TestAReportIsReplacedWholeOrStays(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.json")
	const good = "a report of yesterday"
	if err := os.WriteFile(path, []byte(good), 0o640); err != nil {
		t.Fatal(err)
	}
	earlier, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer earlier.Close()

	o, err := bench.OpenOutput(path)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	full := errors.New("the disk is full")
	err = o.Write(func(w io.Writer) error {
		io.WriteString(w, "the beginning")
		return full
	})
	if !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != good {
		t.Errorf("after a failure it is %q, %v", text, err)
	}

	if err := (&bench.Result{Version: bench.Version}).WriteFile(path); err != nil {
		t.Fatal(err)
	}
	if _, err := bench.ReadFile(path); err != nil {
		t.Error(err)
	}
	if text, err := io.ReadAll(earlier); err != nil || string(text) != good {
		t.Errorf("the earlier file has become %q, %v", text, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the file is %v, %v", info.Mode(), err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

// A report that cannot take its place at the very end is kept, and the error says where.
func TestAReportWithoutAPlaceIsKept(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.json")
	o, err := bench.OpenOutput(path)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	const report = "all of it"
	err = o.Write(func(w io.Writer) error {
		_, err := io.WriteString(w, report)
		return err
	})
	kept, _ := filepath.Glob(filepath.Join(dir, ".*.part"))
	if len(kept) != 1 || err == nil || !strings.HasSuffix(err.Error(), "all of it is in "+kept[0]) {
		t.Fatalf("kept is %q, and the error %v", kept, err)
	}
	if text, err := os.ReadFile(kept[0]); err != nil || string(text) != report {
		t.Errorf("kept is %q, %v", text, err)
	}
}
