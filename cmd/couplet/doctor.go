package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"couplet/engines"
)

func newDoctor(c *common) *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find out what this machine can do, and what stands in the way",
		Long: `Find out, by trying, what this machine can do: the features of io_uring, the
engines that work, the one that --engine=auto takes and why, and every obstacle with
what removes it. The exit status is 0 also where io_uring is not to be had.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("engine") {
				return errors.New("--engine is for one engine; doctor tries them all: leave it out")
			}
			r := engines.Probe()
			if asJSON {
				return writeJSON(c.stdout, r)
			}
			writeReport(c.stdout, r)
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the findings as JSON")
	return cmd
}

// writeJSON writes v, indented.
func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return failure{err}
	}
	return nil
}

// writeReport writes r for people.
func writeReport(out io.Writer, r engines.Report) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	defer w.Flush()
	row := func(name, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }

	row("kernel", "%s %s (%s), %d CPUs", r.OS, r.Kernel, r.Arch, r.CPUs)
	row("open files", "%s", r.OpenFiles)
	row("locked memory", "%s bytes", r.LockedMemory)
	if r.Uring.Sysctl != "" {
		row("sysctl", "kernel.io_uring_disabled = %s", r.Uring.Sysctl)
	}
	row("ring binding", "%s", r.Uring.Binding)
	if r.Uring.Error != "" {
		row("io_uring", "none: %s", r.Uring.Error)
	} else {
		row("io_uring", "tier %s: %s", r.Uring.Tier, strings.Join(r.Uring.Caps, ", "))
	}
	for i, e := range r.Engines {
		name, state := "", "works"
		if i == 0 {
			name = "engines"
		}
		if !e.Works {
			state = "refused"
		}
		row(name, "%s %s: %s", e.Name, state, e.Detail)
	}
	if r.Chosen == "" {
		row("chosen", "none (%s)", r.Why)
	} else {
		row("chosen", "%s (%s)", r.Chosen, r.Why)
	}
	if len(r.Obstacles) == 0 {
		row("obstacles", "none")
	}
	for i, o := range r.Obstacles {
		name := ""
		if i == 0 {
			name = "obstacles"
		}
		row(name, "%s", o.What)
		row("", "  remedy: %s", o.Remedy)
	}
}
