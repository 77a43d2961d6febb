package bench

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
)

// The commit was that of whatever repository the command ran in.
func TestTheCommitIsTheProgramsOwn(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip(err)
	}
	repository := func(module string) string {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module "+module+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, args := range []string{"init -q", "add .", "-c user.name=a -c user.email=a@example.org commit -q -m a"} {
			if out, err := exec.Command("git", append([]string{"-C", dir}, strings.Fields(args)...)...).CombinedOutput(); err != nil {
				t.Fatalf("git %s: %v: %s", args, err, out)
			}
		}
		return dir
	}
	head := func(dir string) string {
		out, err := exec.Command("git", "-C", dir, "rev-parse", "HEAD").Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	mine, other := repository("couplet"), repository("sonnet")
	built := func(modified string) *debug.BuildInfo {
		return &debug.BuildInfo{Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "0123abcd"}, {Key: "vcs.modified", Value: modified}}}
	}
	within := filepath.Join(mine, "bench")
	if err := os.Mkdir(within, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		build     *debug.BuildInfo
		dir, want string
	}{
		{built("false"), other, "0123abcd"},
		{built("true"), mine, "0123abcd with changes"},
		{new(debug.BuildInfo), mine, head(mine)},
		{nil, within, head(mine)},
		{nil, other, ""},
		{nil, t.TempDir(), ""},
	} {
		if got := commit(c.build, c.dir); got != c.want {
			t.Errorf("in %s: %q, want %q", c.dir, got, c.want)
		}
	}
	if err := os.WriteFile(filepath.Join(within, "new"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if got := commit(nil, mine); got != head(mine)+" with changes" {
		t.Errorf("after a change: %q", got)
	}
	r := &Result{Version: Version, Manifest: Manifest{Command: []string{"run"}}}
	var page, text bytes.Buffer
	if err := r.WriteHTML(&page); err != nil {
		t.Fatal(err)
	}
	if err := r.WriteMarkdown(&text, nil, nil); err != nil {
		t.Fatal(err)
	}
	for _, says := range []string{"at commit", "<th scope=\"row\">commit", "| commit"} {
		if strings.Contains(page.String(), says) || strings.Contains(text.String(), says) {
			t.Errorf("a report without a commit says %q", says)
		}
	}
}

// Where loopback is steered a server is not charged for its client's half, and no report
// said so.
func TestAManifestTellsWhereLoopbackIsSteered(t *testing.T) {
	dir := t.TempDir()
	queue := func(name, mask string) {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "rps_cpus"), []byte(mask+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ first, second, want string }{
		{"0", "0", ""}, {"00000000,00000000", "0", ""}, {"2", "0", "2"}, {"0", "1,00000000", "1,00000000"},
	} {
		queue("rx-0", c.first)
		queue("rx-1", c.second)
		if got := steered(dir); got != c.want {
			t.Errorf("of %q and %q: %q, want %q", c.first, c.second, got, c.want)
		}
	}
	if got := steered(t.TempDir()); got != "" {
		t.Errorf("without queues: %q", got)
	}
	r := Result{Manifest: Manifest{Machine: Machine{Steered: "2"}}}
	var text strings.Builder
	if err := r.WriteTable(&text); err != nil || !strings.Contains(text.String(), "Steered: ") {
		t.Errorf("%v, the table:\n%s", err, &text)
	}
	if r.Manifest.conditions()["loopback received"] == (Manifest{}).conditions()["loopback received"] {
		t.Error("a comparison does not tell")
	}
}

// Of an agent on the same machine the page said that it was over a network.
func TestOneMachineIsNoNetwork(t *testing.T) {
	for one, want := range map[bool]int{true: 0, false: 1} {
		r := &Result{Manifest: Manifest{Network: &Network{Server: "127.0.0.1", Generator: "127.0.0.1", OneMachine: one}}}
		if facts := strings.Join(r.facts(), "\n"); strings.Count(facts, "over a network") != want {
			t.Errorf("on one machine %v: %q", one, facts)
		}
	}
}
