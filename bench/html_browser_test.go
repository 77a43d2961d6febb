package bench_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// browsed is what testdata/browse.js saw of a page.
type browsed struct {
	Requests, Refused, Errors []string
	Scrolling                 []string
	Charts, Places            int
	ReadoutBefore             string
	ReadoutAfter              string
	ReadoutOutside            string
	Recovery                  string
	BackgroundBefore          string
	BackgroundAfter           string
	Narrow                    struct{ ScrollWidth, ClientWidth int }
	PlainTables, Tables       int
}

// In a real browser, with the network off: the charts are drawn, they answer the
// pointer, the theme changes, a desktop's width is enough for every table, and a phone's
// for the page. It needs chromium, node and playwright-core, which COUPLET_PLAYWRIGHT
// can name a node_modules directory of; pictures go to COUPLET_PICTURES where that is set.
func TestPageInABrowser(t *testing.T) {
	var chromium string
	for _, name := range []string{"chromium", "chromium-browser"} {
		if path, err := exec.LookPath(name); err == nil {
			chromium = path
			break
		}
	}
	if chromium == "" {
		t.Skip("there is no chromium")
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("there is no node")
	}
	env := os.Environ()
	if dir := os.Getenv("COUPLET_PLAYWRIGHT"); dir != "" {
		env = append(env, "NODE_PATH="+dir)
	}
	probe := exec.Command(node, "-e", "require('playwright-core')")
	if probe.Env = env; probe.Run() != nil {
		t.Skip("node does not find playwright-core; COUPLET_PLAYWRIGHT can name the node_modules directory it is in")
	}

	r := measured("uring", "epoll", "gnet")
	r.Partial = true
	for i := range r.Samples {
		r.Samples[i].Others = .4 // each row of the grid is marked
	}
	page := writePage(t, r)
	cmd := exec.CommandContext(t.Context(), node, filepath.Join("testdata", "browse.js"), chromium, page, os.Getenv("COUPLET_PICTURES"))
	cmd.Env, cmd.WaitDelay = env, 5*time.Second
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, complaint.String())
	}
	var saw browsed
	if err := json.Unmarshal(out, &saw); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if len(saw.Errors) > 0 {
		t.Errorf("the page complains: %q", saw.Errors)
	}
	for _, url := range saw.Requests {
		if !strings.HasPrefix(url, "file://") || !strings.HasSuffix(url, "/report.html") {
			t.Errorf("the page asks for %s", url)
		}
	}
	if len(saw.Requests) == 0 || len(saw.Refused) > 0 {
		t.Errorf("requests %q, refused %q", saw.Requests, saw.Refused)
	}
	if saw.Charts == 0 || saw.Charts != saw.Places {
		t.Errorf("%d charts are drawn in %d places", saw.Charts, saw.Places)
	}
	if saw.ReadoutBefore == saw.ReadoutAfter || !strings.Contains(saw.ReadoutAfter, "uring") {
		t.Errorf("the readout was %q and is %q under the pointer", saw.ReadoutBefore, saw.ReadoutAfter)
	}
	if saw.ReadoutOutside != saw.ReadoutBefore || !strings.Contains(saw.ReadoutBefore, "99 %") {
		t.Errorf("at rest the readout is %q, and %q after the pointer", saw.ReadoutBefore, saw.ReadoutOutside)
	}
	if strings.Count(saw.Recovery, "uring") != 1 || strings.Count(saw.Recovery, "epoll") != 1 || !strings.Contains(saw.Recovery, "0.00") {
		t.Errorf("the readout of the recovery is %q, want both engines at the drop", saw.Recovery)
	}
	if len(saw.Scrolling) > 0 {
		t.Errorf("at 1280 px these tables are wider than the page: %q", saw.Scrolling)
	}
	if saw.BackgroundBefore == saw.BackgroundAfter {
		t.Errorf("the background is %s in both themes", saw.BackgroundBefore)
	}
	if n := saw.Narrow; n.ClientWidth != 390 || n.ScrollWidth > n.ClientWidth {
		t.Errorf("at 390 px the page is %d wide in %d", n.ScrollWidth, n.ClientWidth)
	}
	if saw.Tables == 0 || saw.PlainTables != saw.Tables {
		t.Errorf("%d of %d tables are there without JavaScript", saw.PlainTables, saw.Tables)
	}
}
